"""Make an index, or bring it up to date: only passages that are new or have changed are encoded."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from filelock import FileLock

from embedline.artifacts.durable import flush, put_in_place
from embedline.artifacts.manifest import write_manifest
from embedline.errors import InputError, StepError
from embedline.retrieval.about import About, VectorSource, corpus_digest, text_digests
from embedline.retrieval.blocks import Block
from embedline.retrieval.bm25 import BM25
from embedline.retrieval.dense import Precision, create_vectors, write_codes
from embedline.retrieval.index import BM25_FOLDER, DIGESTS, KIND, LEXICAL, Index, OpenIndex, write_passages
from embedline.retrieval.late_interaction import create_tokens
from embedline.retrieval.postings import Postings
from embedline.vectors.unit import unit

CHUNK = 2048  # passages that are encoded before their vectors are kept

Encode = Callable[[Sequence[str]], Block]


class Built(NamedTuple):
    """What `build_index` did.

    Args:
        passages: of the index.
        encoded: passages whose vectors were computed; the others were kept.
        written: whether anything was written.
    """

    passages: int
    encoded: int
    written: bool


def build_index(
    folder: Path,
    ids: Sequence[str],
    texts: Sequence[str],
    encode: Encode,
    source: VectorSource,
    *,
    dim: int,
    precision: Precision = "fp32",
    progress: Callable[[int], None] = lambda done: None,
) -> Built:
    """Write the index of passages into `folder`, or bring the one that is there up to date.

    The folder is complete or absent at all times. A call that was killed left the vectors of whole chunks in
    a folder beside it; the next call takes them over.

    Args:
        encode: texts, at most `CHUNK`, to their vectors at full width.
        source: what those vectors depend on.
        dim: leading values of the dense vectors that are kept.
        progress: is given the number of passages that are done.

    Raises:
        InputError: the folder holds something else.
        StepError: the model gives a vector that is not finite.
    """
    digests = text_digests(texts)
    about = About(source, corpus_digest(ids, digests), len(ids), dim, precision)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        _restore(folder)
        old = _existing(folder)
        if old is not None and (unchanged := _unchanged(old, about)) is not None:
            return unchanged
        draft = folder.parent / f".{folder.name}.draft"
        chunks = _Chunks(draft / "chunks", about, encode, old)
        parts = list(chunks.make(texts, digests, progress))
        new = draft / "index"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        _write(new, parts, ids, texts, digests, about)
        _replace(new, folder)
        shutil.rmtree(draft)
    return Built(len(ids), chunks.encoded, True)


class _Chunks:
    """The vectors of a corpus in files of `CHUNK` passages, each made once.

    Args:
        old: the index that is replaced; the vectors of equal texts are taken from it.
    """

    def __init__(self, folder: Path, about: About, encode: Encode, old: OpenIndex | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._about, self._encode = folder, about, encode
        self._old = old if old is not None and _exact_enough(old.about, about) else None
        self._known = {} if self._old is None else {d: row for row, d in enumerate(self._old.digests())}
        self.encoded = 0

    def make(
        self, texts: Sequence[str], digests: list[bytes], progress: Callable[[int], None]
    ) -> Iterator[Path]:
        """Yield the files of all chunks in order."""
        for start in range(0, len(texts), CHUNK):
            part = slice(start, start + CHUNK)
            path = self._folder / f"{self._name(digests[part])}.npz"
            if Block.load(path) is None:
                self._chunk(texts[part], digests[part]).save(path)
            yield path
            progress(min(start + CHUNK, len(texts)))

    def _name(self, digests: list[bytes]) -> str:
        at = self._about
        fields = [at.source.index_version, at.source.prompt, at.source.length, at.source.heads, at.dim]
        fields.append(at.precision == "fp16")  # only then vectors rounded to it are taken over
        return hashlib.sha256(repr(fields).encode() + b"".join(digests)).hexdigest()[:32]

    def _chunk(self, texts: Sequence[str], digests: list[bytes]) -> Block:
        missing = [i for i, digest in enumerate(digests) if digest not in self._known]
        kept = [i for i, digest in enumerate(digests) if digest in self._known]
        parts = []
        if missing:
            parts.append(self._encoded([texts[i] for i in missing]))
        if kept and self._old is not None:
            rows = np.array([self._known[digests[i]] for i in kept])
            parts.append(self._cut(self._old.block(rows)))
        whole = parts[0] if len(parts) == 1 else parts[0].followed_by(parts[1])
        return whole.take(np.argsort([*missing, *kept]))

    def _encoded(self, texts: list[str]) -> Block:
        block = self._encode(texts)
        values = [block.dense, *([] if block.terms is None else [block.terms.data])]
        values += [] if block.tokens is None else [block.tokens.vectors]
        if not all(np.isfinite(array).all() for array in values):
            raise StepError("the model gives vectors that are not finite.", where=self._about.source.model)
        self.encoded += len(texts)
        return self._cut(block)

    def _cut(self, block: Block) -> Block:
        dim = self._about.dim
        return block if block.dense.shape[1] == dim else block._replace(dense=unit(block.dense, dim))


def _exact_enough(old: About, new: About) -> bool:
    """Return whether the vectors of an index can be taken over: wide enough, and not rounded further."""
    same = old.source.same_vectors(new.source) and old.dim >= new.dim
    return same and (old.precision != "fp16" or (new.precision == "fp16" and old.dim == new.dim))


def _existing(folder: Path) -> OpenIndex | None:
    """Open the index that is replaced; None when there is none, or a damaged one.

    Raises:
        InputError: the folder holds something else.
    """
    try:
        return Index.open(folder)
    except InputError as error:
        if folder.exists() and not _is_ours(folder):
            raise InputError(
                "exists and is no index.", where=str(folder), fix="Choose another folder with --output."
            ) from error
        return None


def _is_ours(folder: Path) -> bool:
    """Return whether a folder that cannot be opened was an index, or is empty."""
    return folder.is_dir() and ((folder / DIGESTS).is_file() or not any(folder.iterdir()))


def _unchanged(old: OpenIndex, about: About) -> Built | None:
    """Return that nothing is to be done, or None; where the model was moved, its new place is noted."""
    if not old.about.source.same_vectors(about.source) or replace(old.about, source=about.source) != about:
        return None
    if old.about != about:
        _describe(old.folder, about)
    return Built(about.passages, 0, False)


def _describe(folder: Path, about: About) -> None:
    counts = {"passages": about.passages}
    write_manifest(folder, kind=KIND, step="", key="", counts=counts, metadata=about.as_metadata())


def _write(
    folder: Path,
    parts: list[Path],
    ids: Sequence[str],
    texts: Sequence[str],
    digests: list[bytes],
    about: About,
) -> None:
    """Write all files of an index from the chunks' vectors, of which one is in memory at a time."""
    vectors = create_vectors(folder, (len(ids), about.dim), about.precision)
    terms, lengths, width, done = [], [np.zeros(0, np.int64)], 0, 0
    for block in map(_loaded, parts):
        vectors[done : done + len(block.dense)] = block.dense
        done += len(block.dense)
        if block.terms is not None:
            terms.append(block.terms)
        if block.tokens is not None:
            lengths.append(np.diff(block.tokens.offsets))
            width = max(width, block.tokens.vectors.shape[1])
    vectors.flush()
    if about.precision == "int8":
        write_codes(folder, vectors)
    if terms:
        Postings.of(sp.vstack(terms, format="csc")).save(folder / LEXICAL)
    if len(lengths) > 1:
        _write_tokens(folder, parts, np.concatenate(lengths), width)
    BM25(texts).save(folder / BM25_FOLDER)
    write_passages(folder, ids, texts)
    np.save(folder / DIGESTS, np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), -1))
    _describe(folder, about)


def _write_tokens(folder: Path, parts: list[Path], lengths_N: np.ndarray, width: int) -> None:
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths_N)])
    tokens = create_tokens(folder, int(offsets[-1]), width, offsets)
    done = 0
    for block in map(_loaded, parts):
        assert block.tokens is not None
        tokens[done : done + len(block.tokens.vectors)] = block.tokens.vectors
        done += len(block.tokens.vectors)
    if isinstance(tokens, np.memmap):
        tokens.flush()


def _loaded(path: Path) -> Block:
    block = Block.load(path)
    assert block is not None, path  # it was written or read a moment ago
    return block


def _retired(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.old"


def _replace(new: Path, folder: Path) -> None:
    """Put a finished index in the place of the old one, which `_restore` brings back after a power cut."""
    retired = _retired(folder)
    if folder.exists():
        shutil.rmtree(retired, ignore_errors=True)
        folder.replace(retired)
    put_in_place(new, folder)
    flush(folder.parent)
    shutil.rmtree(retired, ignore_errors=True)


def _restore(folder: Path) -> None:
    retired = _retired(folder)
    if retired.is_dir() and not folder.exists():
        retired.replace(folder)
