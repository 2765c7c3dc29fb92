from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import pytest

from embedline.models.head_vectors import HeadVectors
from embedline.retrieval.about import VectorSource
from embedline.retrieval.blocks import Block

WIDTH, TOKEN_WIDTH, VOCABULARY = 16, 6, 50


def _unit(rows: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    return scaled


class MadeUpModel:
    """Vectors that depend on the text alone; `seen` are the texts that were encoded."""

    def __init__(self, heads: tuple[str, ...] = ("dense", "lexical", "multi_vector")) -> None:
        self.heads = heads
        self.seen: list[str] = []
        self.source = VectorSource("the/model", "0123456789abcdef", "passage: ", 64, heads)

    def vectors(self, texts: Sequence[str]) -> HeadVectors:
        dense, lexical, tokens = [], [], []
        for text in texts:
            random = np.random.default_rng(zlib.crc32(text.encode()))
            dense.append(random.normal(size=WIDTH))
            terms = random.choice(VOCABULARY, random.integers(0, 9), replace=False)
            lexical.append({int(term): float(np.float32(random.random() + 0.01)) for term in terms})
            tokens.append(_unit(random.normal(size=(random.integers(0, 7), TOKEN_WIDTH))))
        return HeadVectors(
            _unit(np.array(dense)),
            lexical if "lexical" in self.heads else None,
            tokens if "multi_vector" in self.heads else None,
        )

    def block(self, texts: Sequence[str]) -> Block:
        self.seen += texts
        return Block.of(self.vectors(texts), VOCABULARY)


@pytest.fixture
def model() -> MadeUpModel:
    return MadeUpModel()


@pytest.fixture
def dense_model() -> MadeUpModel:
    return MadeUpModel(("dense",))
