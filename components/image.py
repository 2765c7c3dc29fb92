"""The image that every component runs in; the one place that names it."""

from embedline import __version__

# "python" in the name tells kfp's local runner that the image is a Python one; the tag moves with the code.
IMAGE = f"embedline-python:{__version__}"
