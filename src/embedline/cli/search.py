"""The command `search`: the passages of an index, or of a file, that answer a query."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from embedline.cli.corpus import read_corpus
from embedline.cli.shared import (
    WORK,
    AsJson,
    Debug,
    Dim,
    StatedCausal,
    StatedPooling,
    Trust,
    Uri,
    Work,
    command,
    require_usable_path,
    show,
    stated,
)
from embedline.encoding import decode_text
from embedline.errors import InputError

if TYPE_CHECKING:
    from embedline.cli.encoder import Encoder, ModelOptions
    from embedline.retrieval.index import Index, OpenIndex
    from embedline.retrieval.search import Ranking

_STDIN = "-"
_FORMS = "Give INDEX QUERY, CORPUS QUERY --model MODEL, or MODEL CORPUS QUERY."


class ModeName(StrEnum):
    """How passages are ranked."""

    dense = "dense"
    lexical = "lexical"
    hybrid = "hybrid"
    bm25 = "bm25"


@command
def search(
    operands: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] INDEX|CORPUS QUERY",
            help="Folder that `index` wrote; or passages (id, title, text): a folder, or a file .jsonl, "
            ".jsonl.gz, .json, .parquet, .csv, .tsv or .txt (one a line). Then the text to search for.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", help="Model, as MODEL; without it that of the index."),
    ] = None,
    mode: Annotated[
        ModeName | None,
        typer.Option(help="How to rank; without it hybrid for an index, dense for a file of passages."),
    ] = None,
    queries: Annotated[
        str | None,
        typer.Option(
            "--queries",
            metavar="FILE|-",
            help="In place of QUERY: answer those of a file, or each line of standard input as it comes.",
        ),
    ] = None,
    top: Annotated[int, typer.Option("-k", "--top", min=1, help="Number of passages to print.")] = 5,
    dim: Dim = None,
    pooling: StatedPooling = None,
    causal: StatedCausal = None,
    trust: Trust = False,
    work: Work = WORK,
    uri: Uri = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Search an index or a file of passages: prints those that fit a query best, with their scores.

    An index is searched with the model that made it. Where the model has a multi-vector head, it orders the
    best 100. With --queries the model is loaded once, and --json prints one line a query.
    """
    from embedline.cli.encoder import ModelOptions
    from embedline.retrieval.index import is_index

    asked = _asked(list(operands), model, queries)
    options = ModelOptions(work, uri, trust, stated(pooling, causal))
    if is_index(asked.place):
        if dim is not None:
            raise InputError("an index has one width: that of its --dim.", where=f"--dim {dim}")
        searcher = _of_index(asked, mode or ModeName.hybrid, options)
    else:
        searcher = _of_corpus(asked, mode or ModeName.dense, options, dim)
    if asked.query is not None:
        _print(searcher, asked.query, top, as_json)
        return
    for query in _queries(str(queries)):
        _print_line(searcher, query, top, as_json)


class _Asked(NamedTuple):
    """What the operands name; a query of None: there are several."""

    model: str | None
    place: Path
    query: str | None


def _asked(operands: list[str], model: str | None, queries: str | None) -> _Asked:
    """Sort the operands.

    Raises:
        InputError: too few or too many, a model given twice, an empty query, an unusable path.
    """
    query = operands.pop() if queries is None else None
    if not 1 <= len(operands) <= 2:
        raise InputError("the operands are incomplete, or too many.", fix=_FORMS)
    if len(operands) == 2:
        if model is not None:
            raise InputError("a model is given twice.", where="--model", fix=_FORMS)
        model = operands[0]
    place = Path(operands[-1])
    for path in (place, *([] if model is None else [Path(model)])):
        require_usable_path(path)
    if query is not None and not query.strip():
        raise InputError("is empty.", where="QUERY", fix="Give the words to search for.")
    return _Asked(model, place, query)


