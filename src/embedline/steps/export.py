"""export: ONNX fp32 and int8 with their measured parity; the gate, not this step, refuses a failed parity."""

from __future__ import annotations

import json
from pathlib import Path

from embedline.artifacts.durable import write_json
from embedline.config.export import ExportConfig
from embedline.config.model import ModelConfig
from embedline.config.training import RuntimeConfig
from embedline.export.parity_result import HeadLimits, HeadParity, Parity
from embedline.markdown import table
from embedline.models.machine import prepare
from embedline.steps.context import Context, StepResult

_VARIANT_COLUMNS = (
    *("model", "worst cosine", "needed", "mean", "top-1", "top-10", "alone to batch", "MB"),
    *("ms a text", "tokens/s", "torch: ms a text", "torch: tokens/s"),
)
_HEAD_COLUMNS = ("model", "head", "measure", "value", "needed")


def run(context: Context) -> StepResult:
    """Export input `model` to output `onnx`; parity is measured on texts of input `evaluation`."""
    from embedline.export.onnx import export_onnx
    from embedline.export.parity import measure_parity
    from embedline.export.quantize import quantize_int8
    from embedline.export.readme import write_readme
    from embedline.export.runtime import Variant
    from embedline.models.folder import CARD, load_embedder
    from embedline.retrieval.fusion import copy_fusion

    config = context.step_config.section("export", ExportConfig)
    prepare(context.step_config.section("runtime", RuntimeConfig))
    model, folder = context.artifact("model").path, context.output("onnx")
    trusted = context.step_config.section("model", ModelConfig).trust_remote_code
    # ONNX has operators for sdpa alone
    embedder = load_embedder(model, attention="sdpa", trust_remote_code=trusted).eval()
    card = json.loads((model / CARD).read_text(encoding="utf-8"))
    export_onnx(embedder, folder, config.opset, index_version=card.get("index_version", ""))
    copy_fusion(model, folder)
    thresholds: dict[Variant, float] = {"fp32": config.min_cosine_fp32}
    limits: dict[Variant, HeadLimits] = {
        "fp32": HeadLimits(config.min_token_cosine_fp32, config.max_lexical_difference_fp32),
        "int8": HeadLimits(config.min_token_cosine_int8, config.max_lexical_difference_int8),
    }
    if config.int8:
        quantize_int8(folder, config.int8_scales)
        thresholds["int8"] = config.min_cosine_int8
    texts = parity_texts(context.artifact("evaluation").path, config.parity_texts)
    parity = measure_parity(embedder, folder, texts, min_cosine=thresholds, limits=limits)
    write_json(folder / "parity.json", parity.as_dict())
    write_readme(folder, parity, config.int8_scales)
    return StepResult(
        metrics={"parity_passed": float(parity.passed)} | _metrics(parity),
        summary=_summary(parity),
        counts={"onnx": {"parity_texts": parity.texts}},
        metadata={"onnx": {"parity_passed": parity.passed, "variants": list(parity.variants)}},
    )


def _metrics(parity: Parity) -> dict[str, float]:
    """Collect the numbers of each variant: those of the dense head first, then those of the other heads."""
    metrics: dict[str, float] = {}
    for name, variant in parity.variants.items():
        metrics |= {
            f"{name}_worst_cosine": variant.worst_cosine,
            f"{name}_top10": variant.top10,
            f"{name}_batch_cosine": variant.batch_cosine,
            f"{name}_megabytes": variant.megabytes,
            f"{name}_text_ms": variant.text_ms,
            f"{name}_tokens_per_s": variant.tokens_per_s,
        }
    metrics |= {
        f"{name}_{head}_{result.measure}": result.value for name, head, result in _other_heads(parity)
    }
    return metrics


def _summary(parity: Parity) -> str:
    """Write the tables of the step's page: one row per variant, then one per variant and other head."""
    variants = [
        [
            f"onnx-{name}",
            f"{v.worst_cosine:.5f}",
            v.threshold,
            f"{v.mean_cosine:.5f}",
            f"{v.top1:.3f}",
            f"{v.top10:.3f}",
            f"{v.batch_cosine:.5f}",
            f"{v.megabytes:.1f}",
            f"{v.text_ms:.1f}",
            f"{v.tokens_per_s:.0f}",
            f"{v.torch_text_ms:.1f}",
            f"{v.torch_tokens_per_s:.0f}",
        ]
        for name, v in parity.variants.items()
    ]
    heads = [
        [f"onnx-{name}", head, result.measure.replace("_", " "), f"{result.value:.5f}", result.threshold]
        for name, head, result in _other_heads(parity)
    ]
    verdict = "passed" if parity.passed else "**failed**"
    parts = [
        f"Parity with torch fp32 on {parity.texts} texts: {verdict}.",
        table(_VARIANT_COLUMNS, variants),
        *([table(_HEAD_COLUMNS, heads)] if heads else []),
    ]
    return "\n\n".join(parts)


def _other_heads(parity: Parity) -> list[tuple[str, str, HeadParity]]:
    """List variant, head and result of every head but the dense one."""
    return [
        (name, head, result)
        for name, variant in parity.variants.items()
        for head, result in variant.heads.items()
        if head != "dense"
    ]


def parity_texts(evaluation: Path, count: int) -> list[str]:
    """Choose about `count` texts, equally many from each evaluation set, evenly spaced, not at random."""
    from embedline.data.evaluation_reader import read_sets, read_texts

    sets = read_sets(evaluation)
    share = -(-count // max(1, len(sets)))
    chosen = [text for info in sets for text in _evenly(read_texts(evaluation / info.name), share)]
    return _evenly(chosen, count)


def _evenly(texts: list[str], count: int) -> list[str]:
    if len(texts) <= count:
        return texts
    return [texts[i * len(texts) // count] for i in range(count)]
