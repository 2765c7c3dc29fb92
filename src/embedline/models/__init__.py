"""Backbones, tokenizers, pooling, prompts; loading, saving and resolving models."""
