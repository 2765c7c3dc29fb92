"""The command `evaluate`: score any model on held-out sets."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedline.cli.shared import (
    NO_OVERRIDES,
    WORK,
    AsJson,
    Debug,
    Model,
    Overrides,
    StatedCausal,
    StatedPooling,
    Trust,
    Uri,
    Work,
    absolute_preset,
    command,
    show,
    stated,
    wide_console,
)
from embedline.cli.work_folder import work_or_scratch
from embedline.config.data import EvaluationSet
from embedline.config.load import load_config
from embedline.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from embedline.artifacts.scores import ScoreRow


class Kind(StrEnum):
    """The kinds of held-out sets, as in data.evaluation."""

    retrieval = "retrieval"
    sts = "sts"
    pairs = "pairs"
    bitext = "bitext"
    classification = "classification"
    multilabel = "multilabel"


class MissingDocuments(StrEnum):
    """What to do with relevant documents that a corpus lacks, as in data.evaluation."""

    refuse = "refuse"
    not_found = "not_found"


@command
def evaluate(
    model: Model,
    sets: Annotated[
        list[Path],
        typer.Argument(
            metavar="SET",
            help="Folders of held-out sets: corpus, queries and qrels.tsv for retrieval, else a file of "
            "pairs or of labelled texts.",
        ),
    ] = [],  # noqa: B006
    kind: Annotated[Kind, typer.Option(help="Kind of these sets.")] = Kind.retrieval,
    split: Annotated[str, typer.Option(help="File stem in the folder: test, dev, validation.")] = "test",
    ignore_identical_ids: Annotated[
        bool | None,
        typer.Option(
            "--ignore-identical-ids/--keep-identical-ids",
            help="Whether the document with a query's id is left out of the query's results; without it, "
            "it is where most such queries have the document's text, too.",
        ),
    ] = None,
    missing_documents: Annotated[
        MissingDocuments,
        typer.Option(help="Refuse a relevant document that the corpus lacks, or count it as not found."),
    ] = MissingDocuments.refuse,
    preset: Annotated[
        str,
        typer.Option(
            help="Add the held-out sets (data.hold_out's, too) and mteb tasks of this preset, and use its "
            "prompts if the model has none."
        ),
    ] = "",
    overrides: Overrides = NO_OVERRIDES,
    bm25: Annotated[bool, typer.Option("--bm25", help="Score BM25 on the same sets, too.")] = False,
    pooling: StatedPooling = None,
    causal: StatedCausal = None,
    trust: Trust = False,
    work: Work = WORK,
    uri: Uri = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Score a model on held-out sets, at each of its dims, with confidence intervals."""
    from embedline.cli.find_model import find_model
    from embedline.evaluation.compare import spread_table
    from embedline.evaluation.model_folder import score_folder

    if not sets and not preset:
        raise InputError(
            "nothing to score it on: no set is given.", fix="Name folders of held-out sets, or a --preset."
        )
    config = load_config(preset, overrides) if preset else None
    if overrides and config is None:
        raise InputError("overrides a preset, and no preset is given.", where="-o", fix="Give --preset.")
    if kind is not Kind.retrieval and (ignore_identical_ids is not None or missing_documents != "refuse"):
        raise InputError(f"rules for retrieval, and these sets are of kind {kind}.", where="--kind")
    folders = [
        EvaluationSet(
            path=str(path),
            kind=kind.value,
            split=split,
            language="",
            ignore_identical_ids=ignore_identical_ids,
            missing_documents=missing_documents.value,
        )
        for path in sets
    ]
    with work_or_scratch(work) as place:
        rows = score_folder(
            find_model(model, work, uri),
            folders,
            config,
            absolute_preset(preset),
            place,
            bm25=bm25,
            trust_remote_code=trust,
            stated=stated(pooling, causal),
        )
    if as_json:
        show({"model": model, "scores": [row.as_json() for row in rows]})
        return
    wide_console().print(_table(rows))
    for spread in spread_table(rows).values():
        typer.echo(
            f"vectors of {spread.texts} unrelated texts: mean cosine {spread.mean_cosine:.3f}, "
            f"effective rank {spread.effective_rank:.1f} of {spread.dims}"
        )


def _table(rows: list[ScoreRow]) -> Table:
    """Lay out the main score of each set, head, dim and runtime."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, pad_edge=False)
    for column in ("set", "metric", "model", "dim", "score", "95 %", "n"):
        numeric = column in {"dim", "score", "n"}
        table.add_column(column, no_wrap=True, justify="right" if numeric else "left")
    for row in rows:
        if not row.main:
            continue
        table.add_row(
            row.set,
            row.metric,
            "BM25" if row.model == "bm25" else row.runtime if row.is_dense else row.head,
            str(row.dim or ""),
            f"{row.value:.4f}",
            "" if row.low is None or row.high is None else f"{row.low:.3f}–{row.high:.3f}",
            f"{row.count:,}",
        )
    return table