class _Searcher:
    """An index, and the model for the vectors of queries; BM25 needs none."""

    def __init__(self, index: Index, mode: ModeName, encoder: Encoder | None) -> None:
        from embedline.retrieval.fusion import read_fusion

        self.index, self.mode, self.encoder = index, mode, encoder
        self._fusion = None if encoder is None else read_fusion(encoder.folder)

    def __call__(self, text: str, k: int) -> Ranking:
        from embedline.retrieval.search import Query, search_index

        query = Query(text)
        if self.encoder is not None:
            heads = self.index.heads
            query = Query.of(text, self.encoder.encode_heads([text], "query", heads))
        return search_index(self.index, query, k, self.mode.value, self._fusion)

    def answer(self, text: str, k: int) -> dict[str, Any]:
        """Return the passages found for a query as JSON."""
        scores, rows = self(text, k)
        results = [
            {"rank": rank, "score": float(score), "id": self.index.id(row), "text": self.index.text(row)}
            for rank, (score, row) in enumerate(zip(scores, rows.tolist(), strict=True), 1)
        ]
        model = {} if self.encoder is None else {"model": str(self.encoder.folder)}
        return {"query": text, **model, "mode": self.mode.value, "results": results}


def _of_index(asked: _Asked, mode: ModeName, options: ModelOptions) -> _Searcher:
    """Open an index, and the model whose vectors it holds.

    Raises:
        InputError: the index is damaged, its model is gone, or the one that is given makes other vectors.
    """
    from embedline.retrieval.about import require_same_vectors
    from embedline.retrieval.index import Index

    index = Index.open(asked.place)
    if mode is ModeName.bm25:
        return _Searcher(index, mode, None)
    encoder = options.open(asked.model or _model_of(index))
    require_same_vectors(index.about.source, encoder.source, str(asked.place))
    return _Searcher(index, mode, encoder)


def _model_of(index: OpenIndex) -> str:
    name = index.about.source.model
    if not name.startswith("models:") and not Path(name).exists():
        raise InputError(
            f"its model is no longer at {name}.", where=str(index.folder), fix="Name it with --model."
        )
    return name


def _of_corpus(asked: _Asked, mode: ModeName, options: ModelOptions, dim: int | None) -> _Searcher:
    """Read a corpus, and embed it with the heads that the mode needs.

    Raises:
        InputError: it cannot be read, or no model is given.
    """
    from embedline.retrieval.index import Index
    from embedline.vectors.unit import unit

    ids, texts = read_corpus(asked.place)
    if mode is ModeName.bm25:
        return _Searcher(Index.in_memory(ids, texts), mode, None)
    if asked.model is None:
        raise InputError("a corpus needs a model.", where=str(asked.place), fix=_FORMS)
    encoder = options.open(asked.model)
    encoder.require_width(dim)
    heads = {ModeName.dense: ("dense",), ModeName.lexical: ("dense", "lexical")}.get(mode, encoder.heads)
    block = encoder.block(texts, heads)
    if dim is not None:
        block = block._replace(dense=unit(block.dense, dim))
    return _Searcher(Index.in_memory(ids, texts, block), mode, encoder)


def _queries(source: str) -> Iterator[str]:
    """Yield the queries of a file, or the lines of standard input as they come; blank ones are left out."""
    if source != _STDIN:
        yield from read_corpus(Path(source))[1]
        return
    for line in sys.stdin.buffer:
        if text := decode_text(line, "standard input").strip():
            yield text


def _print(searcher: _Searcher, query: str, top: int, as_json: bool) -> None:
    if as_json:
        show(searcher.answer(query, top))
    else:
        _print_results(searcher, query, top)


def _print_line(searcher: _Searcher, query: str, top: int, as_json: bool) -> None:
    """Print one of several answers, at once."""
    if as_json:
        typer.echo(json.dumps(searcher.answer(query, top), ensure_ascii=False))
    else:
        typer.echo(_shorten(query))
        _print_results(searcher, query, top)
    sys.stdout.flush()


def _print_results(searcher: _Searcher, query: str, top: int) -> None:
    for row in searcher.answer(query, top)["results"]:
        typer.echo(f"{row['rank']:>2}  {row['score']:.3f}  {row['id']}  {_shorten(row['text'])}")


def _shorten(text: str, width: int = 160) -> str:
    """Cut a text to one line."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"
