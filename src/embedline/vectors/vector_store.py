"""Vectors of texts that are computed once: shards on disk, found by a digest of what a vector depends on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from embedline.artifacts.durable import put_in_place

_KEY = np.dtype("S16")


def key_of(text: str, about: str) -> bytes:
    """Return the key of a text's vector.

    Args:
        about: what the vector depends on beside the text and the model: prompt, length.
    """
    raw = about.encode()
    return hashlib.blake2b(f"{len(raw)}\n".encode() + raw + text.encode(), digest_size=16).digest()


class VectorStore:
    """Vectors (float16) of texts in a folder, memory-mapped; several processes may add to it at a time.

    A shard is a file of vectors (n × D) and one of their keys; its name is a digest of both. A shard without
    its keys was not finished, and one whose content has another digest was damaged: both count as absent.

    Args:
        folder: one model's vectors.

    >>> store = VectorStore(Path("vectors"))  # doctest: +SKIP
    >>> store.add([key_of("один", "query: ")], model.encode(["один"], prompt="query: "))  # doctest: +SKIP
    >>> store.read([key_of("один", "query: ")]).shape  # doctest: +SKIP
    (1, 384)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open()

    def open(self) -> None:
        """Find what the folder holds now, other processes' vectors included."""
        self._shards: list[np.ndarray] = []
        keys, places = [], []
        for path in sorted(self.folder.glob("*.keys.npy")) if self.folder.is_dir() else []:
            if (shard := _read_shard(path)) is not None:
                keys.append(shard[0])
                places.append(np.arange(len(shard[0])) + (len(self._shards) << 32))
                self._shards.append(shard[1])
        whole = np.concatenate([np.empty(0, _KEY), *keys])
        self._keys, first = np.unique(whole, return_index=True)
        self._places = np.concatenate([np.empty(0, np.int64), *places])[first]

    def __contains__(self, key: bytes) -> bool:
        at = np.searchsorted(self._keys, np.array(key, _KEY))
        return bool(at < len(self._keys) and self._keys[at] == np.array(key, _KEY))

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, keys: Sequence[bytes], vectors_ND: np.ndarray) -> None:
        """Write a shard; `open` finds it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        stored, vectors = np.array(keys, _KEY), vectors_ND.astype(np.float16)
        name = _digest(stored, vectors)
        for suffix, values in (("vectors", vectors), ("keys", stored)):  # the keys last: they complete it
            draft = self.folder / f".{name}.{os.getpid()}.npy"
            np.save(draft, values)
            put_in_place(draft, self.folder / f"{name}.{suffix}.npy")

    def touch(self) -> None:
        """Mark the folder as used now."""
        if self.folder.is_dir():
            os.utime(self.folder)

    def read(self, keys: Iterable[bytes]) -> np.ndarray:
        """Return the vectors of the keys (N × D, float32).

        Raises:
            KeyError: a vector is not in the store.
        """
        wanted = np.array(list(keys), _KEY)
        at = np.searchsorted(self._keys, wanted)
        at[at == len(self._keys)] = 0
        if len(self._keys) == 0 or (self._keys[at] != wanted).any():
            raise KeyError("a text without a vector")
        places = self._places[at]
        shards, rows = places >> 32, places & 0xFFFFFFFF
        vectors = np.empty((len(wanted), self._shards[0].shape[1]), np.float32)
        for shard in np.unique(shards):
            chosen = shards == shard
            vectors[chosen] = self._shards[shard][rows[chosen]]
        return vectors


def _read_shard(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Return keys and vectors of a shard; None where it is incomplete or damaged."""
    name = path.name.removesuffix(".keys.npy")
    try:
        keys = np.load(path)
        vectors = np.load(path.with_name(f"{name}.vectors.npy"), mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return (keys, vectors) if _digest(keys, vectors) == name else None


def _digest(keys: np.ndarray, vectors: np.ndarray) -> str:
    digest = hashlib.blake2b(keys.tobytes(), digest_size=16)
    for start in range(0, len(vectors), 4096):  # the file need not be in memory as a whole
        digest.update(np.ascontiguousarray(vectors[start : start + 4096]).data)
    return digest.hexdigest()
