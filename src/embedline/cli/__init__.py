"""The `embedline` command. Importing it loads none of torch, kfp and mlflow."""

from __future__ import annotations

from embedline.cli.app import main

__all__ = ["main"]
