"""Result of a run on the terminal: tables, verdict, version, and commands to try next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedline.artifacts.run_folder import read_plan
from embedline.artifacts.run_record import RunRecord
from embedline.artifacts.workspace import Workspace
from embedline.dag import STEPS
from embedline.evaluation.reasons import finding, warnings
from embedline.gate.outcome import Outcome, outcome_of
from embedline.quoting import command_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_STAGE_TITLES = {
    "bm25": "BM25",
    **{name: f"after {name.removeprefix('train_')}" for name, step in STEPS.items() if step.trains},
    "pretrain": "after pretraining",
}


def show_outcome(console: Console, record: RunRecord, run_folder: Path) -> None:
    """Print a finished run: the error message and the log after a failure, else its results."""

    def print_line(text: str = "") -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    if record.error:
        step = record.error.step
        print_line(f"{record.status}{f' in {step}' if step else ''}: {record.error.message}")
        print_line(f"log: {run_folder / 'log.txt'}")
        return
    console.print(_steps(record))
    if record.stages:
        console.print(_stages(record.stages))
    print_line(f"gate: {verdict_words(record.verdict)}")
    for line in reason_lines(record.verdict):
        print_line(f"  {line}")
    if model := record.model:
        print_line(f"model: {model_words(model)}")
        if conflict := model.get("conflict"):
            print_line(f"not promoted: {conflict['text']}")
        elif outcome_of(record.verdict) is Outcome.NOT_JUDGED and model.get("text"):
            print_line(model["text"])
    if (run_folder / "report.html").is_file():
        print_line(f"report: {run_folder / 'report.html'}")
    print_line(f"took {record.seconds:.0f} s; everything is in {run_folder}")
    print_line()
    print_line("Try next:")
    for command in next_commands(record, run_folder):
        print_line(f"  {command}")


def verdict_words(verdict: dict[str, Any]) -> str:
    """Return the gate's result in a few words."""
    outcome, notes = outcome_of(verdict), []
    if verdict.get("mode") != "enforce":
        notes.append(str(verdict.get("mode")))
    if outcome is Outcome.PASSED and not verdict.get("would_pass", True):
        notes.append("enforce would refuse it")
    if found := warnings(verdict):
        notes.append(f"{len(found)} warning{'s' if len(found) > 1 else ''}")
    words = outcome.value + (f" ({', '.join(notes)})" if notes else "")
    return f"{words}, the candidate is already champion" if verdict.get("already_champion") else words


def reason_lines(verdict: dict[str, Any]) -> list[str]:
    """Return one line a reason: ✓ holds, ✗ is broken, ! warns, – was not checked."""
    marks = {"holds": "✓", "broken": "✗", "warning": "! warning:", "unchecked": "–"}
    return [f"{marks[finding(reason)]} {reason['text']}" for reason in verdict.get("reasons", [])]


def model_words(model: dict[str, Any]) -> str:
    """Return a version with its aliases: `support version 3, champion: 3, previous_champion: 2`."""
    aliases = ", ".join(f"{alias}: {version}" for alias, version in sorted(model.get("aliases", {}).items()))
    return f"{model.get('name')} version {model.get('version')}" + (f", {aliases}" if aliases else "")


def next_commands(record: RunRecord, run_folder: Path) -> list[str]:
    """Return commands that open the tracker and search with the run's model."""
    uri = record.tracking.get("uri", "")
    opener = ["open"] if uri.startswith("http") else ["mlflow", "ui", "--backend-store-uri"]
    latest = run_folder.parent / "latest"
    model = (latest if latest.resolve() == run_folder.resolve() else run_folder) / "model"
    search = command_line("embedline", "search", model, _corpus(record, run_folder), _question(record))
    return [command_line(*opener, uri), search]


def _steps(record: RunRecord) -> Table:
    table = _table("step", "seconds", "peak MB", "")
    for step in record.steps:
        note = "cached" if step.cache_hit else "off" if step.passed_through else ""
        table.add_row(step.step, f"{step.seconds:.1f}", f"{step.peak_memory_mb:.0f}", note)
    return table


def _stages(stages: dict[str, dict[str, float]]) -> Table:
    sets = sorted({name for values in stages.values() for name in values} - {"mean"})
    shown = ["mean", *sets] if len(sets) > 1 else sets
    shared = sum(all(name in values for values in stages.values()) for name in sets)
    table = _table("nDCG@10", *(_STAGE_TITLES.get(stage, stage) for stage in stages))
    for name in shown:
        cells = (f"{values[name]:.3f}" if name in values else "–" for values in stages.values())
        table.add_row(f"mean of {shared}" if name == "mean" else name, *cells)
    return table


def _table(*columns: str) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=True, justify="right" if number and column else "left")
    return table


def _corpus(record: RunRecord, run_folder: Path) -> Path:
    """Return a corpus of this run to search: a file of the user where there is one."""
    plan = read_plan(run_folder)
    locations = json.loads(plan["step_configs"]["ingest"])["locations"]
    root = Workspace(run_folder.parent).locate(locations["root"])
    for source in record.config["data"]["corpus"]:
        path = root / str(source["path"])
        if path.is_file():
            return path
    held_out = _evaluation(record)
    return held_out[1] / "corpus.parquet" if held_out else Path("CORPUS")


def _question(record: RunRecord) -> str:
    held_out = _evaluation(record)
    if held_out is None:
        return "your question"
    from embedline.data.evaluation_reader import read_queries

    return next(iter(read_queries(held_out[1]).values()), "your question")


def _evaluation(record: RunRecord) -> tuple[str, Path] | None:
    """Return name and folder of the run's first held-out retrieval set."""
    from embedline.data.evaluation_reader import SETS, read_sets

    for step in record.steps:
        output = step.outputs.get("evaluation") if step.step == "ingest" else None
        if output and output.path and (Path(output.path) / SETS).is_file():
            folder = Path(output.path)
            for info in read_sets(folder):
                if info.kind == "retrieval":
                    return info.name, folder / info.name
    return None
