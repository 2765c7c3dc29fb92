"""The command `embed`: the vectors of texts."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedline.cli.corpus import read_corpus, standard_input
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
from embedline.errors import InputError

if TYPE_CHECKING:
    from embedline.cli.encoder import Encoder
    from embedline.models.head_vectors import HeadVectors


class Side(StrEnum):
    """The side of a text: it decides the prompt and the maximum length."""

    query = "query"
    document = "document"


class HeadName(StrEnum):
    """A head of the model, or all of them."""

    dense = "dense"
    lexical = "lexical"
    multi_vector = "multi_vector"
    all = "all"


class SparseFormName(StrEnum):
    """The form of the lexical head's terms in JSON."""

    qdrant = "qdrant"
    opensearch = "opensearch"


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
    head: Annotated[HeadName, typer.Option(help="Head whose vectors are written.")] = HeadName.dense,
    sparse: Annotated[
        SparseFormName,
        typer.Option(help="Form of the lexical head in JSON: Qdrant's indices and values, or token: weight."),
    ] = SparseFormName.qdrant,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FOLDER",
            help="New folder for arrays: dense.npy, lexical.npz (SciPy), multi_vector.npy with offsets.",
        ),
    ] = None,
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

    Without FILE each line of standard input is one text, also a blank one; no input gives no vectors. With
    --head all a line is an object of the heads' vectors.
    """
    from embedline.cli.encoder import ModelOptions
    from embedline.retrieval.formats import json_vectors

    ids, texts = read_corpus(corpus) if corpus else (None, standard_input())
    encoder = ModelOptions(work, uri, trust, stated(pooling, causal)).open(model)
    heads = _heads(encoder, head)
    vectors = _vectors(encoder, texts, side, heads, dim)
    if output is not None:
        _write(output, encoder, vectors, heads, ids, side, as_json)
        return
    rows = list(json_vectors(vectors, heads, sparse.value, encoder.token))
    if as_json:
        named = {} if ids is None else {"ids": ids}
        show({"model": str(encoder.folder), "side": side.value, **named, "vectors": rows})
        return
    for number, row in enumerate(rows):
        typer.echo(json.dumps(row if ids is None else {"id": ids[number], "vector": row}, ensure_ascii=False))


def _heads(encoder: Encoder, head: HeadName) -> tuple[str, ...]:
    """Return the heads that are asked for.

    Raises:
        InputError: the model lacks the head.
    """
    if head is HeadName.all:
        return encoder.heads
    if head.value not in encoder.heads:
        raise InputError(
            f"the model has no such head; it has {', '.join(encoder.heads)}.", where=f"--head {head.value}"
        )
    return (head.value,)


def _vectors(
    encoder: Encoder, texts: list[str], side: Side, heads: tuple[str, ...], dim: int | None
) -> HeadVectors:
    """Encode texts, their dense vectors cut at `dim`.

    Raises:
        InputError: the dense vectors are shorter, or are not written.
    """
    from embedline.vectors.unit import unit

    encoder.require_width(dim)
    if dim is not None and "dense" not in heads:
        raise InputError("cuts dense vectors, and none are written.", where=f"--dim {dim}")
    vectors = encoder.encode_heads(texts, side.value, heads)
    return vectors if dim is None else vectors._replace(dense=unit(vectors.dense, dim))


def _write(
    folder: Path,
    encoder: Encoder,
    vectors: HeadVectors,
    heads: tuple[str, ...],
    ids: list[str] | None,
    side: Side,
    as_json: bool,
) -> None:
    from embedline.retrieval.blocks import Block
    from embedline.retrieval.formats import write_vectors

    metadata = {"model": encoder.name, "index_version": encoder.index_version, "side": side.value}
    files = write_vectors(folder, Block.of(vectors, encoder.vocabulary), heads, ids, metadata)
    if as_json:
        show({"model": str(encoder.folder), "side": side.value, "folder": str(folder), "files": files})
    else:
        note(f"{len(vectors.dense)} texts: wrote {', '.join(files)} into {folder}")
