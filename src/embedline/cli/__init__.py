"""The `embedline` command. Importing it loads neither torch nor kfp nor mlflow."""

from __future__ import annotations

from embedline.cli.app import main

__all__ = ["main"]
