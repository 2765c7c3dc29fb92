"""The recipes of the images; images.lock.yaml names the images and is part of the package."""
