"""Time to quality beside what a user would otherwise train with: `make bench-quality`.

    python tests/benchmarks/bench_quality.py --base DIR --data $EMBEDLINE_DATA [--quick]

How long a fine-tuning takes until the mean nDCG@10 over some retrieval sets has risen by 3 points, and by 5,
over the base. The same base, pairs, lengths, batch, loss, optimizer and evaluation for every contender, each
in a process of its own, one after another on this machine; only training is timed. What decides a library's
speed is tried before, on two steps each, and its fastest setting counts: the size of a chunk. Learning rate
and temperature are of the loss, which is the same for all. The precision is the faster one of this machine.
Prints a table, and JSON to --output.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from embedline.config.data import EvaluationSet
from embedline.data.evaluation_sets import lay_out
from embedline.models.device import processor_name

GAINS = (0.03, 0.05)
# Tokens of a chunk (Embedline), texts of a mini-batch (sentence-transformers), texts of a sub-batch
# (FlagEmbedding; 0 encodes the whole batch at once).
CHUNKS = {
    "embedline": (2048, 4096),
    "sentence-transformers": (16, 32, 64),
    "FlagEmbedding": (0, 16, 32),
}
SETS = ("GuidesRetrieval_ru", "GuidesRetrieval_en2ru", "GnomeHelpRetrieval_ru", "GnomeHelpRetrieval_en2ru")
SEARCH_SECONDS = 120.0  # of a setting's two steps; what is slower cannot be the fastest

Point = tuple[float, int, float]  # seconds of training, steps, mean nDCG@10


@dataclass
class Result:
    """One contender at its best chunk.

    Args:
        tried: seconds of a step by chunk.
        seconds: of training until each of GAINS; None where it was not reached.
    """

    contender: str
    chunk: int
    bf16: bool
    tried: dict[int, float]
    points: list[Point]
    seconds: dict[float, float | None] = field(init=False)

    def __post_init__(self) -> None:
        self.seconds = {gain: seconds_until(self.points, gain) for gain in GAINS}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--base", type=Path, required=True, help="a sentence-transformers folder, mean pooling"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with train/*.jsonl.gz and eval/")
    parser.add_argument("--sets", nargs="+", default=list(SETS), help="of eval/; the mean counts")
    parser.add_argument("--contenders", nargs="+", choices=CHUNKS, default=list(CHUNKS))
    parser.add_argument("--batch", type=int, default=80)
    parser.add_argument("--steps", type=int, default=60, help="of the schedule; the training ends before")
    parser.add_argument("--every", type=int, default=5, help="steps between two evaluations")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--length", type=int, default=112, help="tokens at which all texts are cut")
    parser.add_argument("--pairs", type=int, default=1000, help="at most, of each source")
    parser.add_argument("--limit", type=float, default=600, help="seconds of training for each contender")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="see that it works: short texts, two steps")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    options.queries = None
    if options.quick:
        options.batch, options.steps, options.every, options.length = 8, 2, 1, 16
        options.pairs, options.sets, options.queries = 16, options.sets[:1], 8
    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder) / "pairs.json"
        sources = _pairs(options.data, options.pairs, options.batch)
        pairs.write_text(json.dumps(sources, ensure_ascii=False), encoding="utf-8")
        evaluation = Path(folder) / "evaluation"
        sets = [EvaluationSet(kind="retrieval", path=name) for name in options.sets]
        lay_out(sets, options.data / "eval", evaluation)
        results = [_best(name, pairs, evaluation, options) for name in options.contenders]
    found = [result for result in results if result is not None]
    print(f"\n{about(sources, options)}\n\n{table(found)}", flush=True)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        rows = [asdict(result) for result in found]
        options.output.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def seconds_until(points: list[Point], gain: float) -> float | None:
    """Return the training's seconds at the first point whose quality is `gain` above the first one's."""
    return next((seconds for seconds, _, value in points if value >= points[0][2] + gain), None)


def table(results: list[Result]) -> str:
    """Return a row for each contender; ours is so many times as fast as it to each of the gains."""
    names = [f"+{100 * gain:.0f} points" for gain in GAINS]
    lines = [
        f"| contender | chunk | precision | s a step | base | best | {' | '.join(names)} |",
        "|---|---|---|---|---|---|" + "---|" * len(GAINS),
    ]
    ours = next((result for result in results if result.contender == "embedline"), None)
    for result in results:
        values = [value for _, _, value in result.points]
        cells = [
            result.contender,
            str(result.chunk or "whole batch"),
            "bf16" if result.bf16 else "fp32",
            f"{min(result.tried.values()):.1f}",
            f"{values[0]:.3f}",
            f"{max(values):.3f}",
            *(_seconds(result, gain, ours) for gain in GAINS),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _seconds(result: Result, gain: float, ours: Result | None) -> str:
    seconds = result.seconds[gain]
    if seconds is None:
        return f"not in {result.points[-1][0]:.0f} s"
    mine = ours.seconds[gain] if ours else None
    ratio = f" ({seconds / mine:.1f}×)" if mine and result is not ours else ""
    return f"{seconds:.0f} s{ratio}"


def about(sources: dict[str, list[tuple[str, str]]], options: argparse.Namespace) -> str:
    """Return what the table was measured with: machine, versions, commit, command, data, settings."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    names = ("torch", "sentence-transformers", "FlagEmbedding")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    count = sum(len(given) for given in sources.values())
    return (
        f"{processor_name()}, {torch.get_num_threads()} threads, Python {platform.python_version()}, "
        f"{versions}; commit {commit.stdout.strip() or 'unknown'}; `{' '.join(sys.argv)}`.\n"
        f"{count:,} pairs of {len(sources)} sources, {options.batch} a batch, all of one source; texts of up "
        f"to {options.length} tokens; learning rate {options.learning_rate:g}, linear over {options.steps} "
        f"steps; evaluated every {options.every} steps on {', '.join(options.sets)}."
    )


