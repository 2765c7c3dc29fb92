"""Where models work."""

from __future__ import annotations

import torch


def best_device() -> torch.device:
    """The GPU when there is one: for training, mining, evaluation and teachers alike."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
