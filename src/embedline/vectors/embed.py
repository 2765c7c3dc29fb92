"""Embedding of a corpus to disk: memory for one shard, and an interrupted call is resumed."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedline.artifacts.durable import put_in_place

SHARD = 16_384  # texts whose vectors are computed before they are written


def embed_corpus(
    texts: Sequence[str],
    encode: Callable[[Sequence[str]], np.ndarray],
    folder: Path,
    *,
    about: str = "",
    shard: int = SHARD,
) -> np.ndarray:
    """Compute the vectors (N × D, float32, memory-mapped) of `texts`, or read those that are in `folder`.

    Vectors that a killed call has written are not computed again, unless they were damaged since.

    Args:
        encode: texts, at most `shard` at a time, to vectors.
        folder: one model's vectors; files are named by a digest of the texts and of `about`.
        about: what else a vector depends on: prompt, side, length.

    >>> vectors = embed_corpus(["один", "два"], model.encode, Path("vectors"))  # doctest: +SKIP
    >>> vectors.shape  # doctest: +SKIP
    (2, 768)
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = _digest(about, texts)
    path, marker = folder / f"{name}.npy", folder / f"{name}.rows"
    done, checksum = 0, 0
    vectors: np.memmap[Any, Any] | None = None
    if marker.is_file() and path.is_file():
        done, checksum, vectors = _written(path, marker, shard)
    for start in range(done, len(texts), shard):
        block = encode(texts[start : start + shard])
        if vectors is None:
            shape = (len(texts), block.shape[1])
            vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        vectors[start : start + len(block)] = block
        vectors.flush()
        checksum = zlib.crc32(vectors[start : start + len(block)].data, checksum)
        _replace(marker, f"{start + len(block)} {checksum}")
    if vectors is None:
        return np.zeros((0, 0), np.float32)
    mapped: np.ndarray = np.load(path, mmap_mode="c")
    return mapped


def _digest(about: str, texts: Sequence[str]) -> str:
    digest = hashlib.sha256(about.encode())
    for text in texts:
        raw = text.encode()
        digest.update(f"\n{len(raw)}\n".encode() + raw)
    return digest.hexdigest()[:32]


def _written(path: Path, marker: Path, shard: int) -> tuple[int, int, np.memmap[Any, Any] | None]:
    """Return the rows written so far, their CRC-32 and the vectors; no rows when these are damaged."""
    try:
        done, expected = map(int, marker.read_text().split())
        vectors = np.lib.format.open_memmap(path, mode="r+")
        checksum = 0
        for start in range(0, done, shard):
            checksum = zlib.crc32(vectors[start : min(start + shard, done)].data, checksum)
    except (ValueError, OSError):
        return 0, 0, None
    return (done, checksum, vectors) if checksum == expected else (0, 0, None)


def _replace(path: Path, text: str) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    put_in_place(draft, path)
