"""Truth table of PROMOTION.md: every row through the real gate and the real promote step."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from embedline.artifacts.manifest import Artifact, write_manifest
from embedline.artifacts.record import OutputRecord, StepRecord, write_record
from embedline.artifacts.tracker import Tracker
from embedline.artifacts.workspace import Workspace
from embedline.config.gate import GateConfig, Rule
from embedline.config.load import deprecated, load_config
from embedline.config.registry import PromoteConfig, TrackingConfig
from embedline.errors import InputError, RefusedError
from embedline.registry import promotion
from embedline.registry.server import default_uri, prepare
from embedline.runs.finish import finish
from embedline.steps import gate, promote
from embedline.steps.context import Context, StepConfig

PAGE = Path(__file__).parents[2] / "pipelines" / "retrain" / "PROMOTION.md"


@dataclass(frozen=True)
class Row:
    mode: str
    rules: str
    policy: str
    verdict: str
    challenger: str
    champion: str
    later: str
    exits: str


def table() -> list[Row]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("| gate.mode |")) + 2
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:]]
    return [Row(*row) for row in cells[: next(n for n, row in enumerate(cells) if len(row) != 8)]]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    address = default_uri(tmp_path_factory.mktemp("tracking"))
    prepare(address)
    return address


def artifact(folder: Path, kind: str, **files: str) -> Artifact:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return write_manifest(folder, kind=kind, step="test", key="key")


def test_the_table_has_every_mode_and_policy() -> None:
    rows = table()
    found = {(row.mode, row.rules, row.policy) for row in rows}
    assert len(rows) == len(found) == 14
    assert {mode for mode, _, _ in found} == {"off", "dry_run", "enforce"}
    for policy in ("auto", "manual"):
        assert ("off", "not asked", policy) in found
        for mode in ("dry_run", "enforce"):
            assert {(mode, rules, policy) for rules in ("hold", "broken", "none")} <= found


@pytest.mark.parametrize("row", table(), ids=lambda row: f"{row.mode}, rules {row.rules}, {row.policy}")
def test_run_follows_the_table(row: Row, uri: str, tmp_path: Path) -> None:
    name = f"{row.mode}-{row.rules}-{row.policy}".replace(" ", "-")
    place = Workspace(tmp_path / "work")
    score = {"model": "candidate", "set": "docs", "kind": "retrieval", "metric": "ndcg_at_10", "main": True}
    rows = json.dumps({**score, "value": 0.9 if row.rules == "hold" else 0.1, "dim": 8, "runtime": "torch"})
    inputs: dict[str, Artifact | None] = {
        "scores": artifact(
            tmp_path / "scores", "scores", scores__jsonl="" if row.rules == "none" else rows + "\n"
        ),
        "candidate": artifact(tmp_path / "model", "model", model__safetensors=name),
        "onnx": None,
        "verdict": None,
    }
    config: dict[str, Any] = {
        "name": name,
        "gate": GateConfig(
            mode=row.mode,  # type: ignore[arg-type]
            rules=[] if row.rules == "none" else [Rule(set="docs", min=0.5)],
            require_parity=False,
        ).model_dump(),
        "promote": PromoteConfig(policy=row.policy).model_dump(),  # type: ignore[arg-type]
        "tracking": TrackingConfig(uri=uri).model_dump(),
    }

    def acted(step: str, output: str) -> Artifact:
        draft = tmp_path / f"draft-{step}"
        draft.mkdir()
        slice_ = StepConfig(config=config, pins={"champion": None})
        tracker = Tracker(tmp_path / f"spool-{step}")
        context = Context(step, "key", slice_, inputs, place, f"{name}-1", tracker, draft)
        {"gate": gate, "promote": promote}[step].run(context)
        return write_manifest(draft / output, kind=output, step=step, key="key")

    inputs["verdict"] = acted("gate", "verdict")
    verdict = json.loads((inputs["verdict"].path / "verdict.json").read_text(encoding="utf-8"))
    assert verdict["outcome"] == row.verdict
    assert verdict["passed"] is (row.verdict == "passed")
    assert verdict["would_pass"] is (row.rules == "hold")

    promoted = acted("promote", "promotion")
    outcome = json.loads((promoted.path / "promotion.json").read_text(encoding="utf-8"))
    assert (outcome["aliases"].get("challenger") == 1) is (row.challenger == "named")
    assert (outcome["champion"] == 1) is outcome["moved"] is (row.champion == "moves")
    moves = promotion.history(name, uri=uri)
    said = ["the gate passed" in move.entry.reason for move in moves]
    assert said == ([row.rules == "hold"] if outcome["moved"] else [])

    if row.later == "refuses":
        with pytest.raises(RefusedError):
            promotion.promote(name, 1, reason="", by="ann", uri=uri)
    else:
        again = promotion.promote(name, 1, reason="", by="ann", uri=uri)
        assert ("moves it" if again.moved else "already champion") == row.later
        unjudged = row.verdict == "not judged"
        assert ("not judged" in again.text) is unjudged
        assert promotion.history(name, uri=uri)[-1].entry.verdict == row.verdict

    path, digest = str(inputs["verdict"].path), inputs["verdict"].digest
    made = {"verdict": OutputRecord(kind="verdict", path=path, digest=digest)}
    record = StepRecord(step="gate", status="done", outputs=made)
    write_record(place.step_folder("run-1", "gate"), record)
    record = finish(place.root, "run-1")
    assert str(record.exit_code) == row.exits
    status = {"passed": "succeeded"}.get(row.verdict, row.verdict)
    assert (record.status, record.verdict["outcome"]) == (status, row.verdict)


@pytest.fixture
def preset(tmp_path: Path) -> str:
    path = tmp_path / "preset.yaml"
    path.write_text("name: tiny\ndata:\n  sources: [{path: pairs.jsonl}]\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("override", "mode", "policy", "note"),
    [
        ("gate.mode=enabled", "enforce", "auto", "gate.mode: enabled is now called enforce"),
        ("gate.mode=disabled", "off", "auto", "gate.mode: disabled is now called off"),
        ("promote.move_alias=false", "enforce", "manual", "move_alias: false is now policy: manual"),
        ("promote.move_alias=true", "enforce", "auto", "move_alias: true is now policy: auto"),
        ("gate.mode=off", "off", "auto", ""),  # which YAML reads as false
        ("gate.mode=dry_run", "dry_run", "auto", ""),
        ("promote.policy=manual", "enforce", "manual", ""),
    ],
)
def test_old_spellings_are_read_and_named(
    preset: str, override: str, mode: str, policy: str, note: str
) -> None:
    config = load_config(preset, [override])
    assert (config.gate.mode, config.promote.policy) == (mode, policy)
    notes = deprecated(preset, [override])
    assert [note in line for line in notes] == ([True] if note else [])


def test_old_and_new_spelling_together_are_refused(preset: str) -> None:
    with pytest.raises(InputError, match="move_alias is the old name of policy"):
        load_config(preset, ["promote.move_alias=true", "promote.policy=manual"])
    with pytest.raises(InputError, match=r"gate\.mode"):
        load_config(preset, ["gate.mode=on"])