def _best(name: str, pairs: Path, evaluation: Path, options: argparse.Namespace) -> Result | None:
    """Find the fastest chunk, and train with it."""
    tried: dict[int, float] = {}
    for chunk in CHUNKS[name][: 1 if options.quick else None]:
        found = _run(name, pairs, options, ["--chunk", str(chunk), "--steps", "2"], SEARCH_SECONDS)
        if found and len(found["steps"]) > 1:
            tried[chunk] = found["steps"][1] - found["steps"][0]
            print(f"  {name}, chunk {chunk}: {tried[chunk]:.1f} s a step", flush=True)
    if not tried:
        return None
    chunk = min(tried, key=lambda each: tried[each])
    folders = [str(evaluation / name) for name in options.sets]
    evaluated = ["--chunk", str(chunk), "--steps", str(options.steps), "--sets", *folders]
    if options.queries:
        evaluated += ["--queries", str(options.queries)]
    found = _run(name, pairs, options, evaluated, options.limit)
    if not found:
        return None
    for seconds, step, value in found["points"]:
        print(f"  {name}: {value:.4f} after {step} steps, {seconds:.0f} s", flush=True)
    return Result(name, chunk, found["bf16"], tried, [tuple(point) for point in found["points"]])


def _run(
    name: str, pairs: Path, options: argparse.Namespace, more: list[str], limit: float
) -> dict[str, Any] | None:
    script = Path(__file__).with_name("quality_contenders.py")
    command = [sys.executable, str(script), name, "--model", str(options.base), "--pairs", str(pairs)]
    for option in ("batch", "every", "length", "learning_rate", "seed"):
        command += [f"--{option.replace('_', '-')}", str(getattr(options, option))]
    command += ["--gain", str(max(GAINS)), "--limit", str(limit), *more]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        print(f"{name} did not run: {reason}", flush=True)
        return None
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _pairs(data: Path, most: int, batch: int) -> dict[str, list[tuple[str, str]]]:
    """The first pairs of each source that has a batch of them; judged pairs (STS) have another loss."""
    sources = {}
    for path in sorted((data / "train").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in itertools.islice(lines, most)]
        if len(rows) >= batch and all("pos" in row and row.get("score") is None for row in rows):
            sources[path.name.removesuffix(".jsonl.gz")] = [(row["query"], row["pos"][0]) for row in rows]
    return sources


if __name__ == "__main__":
    main()
