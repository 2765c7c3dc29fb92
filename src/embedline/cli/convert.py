"""The command `convert`: a model in the form of another library's loader."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embedline.cli.shared import (
    WORK,
    AsJson,
    Debug,
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
from embedline.config.training import RuntimeConfig
from embedline.errors import InputError
from embedline.models.clients import Client


@command
def convert(
    model: Model,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder to write.")],
    to: Annotated[
        Client,
        typer.Option(
            help="Loader: FlagEmbedding's BGEM3FlagModel (all heads, as .pt files), or SparseEncoder "
            "(lexical head) or MultiVectorEncoder of sentence-transformers."
        ),
    ],
    pooling: StatedPooling = None,
    causal: StatedCausal = None,
    trust: Trust = False,
    work: Work = WORK,
    uri: Uri = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Convert a model for loaders of other libraries that read several heads in a form of their own.

    The README in the new folder shows the call that gives the model's own scores. SentenceTransformer (dense
    head) and MLflow (all heads) load a model as it is.
    """
    from embedline.cli.find_model import find_model
    from embedline.export.convert import convert as write_converted
    from embedline.export.convert import require_new
    from embedline.models.folder import load_embedder, read_lineage
    from embedline.models.machine import prepare

    require_new(out)
    folder = find_model(model, work, uri)
    if (folder / "model.onnx").is_file():
        raise InputError("is an ONNX export.", where=model, fix="Give the model's folder, beside it.")
    prepare(RuntimeConfig(precision="fp32"))  # no progress bars of transformers
    embedder = load_embedder(folder, trust_remote_code=trust, stated=stated(pooling, causal)).eval()
    write_converted(embedder, to, out, lineage=read_lineage(folder))
    if as_json:
        show({"model": str(folder), "to": to.value, "folder": str(out)})
        return
    typer.echo(f"{out}: for {to.value}; see {out / 'README.md'}")
