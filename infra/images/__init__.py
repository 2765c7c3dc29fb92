"""How the images are built; images.lock.yaml names them, and travels with the package."""
