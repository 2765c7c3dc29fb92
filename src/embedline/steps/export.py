"""export: ONNX fp32 and int8 with a measured parity. A parity that fails is the gate's business."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from embedline.artifacts.record import write_json
from embedline.config.export import ExportConfig
from embedline.config.model import ModelConfig
from embedline.config.training import RuntimeConfig
from embedline.models.machine import prepare
from embedline.steps.context import Context, StepResult

if TYPE_CHECKING:
    from embedline.export.parity import Parity


def run(context: Context) -> StepResult:
    """Input `model` and `evaluation` (its texts are compared on); output `onnx`."""
    from embedline.export.onnx import export_onnx
    from embedline.export.parity import HeadLimits, measure_parity
    from embedline.export.quantize import quantize_int8
    from embedline.export.runtime import Variant
    from embedline.models.folder import CARD, load_embedder

    config = context.step_config.section("export", ExportConfig)
    prepare(context.step_config.section("runtime", RuntimeConfig))
    model, folder = context.artifact("model").path, context.output("onnx")
    trusted = context.step_config.section("model", ModelConfig).trust_remote_code
    # sdpa is what ONNX has operators for
    embedder = load_embedder(model, attention="sdpa", trust_remote_code=trusted).eval()
    card = json.loads((model / CARD).read_text(encoding="utf-8"))
    export_onnx(embedder, folder, config.opset, index_version=card.get("index_version", ""))
    thresholds: dict[Variant, float] = {"fp32": config.min_cosine_fp32}
    limits: dict[Variant, HeadLimits] = {
        "fp32": HeadLimits(config.min_token_cosine_fp32, config.max_lexical_difference_fp32),
        "int8": HeadLimits(config.min_token_cosine_int8, config.max_lexical_difference_int8),
    }
    if config.int8:
        quantize_int8(folder)
        thresholds["int8"] = config.min_cosine_int8
    texts = parity_texts(context.artifact("evaluation").path, config.parity_texts)
    parity = measure_parity(embedder, folder, texts, min_cosine=thresholds, limits=limits)
    write_json(folder / "parity.json", parity.as_json())
    metrics: dict[str, float] = {"parity_passed": float(parity.passed)}
    rows = [
        f"Parity with torch fp32 on {parity.texts} texts: {'passed' if parity.passed else '**failed**'}.",
        "",
        "| model | worst cosine | needed | mean | top-1 | top-10 | MB | ms a text | tokens/s "
        "| torch: ms a text | tokens/s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, v in parity.variants.items():
        metrics |= {
            f"{name}_worst_cosine": v.worst_cosine,
            f"{name}_top10": v.top10,
            f"{name}_megabytes": v.megabytes,
            f"{name}_text_ms": v.text_ms,
            f"{name}_tokens_per_s": v.tokens_per_s,
        }
        rows.append(
            f"| onnx-{name} | {v.worst_cosine:.5f} | {v.threshold} | {v.mean_cosine:.5f} | {v.top1:.3f} "
            f"| {v.top10:.3f} | {v.megabytes:.1f} | {v.text_ms:.1f} | {v.tokens_per_s:.0f} "
            f"| {v.torch_text_ms:.1f} | {v.torch_tokens_per_s:.0f} |"
        )
    rows += _other_heads(parity, metrics)
    return StepResult(
        metrics=metrics,
        summary="\n".join(rows),
        counts={"onnx": {"parity_texts": parity.texts}},
        metadata={"onnx": {"parity_passed": parity.passed, "variants": list(parity.variants)}},
    )


def _other_heads(parity: Parity, metrics: dict[str, float]) -> list[str]:
    """The table's part about the heads beside dense; their numbers go into `metrics`."""
    rows = ["", "| model | head | measure | value | needed |", "|---|---|---|---|---|"]
    start = len(rows)
    for name, variant in parity.variants.items():
        for head, found in variant.heads.items():
            if head != "dense":
                metrics[f"{name}_{head}_{found.measure}"] = found.value
                rows.append(
                    f"| onnx-{name} | {head} | {found.measure.replace('_', ' ')} | {found.value:.5f} "
                    f"| {found.threshold} |"
                )
    return rows if len(rows) > start else []


def parity_texts(evaluation: Path, count: int) -> list[str]:
    """About `count` texts, as many of every evaluation set, evenly spaced in it: no chance involved."""
    sets = json.loads((evaluation / "sets.json").read_text(encoding="utf-8"))
    share = -(-count // max(1, len(sets)))
    chosen = [text for entry in sets for text in _evenly(_texts(evaluation / entry["name"]), share)]
    return _evenly(chosen, count)


def _texts(folder: Path) -> list[str]:
    import pyarrow.parquet as pq

    columns = [("queries", "text"), ("corpus", "text"), ("pairs", "sentence1"), ("pairs", "sentence2")]
    found: list[str] = []
    for stem, column in columns:
        if (folder / f"{stem}.parquet").is_file():
            found += pq.read_table(folder / f"{stem}.parquet", columns=[column])[column].to_pylist()
    return found


def _evenly(texts: list[str], count: int) -> list[str]:
    if len(texts) <= count:
        return texts
    return [texts[i * len(texts) // count] for i in range(count)]
