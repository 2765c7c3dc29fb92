"""An index of passages: dense vectors, postings of the lexical head, token vectors, and BM25."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import feather

from embedline.artifacts.manifest import read_artifact, read_manifest
from embedline.errors import InputError
from embedline.retrieval.about import About
from embedline.retrieval.blocks import Block, TokenArray
from embedline.retrieval.bm25 import BM25
from embedline.retrieval.dense import DenseVectors
from embedline.retrieval.late_interaction import open_tokens
from embedline.retrieval.postings import Postings
from embedline.retrieval.query_features import QueryFeatures

KIND = "index"
PASSAGES, DIGESTS, LEXICAL, BM25_FOLDER = "passages.feather", "text_digests.npy", "lexical", "bm25"


class Index:
    """The passages of a corpus with all that a search reads.

    Args:
        ids, texts: of the passages; a text has its title before it.
        dense: vectors; None where only BM25 is searched.
        lexical: postings of the lexical head; None when the model has none.
        tokens: token vectors; None when the model has no multi-vector head.
    """

    def __init__(
        self,
        ids: Sequence[str] | pa.ChunkedArray,
        texts: Sequence[str] | pa.ChunkedArray,
        dense: DenseVectors | None = None,
        lexical: Postings | None = None,
        tokens: TokenArray | None = None,
    ) -> None:
        self._ids, self._texts = ids, texts
        self.dense, self.lexical, self.tokens = dense, lexical, tokens

    @classmethod
    def in_memory(cls, ids: Sequence[str], texts: Sequence[str], block: Block | None = None) -> Index:
        """Make an index of passages and their vectors that is not kept."""
        if block is None:
            return cls(ids, texts)
        lexical = None if block.terms is None else Postings.of(block.terms)
        return cls(ids, texts, DenseVectors(block.dense), lexical, block.tokens)

    @classmethod
    def open(cls, folder: Path) -> OpenIndex:
        """Open the index that `build_index` wrote; its arrays are memory-mapped.

        Raises:
            InputError: there is none, a file is missing or damaged, or another release's format.
        """
        manifest = read_artifact(folder, KIND).manifest
        return OpenIndex(folder, About.of_metadata(manifest.metadata, str(folder)))

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads whose vectors the index holds."""
        held = {"dense": self.dense, "lexical": self.lexical, "multi_vector": self.tokens}
        return tuple(name for name, vectors in held.items() if vectors is not None)

    def __len__(self) -> int:
        return len(self._ids)

    def id(self, row: int) -> str:
        """Return the id of a passage."""
        return _text(self._ids[row])

    def text(self, row: int) -> str:
        """Return the text of a passage, its title before it."""
        return _text(self._texts[row])

    @cached_property
    def bm25(self) -> BM25:
        """BM25 over the passages."""
        return BM25([_text(text) for text in self._texts])

    @cached_property
    def query_features(self) -> QueryFeatures:
        """Features of queries, for the weights of a fusion."""
        return QueryFeatures(self.bm25)


class OpenIndex(Index):
    """An index on the disk."""

    def __init__(self, folder: Path, about: About) -> None:
        table = feather.read_table(folder / PASSAGES, memory_map=True)
        lexical = Postings.load(folder / LEXICAL) if (folder / LEXICAL).is_dir() else None
        super().__init__(table["id"], table["text"], DenseVectors.open(folder), lexical, open_tokens(folder))
        self.folder, self.about = folder, about

    @cached_property
    def bm25(self) -> BM25:
        """BM25 over the passages."""
        return BM25.load(self.folder / BM25_FOLDER)

    def digests(self) -> list[bytes]:
        """Return the digests of the texts, as `text_digests` returns them."""
        return [row.tobytes() for row in np.load(self.folder / DIGESTS)]

    def block(self, rows: np.ndarray) -> Block:
        """Return the vectors of some passages."""
        assert self.dense is not None
        whole = Block(self.dense.vectors, self._terms, self.tokens)
        return whole.take(rows)

    @cached_property
    def _terms(self) -> Any:
        return None if self.lexical is None else self.lexical.matrix()


def is_index(path: Path) -> bool:
    """Return whether a path is an index, also a damaged one, rather than a corpus."""
    if (path / PASSAGES).is_file():
        return True
    try:
        return read_manifest(path).kind == KIND
    except (InputError, OSError):
        return False


def write_passages(folder: Path, ids: Sequence[str], texts: Sequence[str]) -> None:
    """Write ids and texts, to be read without loading them all.

    Raises:
        InputError: a text is no Unicode.
    """
    try:
        table = pa.table({"id": pa.array(ids, pa.large_string()), "text": pa.array(texts, pa.large_string())})
    except UnicodeEncodeError as error:
        raise InputError(f"a passage is no valid Unicode ({error.reason}).", where="CORPUS") from error
    feather.write_feather(table, folder / PASSAGES, compression="uncompressed")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value.as_py())
