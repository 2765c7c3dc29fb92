"""The outputs of a model's heads for texts, as arrays: one form for torch and onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from embedline.models.batching import token_batches

if TYPE_CHECKING:  # the ONNX runtime works without torch
    from embedline.models.embedder import Embedder

Terms = dict[int, float]


class HeadVectors(NamedTuple):
    """The heads' outputs for N texts; None for a head that the model lacks.

    Args:
        dense: N × D, float32, length 1.
        lexical: terms of each text, token id → the largest weight of its tokens; weights of 0 are left out.
        tokens: token vectors of each text (T × K, float32, length 1), without the special token at its start.
    """

    dense: np.ndarray
    lexical: list[Terms] | None = None
    tokens: list[np.ndarray] | None = None


# Rows of ids to arrays over the padded batch: dense B × D, lexical B × T or None, tokens B × T × K or None.
HeadArrays = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]


def collect_heads(
    ids: Sequence[list[int]],
    run: Callable[[list[list[int]]], HeadArrays],
    *,
    width: int,
    heads: Sequence[str],
    batch_tokens: int,
) -> HeadVectors:
    """Run rows of token ids in batches of like length and collect every head's output in the rows' order.

    Args:
        run: maps a batch of rows to `HeadArrays`.
        width: of the dense vectors.
        heads: the model's heads.
        batch_tokens: tokens a batch, padding included: bounds the memory.
    """
    dense = np.zeros((len(ids), width), np.float32)
    lexical: list[Terms] = [{} for _ in ids]
    tokens: list[np.ndarray] = [np.zeros((0, 0), np.float32) for _ in ids]
    for rows in token_batches([len(row) for row in ids], batch_tokens):
        batch = [ids[i] for i in rows]
        dense[rows], weights_BT, tokens_BTK = run(batch)
        for at, (i, row) in enumerate(zip(rows.tolist(), batch, strict=True)):
            if weights_BT is not None:
                lexical[i] = largest_weights(row, weights_BT[at, : len(row)])
            if tokens_BTK is not None:
                vectors = tokens_BTK[at, : len(row)].astype(np.float32)
                tokens[i] = vectors if vectors[0].any() else vectors[1:]
    return HeadVectors(
        dense, lexical if "lexical" in heads else None, tokens if "multi_vector" in heads else None
    )


def largest_weights(ids: Sequence[int], weights_T: np.ndarray) -> Terms:
    """Return the largest weight of each token id; ids without a positive weight are left out."""
    terms: Terms = {}
    for term, weight in zip(ids, weights_T.tolist(), strict=True):
        if not weight <= terms.get(term, 0.0):  # written so that NaN is kept and found later
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
    """Encode `texts` with every head of `embedder`, in one forward pass a batch.

    Args:
        max_length: tokens at which a text is cut; the model's document length when None.
        batch_tokens: tokens a batch, padding included: bounds the memory.

    Example:
        >>> vectors = encode_heads(load_embedder(Path("bge-m3")), ["How do I reset my password?"])
        >>> vectors.dense.shape  # (1, width)
        >>> vectors.lexical[0]  # {token id: weight}
    """
    import torch
    import torch.nn.functional as F

    def run(batch: list[list[int]]) -> HeadArrays:
        with torch.no_grad(), torch.autocast(embedder.device.type, torch.bfloat16, enabled=bf16):
            encoded = embedder.represent(**embedder.pad(batch))
        dense = F.normalize(encoded.dense.float(), dim=-1).cpu().numpy()
        others = (None if part is None else part.float().cpu().numpy() for part in encoded[1:])
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
