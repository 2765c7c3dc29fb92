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
    show,
    stated,
)
from embedline.errors import InputError


class Side(StrEnum):
    """The side of a text: it decides the prompt and the maximum length."""

    query = "query"
    document = "document"


@command
def embed(
    model: Model,
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
    """Embed texts: reads standard input, one text a line, and prints one vector a line as JSON."""
    from embedline.cli.encoder import open_encoder

    try:
        texts = sys.stdin.buffer.read().decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8.", where=f"standard input, byte {error.start}") from error
    encoder = open_encoder(model, work, uri, trust, stated(pooling, causal))
    vectors = encoder.encode(texts, side.value, dim)
    rows = [[round(float(value), 7) for value in row] for row in vectors]
    if as_json:
        show({"model": str(encoder.folder), "side": side.value, "vectors": rows})
        return
    for row in rows:
        typer.echo(json.dumps(row))


@command
def search(
    model: Model,
    corpus: Annotated[
        Path,
        typer.Argument(
            metavar="CORPUS", help="File of passages: .jsonl, .jsonl.gz, .parquet, .csv or .txt (one a line)."
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
    from embedline.cli.encoder import open_encoder, read_passages

    passages = read_passages(corpus)
    encoder = open_encoder(model, work, uri, trust, stated(pooling, causal))
    documents = encoder.encode([passage.text for passage in passages], "document", dim)
    scores = documents @ encoder.encode([query], "query", dim)[0]
    best = scores.argsort(kind="stable")[::-1][:top]
    if as_json:
        rows = [
            {"rank": n, "score": float(scores[i]), "id": passages[i].id, "text": passages[i].text}
            for n, i in enumerate(best, 1)
        ]
        show({"query": query, "model": str(encoder.folder), "results": rows})
        return
    for rank, i in enumerate(best, 1):
        typer.echo(f"{rank:>2}  {scores[i]:.3f}  {passages[i].id}  {_shorten(passages[i].text)}")


def _shorten(text: str, width: int = 160) -> str:
    """Cut a text to one line."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"
