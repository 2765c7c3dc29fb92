"""What the heads of a model give for texts, as arrays: the same from torch and from onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from embedline.models.batching import token_batches

if TYPE_CHECKING:  # the ONNX runtime works without torch
    from embedline.models.embedder import Embedder

Terms = dict[int, float]


class HeadVectors(NamedTuple):
    """N texts; what the model has no head for is None.

    Args:
        dense: N × D, float32, length 1.
        lexical: a text's terms, token id → the largest weight of its tokens; weights of 0 are left out.
        tokens: a text's token vectors (T × K, float32, length 1), without the special token that begins it.
    """

    dense: np.ndarray
    lexical: list[Terms] | None = None
    tokens: list[np.ndarray] | None = None


# Rows of ids to arrays over the padded batch: dense B × D, lexical B × T or None, tokens B × T × K or None.
Heads = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]


def collect_heads(
    ids: Sequence[list[int]],
    run: Callable[[list[list[int]]], Heads],
    *,
    width: int,
    heads: Sequence[str],
    batch_tokens: int,
) -> HeadVectors:
    """All heads' vectors of rows of token ids, in their order; `run` sees batches of rows of like length."""
    dense = np.zeros((len(ids), width), np.float32)
    lexical: list[Terms] = [{} for _ in ids]
    tokens: list[np.ndarray] = [np.zeros((0, 0), np.float32) for _ in ids]
    for rows in token_batches([len(row) for row in ids], batch_tokens):
        batch = [ids[i] for i in rows]
        dense[rows], weights_BT, tokens_BTK = run(batch)
        for place, (i, row) in enumerate(zip(rows.tolist(), batch, strict=True)):
            if weights_BT is not None:
                lexical[i] = terms_of(row, weights_BT[place, : len(row)])
            if tokens_BTK is not None:
                vectors = tokens_BTK[place, : len(row)].astype(np.float32)
                tokens[i] = vectors if vectors[0].any() else vectors[1:]
    return HeadVectors(
        dense, lexical if "lexical" in heads else None, tokens if "multi_vector" in heads else None
    )


def terms_of(ids: Sequence[int], weights_T: np.ndarray) -> Terms:
    """The largest weight of each token id that weighs anything."""
    terms: Terms = {}
    for term, weight in zip(ids, weights_T.tolist(), strict=True):
        if not weight <= terms.get(term, 0.0):  # a weight that is not a number must not vanish
            terms[term] = weight
    return terms


def encode_heads(
    embedder: Embedder,
    texts: Sequence[str],
    *,
    prompt: str = "",
    max_length: int | None = None,
    batch_tokens: int = 8192,
    bf16: bool = False,
) -> HeadVectors:
    """What every head of `embedder` gives for `texts`, from one forward pass a batch.

    Args:
        batch_tokens: tokens a batch, padding included: what bounds the memory.
    """
    import torch
    import torch.nn.functional as F

    def run(batch: list[list[int]]) -> Heads:
        with torch.no_grad(), torch.autocast(embedder.device.type, torch.bfloat16, enabled=bf16):
            found = embedder.represent(**embedder.pad(batch))
        dense = F.normalize(found.dense.float(), dim=-1).cpu().numpy()
        others = (None if part is None else part.float().cpu().numpy() for part in found[1:])
        return dense, *others  # type: ignore[return-value]

    ids = embedder.tokenize(texts, prompt=prompt, max_length=max_length or embedder.spec.document_length)
    was_training = embedder.training
    embedder.eval()
    try:
        return collect_heads(
            ids, run, width=embedder.width, heads=embedder.spec.heads, batch_tokens=batch_tokens
        )
    finally:
        embedder.train(was_training)
