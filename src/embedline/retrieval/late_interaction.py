"""Late interaction over kept token vectors (ColBERT, Khattab and Zaharia 2020), for a few passages."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embedline.retrieval.blocks import TokenArray

_TOKENS, _OFFSETS = "tokens.npy", "token_offsets.npy"


def late_interaction(query_TK: np.ndarray, passages: TokenArray, rows: np.ndarray) -> np.ndarray:
    """Score the passages in `rows`: mean over query tokens of the largest product with a passage's token.

    A text without tokens scores 0, as in `models.head_scores.multi_vector_scores`.

    Args:
        query_TK: token vectors of the query, length 1.
        passages: token vectors of all passages, fp16; only those of `rows` are read.
    """
    import torch

    lengths = passages.offsets[rows + 1] - passages.offsets[rows]
    scores = np.zeros(len(rows), np.float32)
    filled = np.flatnonzero(lengths)
    if not len(query_TK) or not len(filled):
        return scores
    tokens_MK = np.concatenate([passages.text(row) for row in rows[filled]])
    products = torch.from_numpy(query_TK) @ torch.from_numpy(tokens_MK).float().T
    starts = np.cumsum(lengths[filled]) - lengths[filled]
    scores[filled] = np.maximum.reduceat(products.numpy(), starts, axis=1).mean(axis=0)
    return scores


def create_tokens(folder: Path, count: int, width: int, offsets: np.ndarray) -> np.ndarray:
    """Create the file of the token vectors, to be filled, and write where each passage's begin."""
    np.save(folder / _OFFSETS, offsets)
    shape = (count, width)
    if not count:  # nothing can be mapped
        np.save(folder / _TOKENS, np.zeros(shape, np.float16))
        return np.zeros(shape, np.float16)
    return np.lib.format.open_memmap(folder / _TOKENS, mode="w+", dtype=np.float16, shape=shape)


def open_tokens(folder: Path) -> TokenArray | None:
    """Open the token vectors of an index, memory-mapped; None when it has none."""
    if not (folder / _TOKENS).is_file():
        return None
    offsets = np.load(folder / _OFFSETS)
    vectors = np.load(folder / _TOKENS, mmap_mode="r" if offsets[-1] else None)
    return TokenArray(vectors.view(np.ndarray), offsets)
