"""The command `index`: passages with all that a search reads, kept for the next search."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedline.cli.corpus import read_corpus
from embedline.cli.shared import (
    WORK,
    AsJson,
    Corpus,
    Debug,
    Dim,
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
from embedline.errors import InputError

if TYPE_CHECKING:
    from embedline.cli.encoder import Encoder


class PrecisionName(StrEnum):
    """The precision of the dense vectors in memory."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


@command
def index(
    corpus: Corpus,
    model: Annotated[
        str,
        typer.Option(
            "--model", help="Model folder, ONNX folder, run folder, or models:/NAME@ALIAS of the registry."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FOLDER", help="Folder of the index; without it CORPUS.index."),
    ] = None,
    dim: Dim = None,
    precision: Annotated[
        PrecisionName,
        typer.Option(help="Dense vectors in memory: fp16 halves it, int8 quarters it (and re-scores)."),
    ] = PrecisionName.fp32,
    pooling: StatedPooling = None,
    causal: StatedCausal = None,
    trust: Trust = False,
    work: Work = WORK,
    uri: Uri = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Index a corpus for `search`: dense vectors, the model's other heads and BM25, in one folder.

    An index that is there is brought up to date: only passages that are new or have changed are embedded, and
    nothing is done when none has.
    """
    from embedline.cli.encoder import ModelOptions
    from embedline.retrieval.build import build_index

    folder = output or corpus.with_name(f"{corpus.name}.index")
    if folder.resolve().is_relative_to(corpus.resolve()):
        raise InputError(
            "lies in the corpus, and would be read as a part of it.",
            where=str(folder),
            fix="Choose another folder with --output.",
        )
    ids, texts = read_corpus(corpus)
    encoder = ModelOptions(work, uri, trust, stated(pooling, causal)).open(model)
    built = build_index(
        folder,
        ids,
        texts,
        lambda part: encoder.block(part, encoder.heads),
        encoder.source,
        dim=_dim(encoder, dim),
        precision=precision.value,
        progress=lambda done: note(f"{done:,} of {len(texts):,} passages"),
    )
    if as_json:
        show({"index": str(folder), "model": encoder.name, **built._asdict()})
    elif built.written:
        kept = built.passages - built.encoded
        typer.echo(f"{folder}: {built.passages:,} passages, {built.encoded:,} embedded, {kept:,} kept")
    else:
        typer.echo(f"{folder}: {built.passages:,} passages, up to date")


def _dim(encoder: Encoder, dim: int | None) -> int:
    """Return the width of the dense vectors to keep.

    Raises:
        InputError: it is not one of the model's Matryoshka dims.
    """
    if dim is None or dim == encoder.width:
        return encoder.width
    encoder.require_width(dim)
    if encoder.dims and dim not in encoder.dims:
        raise InputError(
            f"the model's dims are {', '.join(map(str, (*encoder.dims, encoder.width)))}.",
            where=f"--dim {dim}",
        )
    if not encoder.dims:
        note(f"{encoder.name} states no Matryoshka dims: its first {dim} values may not stand alone")
    return dim
