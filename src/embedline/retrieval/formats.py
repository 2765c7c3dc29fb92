"""Vectors of texts in the forms that search engines and NumPy read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import scipy.sparse as sp

from embedline.artifacts.durable import put_in_place
from embedline.artifacts.manifest import write_manifest
from embedline.errors import InputError
from embedline.models.head_vectors import HeadVectors, Terms
from embedline.retrieval.blocks import Block

SparseForm = Literal["qdrant", "opensearch"]
SPARSE_FORMS: tuple[SparseForm, ...] = get_args(SparseForm)
VECTORS_KIND = "vectors"
_DIGITS = 7
_SMALLEST = float(np.finfo(np.float32).tiny)  # Lucene's features are normal floats, and positive
_DOT, _OTHER_DOT = ".", "\N{ONE DOT LEADER}"


def qdrant_terms(terms: Terms) -> dict[str, list[Any]]:
    """Return terms as Qdrant's sparse vector: token ids in `indices`, ascending, and their `values`.

    >>> qdrant_terms({7: 0.5, 3: 0.25})
    {'indices': [3, 7], 'values': [0.25, 0.5]}
    """
    ordered = sorted(terms.items())
    return {"indices": [term for term, _ in ordered], "values": [_rounded(weight) for _, weight in ordered]}


def opensearch_terms(terms: Terms, token: Callable[[int], str]) -> dict[str, float]:
    """Return terms as a `rank_features` field holds them, and as `query_tokens` of `neural_sparse`.

    A dot in a token would be read as the path of an inner field: it is written as U+2024, which Unicode's
    normal form maps to a dot, so that no token of a normalising tokenizer has it.

    Args:
        token: from a token id to its token.
    """
    named: dict[str, float] = {}
    for term, weight in sorted(terms.items()):
        if weight >= _SMALLEST:
            name = token(term).replace(_DOT, _OTHER_DOT)
            named[name] = max(named.get(name, 0.0), _rounded(weight))
    return named


def json_vectors(
    vectors: HeadVectors, heads: Sequence[str], form: SparseForm, token: Callable[[int], str]
) -> Iterator[Any]:
    """Yield each text's vectors as JSON: the value of the head where one is named, else an object of all.

    Args:
        heads: those that are written.
        form: of the lexical head's terms.
        token: from a token id to its token.
    """
    for row in range(len(vectors.dense)):
        values: dict[str, Any] = {}
        if "dense" in heads:
            values["dense"] = _numbers(vectors.dense[row])
        if "lexical" in heads and vectors.lexical is not None:
            terms = vectors.lexical[row]
            values["lexical"] = qdrant_terms(terms) if form == "qdrant" else opensearch_terms(terms, token)
        if "multi_vector" in heads and vectors.tokens is not None:
            values["multi_vector"] = [_numbers(vector) for vector in vectors.tokens[row]]
        yield next(iter(values.values())) if len(values) == 1 else values


def write_vectors(
    folder: Path,
    block: Block,
    heads: Sequence[str],
    ids: Sequence[str] | None,
    metadata: Mapping[str, Any],
) -> list[str]:
    """Write vectors into a new folder, complete or absent; return the names of the files.

    `dense.npy` (N × D, float32); `lexical.npz` (N × vocabulary, SciPy CSR); `multi_vector.npy` (all tokens
    × K, fp16) with `multi_vector_offsets.npy` (N + 1, where each text's begin); `ids.json` for passages.

    Args:
        heads: those that are written.
        metadata: of the manifest: model, side.

    Raises:
        InputError: the folder exists.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError("exists.", where=str(folder), fix="Choose another folder, or remove this one.")
    draft = folder.parent / f".{folder.name}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        if "dense" in heads:
            np.save(draft / "dense.npy", block.dense)
        if "lexical" in heads:
            sp.save_npz(draft / "lexical.npz", block.terms)
        if "multi_vector" in heads and block.tokens is not None:
            np.save(draft / "multi_vector.npy", block.tokens.vectors)
            np.save(draft / "multi_vector_offsets.npy", block.tokens.offsets)
        if ids is not None:
            (draft / "ids.json").write_text(json.dumps(list(ids), ensure_ascii=False), encoding="utf-8")
        counts = {"texts": len(block.dense)}
        made = write_manifest(
            draft, kind=VECTORS_KIND, step="", key="", counts=counts, metadata=dict(metadata)
        )
        put_in_place(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return [entry.path for entry in made.manifest.files]


def _numbers(vector: np.ndarray) -> list[float]:
    return [_rounded(value) for value in vector]


def _rounded(value: Any) -> float:
    return round(float(value), _DIGITS)
