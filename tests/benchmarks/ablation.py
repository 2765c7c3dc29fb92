"""Change one part of a preset at a time, over several seeds, and print what that costs.

    python tests/benchmarks/ablation.py demo --work runs/ablation
    python tests/benchmarks/ablation.py ru-search --work runs/ablation -o data.root=$EMBEDLINE_DATA

Every row is a whole run of the line; what two runs share is found in the store and made once. The numbers are
means of nDCG@10 over the retrieval sets of a group, of dense vectors at full width and of hybrid search.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple


class Ablation(NamedTuple):
    """The changes of a preset: name → overrides, the first one none; and its groups of sets."""

    changes: dict[str, list[str]]
    groups: dict[str, tuple[str, ...]]


_RUSSIAN = ("Dyn365DescRetrieval", "PhpDocRetrieval_ru", "GnomeHelpRetrieval_ru", "GuidesRetrieval_ru")
_RUSSIAN += ("DevBooksRetrieval_ru",)
_CROSS = tuple(f"{name}Retrieval_en2ru" for name in ("PhpDoc", "GnomeHelp", "Guides", "DevBooks"))
_DOCUMENTATION = {"ru": _RUSSIAN, "en→ru": _CROSS}
_NO_DISTILLATION = ["unsupervised.distillation=null", "supervised.distillation=null"]

ABLATIONS = {
    "demo": Ablation(
        {
            "everything": [],
            "no pretraining": ["pretrain.enabled=false"],
            "no unsupervised stage": ["unsupervised.enabled=false"],
            "no supervised stage": ["supervised.enabled=false"],
            "no mining": ["mine.enabled=false"],
            "no healing": ["prune.heal_steps=0"],
            "80/10/10": ["pretrain.hidden_as=bert"],
            "whole words": ["pretrain.whole_words=true"],
            "80/10/10 of whole words": ["pretrain.hidden_as=bert", "pretrain.whole_words=true"],
        },
        {"all": ("SupportQA_ru", "SupportQA_en", "SupportQA_en2ru")},
    ),
    "ru-search": Ablation(
        {
            "everything": [],
            "no unsupervised stage": ["unsupervised.enabled=false"],
            "no supervised stage": ["supervised.enabled=false"],
            "negatives of the data alone": ["mine.enabled=false"],
            "negatives of the model alone": ["mine.strategies={model: 1}"],
            "negatives of BM25 alone": ["mine.strategies={bm25: 1}"],
            "no negatives but the batch's": ["supervised.negatives=0"],
            "no layers dropped": ["prune.when=never"],
            "no tokens dropped": ["prune.vocabulary.when=never"],
        },
        _DOCUMENTATION,
    ),
    "ru-docs": Ablation(
        {"everything": [], "no teacher": _NO_DISTILLATION, "no pretraining": ["pretrain.enabled=false"]},
        _DOCUMENTATION,
    ),
}


def scores(preset: str, work: Path, overrides: list[str]) -> dict[tuple[str, str], float]:
    """Run the line; return the candidate's nDCG@10 by set and head."""
    command = ["run", preset, "--work", str(work), *(a for o in overrides for a in ("-o", o))]
    done = subprocess.run([sys.executable, "-m", "embedline.cli", *command], capture_output=True, text=True)
    if done.returncode not in (0, 3):  # a refused candidate has scores as well
        raise SystemExit(f"embedline {' '.join(command)}\n{done.stdout}\n{done.stderr}")
    record = json.loads((work / "latest" / "run.json").read_text(encoding="utf-8"))
    path = next(step["outputs"]["scores"]["path"] for step in record["steps"] if step["step"] == "evaluate")
    lines = (work / path / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    rows: list[dict[str, Any]] = [
        row
        for row in map(json.loads, lines)
        if row["model"] == "candidate" and row["runtime"] == "torch" and row["main"]
    ]
    full = max(row["dim"] for row in rows if row["head"] == "dense")
    kept = [row for row in rows if row["head"] != "dense" or row["dim"] == full]
    return {(row["set"], row["head"]): row["value"] for row in kept}


def means(found: dict[tuple[str, str], float], ablation: Ablation) -> dict[str, float]:
    """Average over each group of sets, for dense and, where there is one, hybrid search."""
    return {
        f"{group}, {head}": statistics.mean(found[name, head] for name in sets)
        for head in ("dense", "hybrid")
        for group, sets in ablation.groups.items()
        if all((name, head) in found for name in sets)
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preset", choices=ABLATIONS)
    parser.add_argument("--work", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="these rows")
    parser.add_argument("-o", "--set", dest="overrides", action="append", default=[])
    arguments = parser.parse_args()
    ablation = ABLATIONS[arguments.preset]
    # What the comparison does not need is left out: exports' scores, stages' scores, mteb, promotion.
    quick = ["evaluate.onnx_sets=[]", "evaluate.mteb_tasks=[]", "promote.policy=manual", "gate.mode=dry_run"]
    whole: dict[str, float] = {}
    for name, changes in ablation.changes.items():
        if arguments.only and name not in arguments.only:
            continue
        runs = [
            means(
                scores(
                    arguments.preset, arguments.work, [*quick, *arguments.overrides, f"seed={seed}", *changes]
                ),
                ablation,
            )
            for seed in arguments.seeds
        ]
        for kind in runs[0]:
            values = [run[kind] for run in runs]
            mean = statistics.mean(values)
            if not whole.keys():
                print(
                    "| changed | mean of | "
                    + " | ".join(f"seed {s}" for s in arguments.seeds)
                    + " | mean | cost |"
                )
                print("|---|---|" + "---|" * (len(arguments.seeds) + 2))
            cost = mean - whole.setdefault(kind, mean)
            cells = " | ".join(f"{value:.3f}" for value in values)
            print(f"| {name} | {kind} | {cells} | {mean:.3f} | {cost:+.3f} |", flush=True)


if __name__ == "__main__":
    main()
