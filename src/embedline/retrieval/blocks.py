"""The heads' vectors of a block of passages as flat arrays, in memory and in one file."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from embedline.artifacts.durable import put_in_place
from embedline.models.head_vectors import HeadVectors, Terms


class TokenArray(NamedTuple):
    """The token vectors of N texts, one after another.

    Args:
        vectors: tokens of all texts × K.
        offsets: N + 1, where each text's tokens begin.
    """

    vectors: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[np.ndarray], dtype: Any = np.float16) -> TokenArray:
        """Join the token vectors of texts (each T × K)."""
        lengths = [len(tokens) for tokens in texts]
        width = max((tokens.shape[1] for tokens in texts), default=0)
        filled = [tokens for tokens in texts if len(tokens)]
        joined = np.concatenate(filled) if filled else np.zeros((0, width))
        return cls(joined.astype(dtype), np.cumsum([0, *lengths], dtype=np.int64))

    def text(self, row: int) -> np.ndarray:
        """Return the token vectors of one text (T × K)."""
        return self.vectors[self.offsets[row] : self.offsets[row + 1]]

    def take(self, rows: Sequence[int] | np.ndarray) -> TokenArray:
        """Return the texts of `rows`, in that order."""
        if not len(rows):
            return TokenArray(self.vectors[:0], np.zeros(1, np.int64))
        return TokenArray.of([self.text(row) for row in rows], self.vectors.dtype)


class Block(NamedTuple):
    """The vectors of N texts; None for a head that the model lacks.

    Args:
        dense: N × D, float32, length 1.
        terms: N × vocabulary, weights of the lexical head (SciPy CSR, float32).
        tokens: of the multi-vector head, fp16.
    """

    dense: np.ndarray
    terms: Any = None
    tokens: TokenArray | None = None

    @classmethod
    def of(cls, heads: HeadVectors, vocabulary: int) -> Block:
        """Make a block of what a model's heads gave for texts.

        Args:
            vocabulary: number of tokens that the tokenizer has: columns of `terms`.
        """
        terms = None if heads.lexical is None else term_matrix(heads.lexical, vocabulary)
        tokens = None if heads.tokens is None else TokenArray.of(heads.tokens)
        return cls(heads.dense, terms, tokens)

    def take(self, rows: Sequence[int] | np.ndarray) -> Block:
        """Return the texts of `rows`, in that order."""
        terms = None if self.terms is None else self.terms[np.asarray(rows, dtype=np.int64)]
        tokens = None if self.tokens is None else self.tokens.take(rows)
        return Block(self.dense[rows].astype(np.float32), terms, tokens)

    def followed_by(self, other: Block) -> Block:
        """Return the texts of both blocks; both are of one model."""
        terms = None if self.terms is None else sp.vstack([self.terms, other.terms], format="csr")
        tokens = None
        if self.tokens is not None and other.tokens is not None:
            parts = [part.vectors for part in (self.tokens, other.tokens) if len(part.vectors)]
            vectors = np.concatenate(parts) if parts else self.tokens.vectors
            ends = other.tokens.offsets[1:] + self.tokens.offsets[-1]
            tokens = TokenArray(vectors, np.concatenate([self.tokens.offsets, ends]))
        return Block(np.concatenate([self.dense, other.dense]), terms, tokens)

    def save(self, path: Path) -> None:
        """Write the block as one file, complete or absent."""
        arrays: dict[str, Any] = {"dense": self.dense}
        if self.terms is not None:
            arrays |= {"terms": self.terms.data, "columns": self.terms.indices, "rows": self.terms.indptr}
            arrays["vocabulary"] = np.int64(self.terms.shape[1])
        if self.tokens is not None:
            arrays |= {"tokens": self.tokens.vectors, "offsets": self.tokens.offsets}
        draft = path.with_suffix(".draft")
        with draft.open("wb") as file:
            np.savez(file, **arrays)
        put_in_place(draft, path)

    @classmethod
    def load(cls, path: Path) -> Block | None:
        """Read what `save` wrote; None when the file is absent or damaged."""
        try:
            with np.load(path) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, zipfile.BadZipFile):
            return None
        terms = tokens = None
        if "terms" in arrays:
            shape = (len(arrays["dense"]), int(arrays["vocabulary"]))
            terms = sp.csr_matrix((arrays["terms"], arrays["columns"], arrays["rows"]), shape=shape)
        if "tokens" in arrays:
            tokens = TokenArray(arrays["tokens"], arrays["offsets"])
        return cls(arrays["dense"], terms, tokens)


def term_matrix(texts: Sequence[Terms], vocabulary: int) -> Any:
    """Return the terms of texts as a sparse matrix (texts × vocabulary, SciPy CSR, float32)."""
    starts = np.cumsum([0, *(len(terms) for terms in texts)])
    columns = np.fromiter((term for terms in texts for term in terms), np.int32, starts[-1])
    weights = np.fromiter((weight for terms in texts for weight in terms.values()), np.float32, starts[-1])
    matrix = sp.csr_matrix((weights, columns, starts), shape=(len(texts), vocabulary))
    matrix.sort_indices()
    return matrix
