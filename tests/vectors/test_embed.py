"""Vectors on the disk: the encoder's own, in its order, and never computed twice."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from embedline.vectors.embed import embed_corpus

TEXTS = [f"текст {i}" for i in range(23)]


class Encoder:
    """Vectors that tell their text; remembers what it was asked, and dies when told to."""

    def __init__(self, dies_after: int = 10**9) -> None:
        self.asked: list[list[str]] = []
        self.dies_after = dies_after

    def __call__(self, texts: list[str]) -> np.ndarray:
        if len(self.asked) >= self.dies_after:
            raise KeyboardInterrupt
        self.asked.append(list(texts))
        return np.array([[len(text), hash(text) % 1000] for text in texts], np.float32)


def test_vectors_are_the_encoders_in_order_and_a_shard_at_a_time(tmp_path: Path) -> None:
    encoder = Encoder()
    found = embed_corpus(TEXTS, encoder, tmp_path, shard=5)
    np.testing.assert_array_equal(found, Encoder()(TEXTS))
    assert isinstance(found, np.memmap)
    assert [len(asked) for asked in encoder.asked] == [5, 5, 5, 5, 3]


def test_what_was_embedded_is_not_embedded_again(tmp_path: Path) -> None:
    embed_corpus(TEXTS, Encoder(), tmp_path, about="query")
    again = Encoder()
    np.testing.assert_array_equal(embed_corpus(TEXTS, again, tmp_path, about="query"), Encoder()(TEXTS))
    assert not again.asked
    for other in (TEXTS[1:], [*TEXTS[:-1], "иной"], ["".join(TEXTS[:2]), *TEXTS[2:]], TEXTS[::-1]):
        np.testing.assert_array_equal(
            embed_corpus(other, Encoder(), tmp_path, about="query"), Encoder()(other)
        )
    embed_corpus(TEXTS, again, tmp_path, about="document")
    assert again.asked  # the same texts with another prompt are others


@pytest.mark.parametrize("shards", range(5))
def test_a_killed_call_is_resumed(tmp_path: Path, shards: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed_corpus(TEXTS, Encoder(dies_after=shards), tmp_path, shard=5)
    encoder = Encoder()
    found = embed_corpus(TEXTS, encoder, tmp_path, shard=7)
    np.testing.assert_array_equal(found, Encoder()(TEXTS))
    assert sum(map(len, encoder.asked)) == len(TEXTS) - 5 * shards


@pytest.mark.parametrize("shards", [3, 9])
def test_damaged_vectors_are_computed_again(tmp_path: Path, shards: int) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        embed_corpus(TEXTS, Encoder(dies_after=shards), tmp_path, shard=5)
    [file] = tmp_path.glob("*.npy")
    with file.open("r+b") as raw:
        raw.seek(140)
        raw.write(bytes(16))
    encoder = Encoder()
    np.testing.assert_array_equal(embed_corpus(TEXTS, encoder, tmp_path, shard=5), Encoder()(TEXTS))
    assert sum(map(len, encoder.asked)) == len(TEXTS)


def test_no_texts_give_no_vectors(tmp_path: Path) -> None:
    assert embed_corpus([], Encoder(), tmp_path).shape == (0, 0)
