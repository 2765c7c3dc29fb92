"""Training speed beside what a user would otherwise pick: `make bench-train`.

    python tests/benchmarks/bench_train.py --data $EMBEDLINE_DATA [--sizes small base] [--batches 512 2048]
        [--precisions bf16 fp32]

The same model, tokenizer, pairs (lengths as they come, cut at 256 tokens) and batch for every contender,
each in a process of its own, one after another on this machine. Useful tokens are those that are not
padding. The peak is a 2,048 × 2,048 × 2,048 matrix product measured before and after; a step's work is
6 × non-embedding parameters × useful tokens. Prints a table, and JSON to --output.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from embedline.models.device import bf16_instructions

LENGTH = 256
SIZES = {"small": (384, 6, 12, 1536), "base": (768, 12, 12, 3072)}
FILES = (
    "dyn365_ru_ht_heading_section",
    "dyn365_ru_ht_title_body",
    "php_en-ru_bitext",
    "php_ru_purpose_desc",
    "msdocs_headings_en-ru_ht",
    "vsdocs_ru_ht_heading_section",
)
# The settings tried for each contender at the first size and batch; its fastest counts, there and, lest the
# bench take half a day, at the others.
SETTINGS: dict[str, list[list[str]]] = {
    "embedline": [["--batch-tokens", "2048"], ["--batch-tokens", "4096"]],
    "sentence-transformers": [
        ["--mini-batch", "16"],
        ["--mini-batch", "32"],
        ["--mini-batch", "64"],
        ["--mini-batch-tokens", "4096"],
    ],
    # Without checkpointing it keeps the whole batch's graph, which 24 GB do not hold at 512.
    "FlagEmbedding": [["--mini-batch", size, "--gradient-checkpointing"] for size in ("16", "32", "64")],
}


@dataclass
class Result:
    """One contender at its best setting; `split` is each phase's share of its step, where it tells that."""

    contender: str
    size: str
    batch: int
    precision: str
    objective: str
    setting: str
    seconds: float
    tokens_per_second: float
    share_of_peak: float
    peak_mb: float
    split: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with train/*.jsonl.gz")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small"])
    parser.add_argument("--batches", nargs="+", type=int, default=[512, 2048])
    parser.add_argument("--precisions", nargs="+", choices=["bf16", "fp32"], default=["bf16", "fp32"])
    parser.add_argument("--contenders", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--steps", type=int, default=3, help="the first warms up, unless it is the only one")
    parser.add_argument("--unified", action="store_true", help="also our three heads with self-distillation")
    parser.add_argument("--settings", type=int, default=0, help="try only the first n settings; 0: all")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    results: list[Result] = []
    fastest: dict[tuple[str, ...], list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for size, batch, precision in itertools.product(options.sizes, options.batches, options.precisions):
            if precision == "bf16" and not bf16_instructions(torch.device("cpu")):
                print("bf16 is left out: this CPU has no instructions for it.", flush=True)
                continue
            results += _compare(Path(folder), size, batch, precision, options, fastest)
            if options.output:
                about = {"versions": _versions(), "results": [asdict(result) for result in results]}
                options.output.parent.mkdir(parents=True, exist_ok=True)
                options.output.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _compare(
    folder: Path,
    size: str,
    batch: int,
    precision: str,
    options: argparse.Namespace,
    fastest: dict[tuple[str, ...], list[str]],
) -> list[Result]:
    pairs = folder / f"pairs-{batch}.json"
    if not pairs.exists():
        pairs.write_text(json.dumps(_pairs(options.data, batch), ensure_ascii=False), encoding="utf-8")
    model, parameters, tokens = _model(
        folder / size, size, json.loads(pairs.read_text(encoding="utf-8")), options.data
    )
    runs = [(name, "infonce") for name in options.contenders]
    if options.unified and "embedline" in options.contenders:
        runs.insert(1, ("embedline", "unified"))
    results = []
    peak = _peak(precision)
    for name, objective in runs:
        tried = []
        known = fastest.get((name, objective, precision))
        for setting in [known] if known else SETTINGS[name][: options.settings or None]:
            given = [*setting, "--objective", objective]
            if (found := _run(name, model, pairs, precision, given, options)) is not None:
                seconds = statistics.median(found["seconds"])
                tried.append((seconds, setting, found["peak_mb"], found["split"]))
        if not tried:
            continue
        seconds, best, peak_mb, split = min(tried, key=lambda one: one[0])
        fastest[name, objective, precision] = best
        speed = tokens / seconds
        work = 6 * parameters * speed / peak
        results.append(
            Result(
                name, size, batch, precision, objective, " ".join(best), seconds, speed, work, peak_mb, split
            )
        )
    again = _peak(precision)
    _table(results, tokens, peak, again)
    return results


def _run(
    name: str, model: Path, pairs: Path, precision: str, setting: list[str], options: argparse.Namespace
) -> dict[str, Any] | None:
    command = [sys.executable, str(Path(__file__).with_name("contenders.py")), name, "--model", str(model)]
    command += ["--pairs", str(pairs), "--steps", str(options.steps), "--precision", precision, *setting]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        print(f"{name} {' '.join(setting)} did not run: {reason}", flush=True)
        return None
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"  {name} {' '.join(setting)}: {[round(s, 1) for s in found['seconds']]} s", flush=True)
    return found


def _pairs(data: Path, count: int) -> list[tuple[str, str]]:
    """The first pairs of each file in turn, so that lengths are as mixed as they come."""
    streams = []
    for name in FILES:
        with gzip.open(data / "train" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in itertools.islice(lines, count)]
        streams.append([(row["query"], row["pos"][0]) for row in rows])
    mixed = [pair for pairs in itertools.zip_longest(*streams) for pair in pairs if pair is not None]
    return mixed[:count]


def _model(folder: Path, size: str, pairs: list[tuple[str, str]], data: Path) -> tuple[Path, int, int]:
    """A BERT with random weights and a tokenizer of the texts: folder, parameters, tokens a step."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    from embedline.models.tokenizer import train_tokenizer

    if not folder.exists():
        width, layers, heads, inner = SIZES[size]
        texts = [text for pair in _pairs(data, 4096) for text in pair]
        tokenizer = train_tokenizer(texts, 32_000, max_length=LENGTH)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=inner,
            pad_token_id=tokenizer.pad_token_id,
        )
        torch.manual_seed(0)
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = BertModel.from_pretrained(folder, add_pooling_layer=False)
    parameters = sum(p.numel() for name, p in model.named_parameters() if "embeddings" not in name)
    cut = tokenizer([text for pair in pairs for text in pair], truncation=True, max_length=LENGTH)
    return folder, parameters, sum(len(row) for row in cut["input_ids"])


def _peak(precision: str, size: int = 2048) -> float:
    """Floating-point operations a second of a matrix product, the best of ten."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(size, size).to(kind) for _ in range(2))
    best = 0.0
    for _ in range(10):
        start = time.perf_counter()
        left @ right
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def _table(results: list[Result], tokens: int, peak: float, again: float) -> None:
    if not results:
        return
    first = results[0]
    print(
        f"\n{first.size}, batch {first.batch}, {first.precision}: {tokens:,} useful tokens a step; "
        f"peak {peak / 1e12:.2f} before, {again / 1e12:.2f} TFLOP/s after\n"
    )
    print("| contender | setting | s a step | tokens/s | share of peak | ours is | peak MB |")
    print("|---|---|---|---|---|---|---|")
    ours = next((r.tokens_per_second for r in results if r.contender == "embedline"), None)
    for r in results:
        ratio = f"{ours / r.tokens_per_second:.1f}×" if ours else ""
        name = r.contender if r.objective == "infonce" else f"{r.contender}, three heads"
        print(
            f"| {name} {_versions().get(r.contender, '')} | `{r.setting}` | {r.seconds:.1f} "
            f"| {r.tokens_per_second:,.0f} | {r.share_of_peak:.1%} | {ratio} | {r.peak_mb:,.0f} |"
        )
    for r in results:
        if r.split:
            shares = ", ".join(f"{phase} {share:.2%}" for phase, share in r.split.items())
            print(f"\nA step of {r.contender} ({r.objective}), its curves written at each: {shares}.")
    print(flush=True)


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("embedline", "sentence-transformers", "FlagEmbedding", "torch")}


if __name__ == "__main__":
    main()
