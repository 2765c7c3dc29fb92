"""The commands `embed` and `search`: use a trained model."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from embedline.cli.shared import (
    WORK,
    AsJson,
    Debug,
    Dim,
    Model,
    StatedCausal,
    StatedPooling,
    Trust,
    Uri,
    Work,
    command,
    note,
    show,
    stated,
)
from embedline.encoding import decode_text
from embedline.errors import InputError


class Side(StrEnum):
    """The side of a text: it decides the prompt and the maximum length."""

    query = "query"
    document = "document"


@command
def embed(
    model: Model,
    corpus: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]", help="Passages, as for `search`; without it standard input, one text a line."
        ),
    ] = None,
    side: Annotated[Side, typer.Option(help="Side of the texts: decides prompt and length.")] = Side.document,
    dim: Dim = None,
    pooling: StatedPooling = None,
    causal: StatedCausal = None,
    trust: Trust = False,
    work: Work = WORK,
    uri: Uri = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Embed texts: prints one vector a line as JSON; with FILE, each with the passage's id.

    Without FILE each line of standard input is one text, also a blank one; no input gives no vectors.
    """
    from embedline.cli.encoder import open_encoder

    ids, texts = _read_corpus(corpus) if corpus else (None, _standard_input())
    encoder = open_encoder(model, work, uri, trust, stated(pooling, causal))
    vectors = encoder.encode(texts, side.value, dim) if texts else ()
    rows = [[round(float(value), 7) for value in row] for row in vectors]
    if as_json:
        named = {} if ids is None else {"ids": ids}
        show({"model": str(encoder.folder), "side": side.value, **named, "vectors": rows})
        return
    for number, row in enumerate(rows):
        typer.echo(json.dumps(row if ids is None else {"id": ids[number], "vector": row}, ensure_ascii=False))


@command
def search(
    model: Model,
    corpus: Annotated[
        Path,
        typer.Argument(
            metavar="CORPUS",
            help="Passages (id, title, text): a folder, or a file .jsonl, .jsonl.gz, .json, .parquet, .csv, "
            ".tsv or .txt (one a line).",
        ),
    ],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Text to search for.")],
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
    """Search a file of passages: prints those most similar to a query, with their scores."""
    from embedline.cli.encoder import open_encoder

    if not query.strip():
        raise InputError("is empty.", where="QUERY", fix="Give the words to search for.")
    ids, texts = _read_corpus(corpus)
    encoder = open_encoder(model, work, uri, trust, stated(pooling, causal))
    documents = encoder.encode(texts, "document", dim)
    scores = documents @ encoder.encode([query], "query", dim)[0]
    best = (-scores).argsort(kind="stable")[:top]
    if as_json:
        rows = [
            {"rank": n, "score": float(scores[i]), "id": ids[i], "text": texts[i]}
            for n, i in enumerate(best, 1)
        ]
        show({"query": query, "model": str(encoder.folder), "results": rows})
        return
    for rank, i in enumerate(best, 1):
        typer.echo(f"{rank:>2}  {scores[i]:.3f}  {ids[i]}  {_shorten(texts[i])}")


def _read_corpus(path: Path) -> tuple[list[str], list[str]]:
    """Read the ids and the texts (with titles) of passages; notes on the files go to standard error."""
    from embedline.data.passages import read_passages
    from embedline.data.tally import Tally

    tally = Tally()
    passages = read_passages(path, tally)
    for line in tally.notes():
        note(f"{path}: {line}")
    return [passage.id for passage in passages], [passage.titled for passage in passages]


def _standard_input() -> list[str]:
    """Read the lines of standard input."""
    from embedline.data.passages import text_rows

    return text_rows(decode_text(sys.stdin.buffer.read(), "standard input"))


def _shorten(text: str, width: int = 160) -> str:
    """Cut a text to one line."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"
