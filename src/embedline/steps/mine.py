"""mine: hard negatives for stage three, mined with the model of stage two."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedline.config.training import MineConfig, RuntimeConfig
from embedline.markdown import table
from embedline.mining.negatives import COUNTS, MiningCounts
from embedline.models.machine import prepare
from embedline.steps.context import Context, StepResult
from embedline.steps.shared.training import encodes_in_bf16, load_model, stage_records
from embedline.vectors.embed import embed_corpus

if TYPE_CHECKING:
    import numpy as np

    from embedline.mining.mine import Encode, MinedSource
    from embedline.models.embedder import Embedder
    from embedline.models.prompts import Side
    from embedline.training.batching.records import SourceRecords

_log = logging.getLogger(__name__)


def run(context: Context) -> StepResult:
    """Write the output `triplets`: records with mined negatives; strategy, rank and scores of each."""
    config = context.step_config.section("mine", MineConfig)
    sources = stage_records(context, "supervised", "dataset")
    out = context.output("triplets")
    if not config.enabled:  # the records as they are: in-batch negatives, and the given ones
        _write(out, sources, None)
        return _result(sources, None)

    from embedline.mining.mine import mine_negatives
    from embedline.models.lengths import require_tokens
    from embedline.training.batching.records import filtered

    prepare(context.step_config.section("runtime", RuntimeConfig))
    embedder = load_model(context)
    bf16 = encodes_in_bf16(context, embedder)
    require_tokens(embedder, config.document_length, "mine.document_length")
    context.tracker.params(config.model_dump())
    # A scored pair is no positive and needs no negative: such records are written unchanged.
    unscored = {name: filtered(source, lambda row: row.score is None) for name, source in sources.items()}
    unscored = {name: source for name, source in unscored.items() if source.rows}
    prompts = embedder.spec.prompts
    mined = mine_negatives(
        unscored,
        _encoder(embedder, bf16, config.document_length, context.checkpoints / "vectors"),
        config,
        seed=context.step_config.config["seed"],
        document_prompt=lambda name, kind: prompts.prompt("document", name=name, task_type=kind),
    )
    _write(out, sources, mined)
    return _result(sources, mined)


def _encoder(embedder: Embedder, bf16: bool, document_length: int | None, folder: Path) -> Encode:
    """Return an encoder that keeps vectors in `folder`, so that a killed step does not compute them again."""

    def encode(texts: list[str], source: str, task_type: str, side: Side) -> np.ndarray:
        def vectors(shard: Sequence[str]) -> np.ndarray:
            return embedder.encode_side(
                shard, side, name=source, task_type=task_type, document_length=document_length, bf16=bf16
            )

        return embed_corpus(texts, vectors, folder, about=f"{source}\n{task_type}\n{side}")

    return encode


def _write(out: Path, sources: Mapping[str, SourceRecords], mined: Mapping[str, MinedSource] | None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    records: list[dict[str, Any]] = []
    chosen: list[dict[str, Any]] = []
    for name, source in sources.items():
        picked = iter(mined[name].negatives if mined is not None and name in mined else [])
        for row in source.rows:
            negatives = row.negatives
            if mined is not None and row.score is None:
                picks = next(picked)
                negatives = [mined[name].pool[pick.index] for pick in picks]
                chosen += [
                    {
                        "id": row.id,
                        "strategy": pick.strategy,
                        "rank": pick.rank,
                        "score": pick.score,
                        "positive_score": pick.positive_score,
                    }
                    for pick in picks
                ]
            # A teacher's scores belong to the given negatives, not to mined ones.
            scores = row.negative_scores if negatives is row.negatives else None
            records.append({**vars(row), "negatives": negatives, "negative_scores": scores, "source": name})
    texts = pa.list_(pa.string())
    fields = {"id": pa.string(), "query": pa.string(), "positives": texts, "negatives": texts}
    fields |= dict.fromkeys(("positive_scores", "negative_scores"), pa.list_(pa.float64()))
    fields |= {
        "source": pa.string(),
        "task_type": pa.string(),
        "language": pa.string(),
        "score": pa.float64(),
    }
    pq.write_table(pa.Table.from_pylist(records, pa.schema(fields)), out / "records.parquet")
    mining = {
        "id": pa.string(),
        "strategy": pa.string(),
        "rank": pa.int32(),
        "score": pa.float32(),
        "positive_score": pa.float32(),
    }
    pq.write_table(pa.Table.from_pylist(chosen, pa.schema(mining)), out / "mining.parquet")


def _result(sources: Mapping[str, SourceRecords], mined: Mapping[str, MinedSource] | None) -> StepResult:
    rows = sum(len(source.rows) for source in sources.values())
    if mined is None:
        return StepResult(
            counts={"triplets": {"records": rows}}, summary="Mining is off: given negatives only."
        )
    strategies: dict[str, MiningCounts] = {}
    for each in mined.values():
        for strategy, found in each.counts.items():
            strategies.setdefault(strategy, MiningCounts()).add(found)
    counts = _total(strategies)
    totals = {name: getattr(counts, name) for name in COUNTS}
    without = sum(not picks for m in mined.values() for picks in m.negatives)
    warning = _few_negatives(counts, without, sum(len(m.negatives) for m in mined.values()))
    if warning:
        _log.warning("mine: %s", warning)
    tables = [_sources_table(mined)]
    taken = {name: each.taken for name, each in strategies.items()} if len(strategies) > 1 else {}
    if taken:
        tables.append(_strategies_table(strategies))
    return StepResult(
        metrics={
            **{name: float(n) for name, n in totals.items()},
            **{f"taken.{name}": float(n) for name, n in taken.items()},
            "records_without_negative": float(without),
        },
        counts={
            "triplets": {
                "records": rows,
                "negatives": totals["taken"],
                **{f"negatives.{name}": n for name, n in taken.items()},
                "without_negative": without,
            }
        },
        summary="\n\n".join([*tables, *([warning] if warning else [])]),
    )


def _total(counts: Mapping[str, MiningCounts]) -> MiningCounts:
    total = MiningCounts()
    for each in counts.values():
        total.add(each)
    return total


def _sources_table(mined: Mapping[str, MinedSource]) -> str:
    rows = []
    for name, source in mined.items():
        counts, records = _total(source.counts), len(source.negatives)
        dropped = counts.above_margin / max(1, counts.candidates)
        rows.append((name, f"{records:,}", f"{counts.taken / max(1, records):.1f}", f"{dropped:.1%}"))
    return table(("source", "records", "negatives a record", "dropped by margin"), rows)


def _strategies_table(strategies: Mapping[str, MiningCounts]) -> str:
    rows = [
        (
            name,
            f"{counts.taken:,}",
            f"{counts.candidates:,}",
            f"{counts.known_positive:,}",
            f"{counts.above_margin:,}",
            f"{counts.repeated:,}",
        )
        for name, counts in strategies.items()
    ]
    return table(
        ("strategy", "negatives", "candidates", "known positives", "above margin", "taken from another"), rows
    )


def _few_negatives(counts: MiningCounts, without: int, records: int) -> str:
    """Return why most records got no negative, the data or the model; empty where most got one."""
    if 2 * without <= records:
        return ""
    what = f"{without:,} of {records:,} records got no negative"
    others = counts.candidates - counts.known_positive - counts.skipped_top
    if 2 * counts.above_margin <= others or not others:
        return (
            f"{what}: beside their own positives and mine.skip_top there are too few texts of their task "
            "type and language."
        )
    return (
        f"{what}: {counts.above_margin:,} of {others:,} candidates score above mine.margin × the positive, "
        "or the positive scores 0 or less. The model hardly tells texts apart: check the stage before mine, "
        "its base and tokenizer; else raise mine.depth."
    )
