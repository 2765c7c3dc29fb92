"""evaluate: the scores of any model on held-out sets."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from embedline.cli.models import Model, Trust
from embedline.cli.shared import (
    WORK,
    AsJson,
    Debug,
    Overrides,
    Uri,
    Work,
    absolute_preset,
    command,
    show,
    wide_console,
)
from embedline.errors import InputError


class Kind(StrEnum):
    """What a set's folder holds."""

    retrieval = "retrieval"
    sts = "sts"
    pairs = "pairs"
    bitext = "bitext"
    classification = "classification"
    multilabel = "multilabel"


@command
def evaluate(
    model: Model,
    sets: Annotated[
        list[Path],
        typer.Argument(help="Folders of held-out sets: corpus, queries and qrels.tsv; pairs; labels."),
    ] = [],  # noqa: B006
    kind: Annotated[Kind, typer.Option(help="What these folders hold.")] = Kind.retrieval,
    split: Annotated[str, typer.Option(help="File stem of sentence pairs.")] = "test",
    preset: Annotated[
        str, typer.Option(help="Take the sets and mteb tasks of this preset, and prompts where it has none.")
    ] = "",
    overrides: Overrides = [],  # noqa: B006
    bm25: Annotated[bool, typer.Option("--bm25", help="Score BM25 beside it.")] = False,
    trust: Trust = False,
    work: Work = WORK,
    uri: Uri = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Score a model folder, an exported one, or models:/NAME@ALIAS on held-out sets, at each of its dims."""
    from embedline.cli.encoder import find_model
    from embedline.config.data import EvaluationSet
    from embedline.config.load import load_config
    from embedline.evaluation.model_folder import score_folder

    if not sets and not preset:
        raise InputError("nothing to score it on.", fix="Name folders of held-out sets, or a --preset.")
    config = load_config(preset, overrides) if preset else None
    if overrides and config is None:
        raise InputError("changes a preset, and none is given.", where="-o", fix="Give --preset.")
    named = [EvaluationSet(path=str(path), kind=kind.value, split=split, language="") for path in sets]
    rows = score_folder(
        find_model(model, work, uri),
        named,
        config,
        absolute_preset(preset),
        work,
        bm25=bm25,
        trust_remote_code=trust,
    )
    if as_json:
        show({"model": model, "scores": rows})
        return
    wide_console().print(_table(rows))


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, pad_edge=False)
    for column in ("set", "metric", "model", "dim", "score", "95 %", "n"):
        numeric = column in {"dim", "score", "n"}
        table.add_column(column, no_wrap=True, justify="right" if numeric else "left")
    for row in rows:
        if not row["main"]:
            continue
        low, high, head = row.get("low"), row.get("high"), row.get("head") or "dense"
        table.add_row(
            row["set"],
            row["metric"],
            "BM25" if row["model"] == "bm25" else row["runtime"] if head == "dense" else head,
            str(row["dim"] or ""),
            f"{row['value']:.4f}",
            "" if low is None or high is None else f"{low:.3f}–{high:.3f}",
            f"{row['count']:,}",
        )
    return table
