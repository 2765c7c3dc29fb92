"""A step's config as a parameter: itself while it is short, else a file with its digest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedline.artifacts.manifest import Manifest
from embedline.artifacts.workspace import Workspace
from embedline.config.limits import METADATA, STEP_CONFIG, argument_bytes
from embedline.errors import StepError
from embedline.execution.config_parameter import from_parameter, to_parameter
from embedline.execution.kfp_component import _described

LONG = json.dumps({"config": {"data": {"sources": [{"path": f"{number}.jsonl"} for number in range(3000)]}}})


def test_short_config_is_the_parameter(tmp_path: Path) -> None:
    text = json.dumps({"config": {"seed": 3}})
    assert to_parameter(text, Workspace(tmp_path), "r", "clean") == text
    assert from_parameter(text, Workspace(tmp_path)) == text
    assert list(tmp_path.iterdir()) == []


def test_long_config_is_a_file_that_also_a_moved_workspace_finds(tmp_path: Path) -> None:
    parameter = to_parameter(LONG, Workspace(tmp_path / "w"), "r", "ingest")
    assert argument_bytes(parameter) < STEP_CONFIG < argument_bytes(LONG)
    assert str(tmp_path) not in parameter
    (tmp_path / "w").rename(tmp_path / "elsewhere")
    found = from_parameter(parameter, Workspace(tmp_path / "elsewhere"))
    assert json.loads(found) == json.loads(LONG)


def test_config_that_another_preflight_wrote_is_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    parameter = to_parameter(LONG, workspace, "r", "ingest")
    file = workspace.step_folder("r", "ingest") / "config.json"
    file.write_text(file.read_text().replace("7.jsonl", "8.jsonl"))
    with pytest.raises(StepError, match="not the one that preflight wrote"):
        from_parameter(parameter, workspace)
    file.unlink()
    with pytest.raises(StepError, match="missing"):
        from_parameter(parameter, workspace)


def test_counts_of_an_artefact_are_cut_before_its_readers_inputs_are_too_long() -> None:
    counts = {f"set-{number}": number for number in range(2000)}
    described = {"kind": "scores", "step": "evaluate", "key": "k"}
    shown = _described(Manifest(**described, counts=counts, metadata={"outcome": "passed"}))
    assert shown["outcome"] == "passed"
    assert shown["set-0"] == 0
    assert argument_bytes(json.dumps(shown)) <= METADATA
    assert _described(Manifest(**described, counts={"records": 3})) == {"records": 3}
