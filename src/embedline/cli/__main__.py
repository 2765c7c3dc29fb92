"""Run the command line: `python -m embedline.cli`."""

from embedline.cli import main

main()
