"""Change one part of the demo at a time, over three seeds, and print what that costs.

    python tests/benchmarks/ablation.py --work runs/ablation

Every row is a whole run of the line; what two runs share is found in the store and made once. nDCG@10 is the
mean of the three SupportQA sets on held-out questions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

CHANGES: dict[str, list[str]] = {
    "everything": [],
    "no pretraining": ["pretrain.enabled=false"],
    "no unsupervised stage": ["unsupervised.enabled=false"],
    "no supervised stage": ["supervised.enabled=false"],
    "no mining": ["mine.enabled=false"],
    "no healing": ["prune.heal_steps=0"],
    "80/10/10": ["pretrain.hidden_as=bert"],
    "whole words": ["pretrain.whole_words=true"],
    "80/10/10 of whole words": ["pretrain.hidden_as=bert", "pretrain.whole_words=true"],
}
SETS = ("SupportQA_ru", "SupportQA_en", "SupportQA_en2ru")


def score(work: Path, seed: int, overrides: list[str]) -> float:
    """nDCG@10 of the candidate of one run."""
    # What the comparison does not need is left out: exports, other sets' stages, promotion.
    quick = ["evaluate.onnx_sets=[]", "promote.policy=manual", f"seed={seed}", *overrides]
    command = ["embedline", "run", "demo", "--work", str(work), *(a for o in quick for a in ("-o", o))]
    done = subprocess.run(
        [sys.executable, "-m", "embedline.cli", *command[1:]], capture_output=True, text=True
    )
    if done.returncode not in (0, 3):  # a refused candidate has a score as well
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    record = json.loads((work / "latest" / "run.json").read_text(encoding="utf-8"))
    scores = next(step["outputs"]["scores"]["path"] for step in record["steps"] if step["step"] == "evaluate")
    lines = (work / scores / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["head"] == "dense"]
    full = max(row["dim"] for row in rows if row["model"] == "candidate")
    found = {
        row["set"]: row["value"]
        for row in rows
        if row["model"] == "candidate" and row["runtime"] == "torch" and row["main"] and row["dim"] == full
    }
    return statistics.mean(found[name] for name in SETS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    print("| changed | " + " | ".join(f"seed {s}" for s in arguments.seeds) + " | mean | cost |")
    print("|---|" + "---|" * (len(arguments.seeds) + 2))
    whole = 0.0
    for name, overrides in CHANGES.items():
        values = [score(arguments.work, seed, overrides) for seed in arguments.seeds]
        mean = statistics.mean(values)
        whole = whole or mean
        cells = " | ".join(f"{value:.3f}" for value in values)
        print(f"| {name} | {cells} | {mean:.3f} | {mean - whole:+.3f} |", flush=True)


if __name__ == "__main__":
    main()
