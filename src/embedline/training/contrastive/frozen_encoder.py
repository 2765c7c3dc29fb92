"""Training of the lexical and multi-vector heads alone: a step costs a forward pass of the encoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from embedline.models.embedder import Embedder


@contextmanager
def frozen_encoder(embedder: Embedder) -> Iterator[None]:
    """Compute no gradient outside the heads inside; dense vectors stay bit for bit as they are."""
    heads = {id(parameter) for parameter in embedder.heads.parameters()}
    frozen = [p for p in embedder.parameters() if p.requires_grad and id(p) not in heads]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
