"""Embedline: an assembly line for text-embedding models."""

from embedline.environment import prepare_process

__version__ = "0.1.0"

prepare_process()
