"""The command line as `python -m embedline.cli`."""

from embedline.cli import main

main()
