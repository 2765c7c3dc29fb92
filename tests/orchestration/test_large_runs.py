"""Runs with thousands of sources: their configs are longer than one argument of a process (128 kB)."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedline.artifacts.manifest import Manifest, read_artifact
from embedline.artifacts.record import StepRecord, read_records
from embedline.artifacts.run_folder import read_fingerprint, read_plan
from embedline.artifacts.workspace import Workspace
from embedline.config.limits import PIPELINE, RUN_INPUTS, STEP_CONFIG, argument_bytes
from embedline.config.load import load_config
from embedline.errors import Stopped
from embedline.execution.config_parameter import from_parameter, to_parameter
from embedline.orchestration.compile import compile_pipeline
from embedline.orchestration.containers import _readable_folders
from embedline.orchestration.local import run_here
from embedline.planning.fingerprint import Fingerprint, take_fingerprint
from embedline.planning.preflight import make_plan

pytestmark = pytest.mark.timeout(600)
LARGEST = 2_000
ARGUMENT = 131_072  # MAX_ARG_STRLEN of Linux
PROMPT = "Find the passage of the manual that answers this question of a customer: "


def project(folder: Path, size: int) -> str:
    """Write a preset with `size` sources of two rows and as many evaluation sets, and a prompt for each."""
    names = [f"part-{number:05d}" for number in range(size)]
    (folder / "data").mkdir(parents=True)
    for number, name in enumerate(names):
        rows = [
            {
                "query": f"how is item {number} set {way}",
                "pos": [f"Item {number} is set {way} in menu {name}."],
            }
            for way in ("by hand", "by phone")
        ]
        (folder / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "sets" / name).mkdir(parents=True)
        pair = {"sentence1": f"lamp {number} is on", "sentence2": f"lamp {number} shines", "score": 0.5}
        (folder / "sets" / name / "test.jsonl").write_text(json.dumps(pair) + "\n")
    preset = {
        "name": "large",
        "data": {
            "sources": [{"path": f"data/{name}.jsonl"} for name in names],
            "evaluation": [{"path": f"sets/{name}", "kind": "sts"} for name in names],
        },
        "model": {"settings": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}},
        "prompts": {name: {"query": PROMPT} for name in names},
        "unsupervised": {"batch": 2},
        "supervised": {"batch": 2},
        "pretrain": {"batch": 2},
    }
    (folder / "preset.yaml").write_text(yaml.dump(preset, Dumper=yaml.CSafeDumper, sort_keys=False))
    return str(folder / "preset.yaml")


@pytest.fixture(scope="module")
def largest(tmp_path_factory: pytest.TempPathFactory) -> str:
    return project(tmp_path_factory.mktemp("largest"), LARGEST)


@pytest.fixture(scope="module")
def run_folder(largest: str) -> Path:
    """Run the first steps of the largest preset in kfp's processes, as `embedline run` does."""

    def watch(folder: Path, records: Sequence[StepRecord]) -> None:
        if any(record.step == "clean" and record.status != "running" for record in records):
            raise Stopped("the first steps are enough")

    folder = Path(largest).with_name("w") / "r"
    folder.mkdir(parents=True)
    with contextlib.suppress(Stopped):
        run_here(largest, [], folder.parent, folder.name, watch)
    return folder


def test_the_largest_run_reads_and_cleans_every_source(run_folder: Path) -> None:
    done = {record.step: record for record in read_records(run_folder)}
    assert [done[step].status for step in ("preflight", "ingest", "clean")] == ["done"] * 3
    assert done["ingest"].metrics["records"] == 2 * LARGEST
    counts = {step: _manifest(done[step], "dataset").counts for step in ("ingest", "clean")}
    assert counts["ingest"]["records"] == 2 * LARGEST
    assert 0 < counts["clean"]["records"] <= 2 * LARGEST
    assert len(_manifest(done["ingest"], "evaluation").counts) == LARGEST


def test_parameters_of_the_largest_plan_are_short(run_folder: Path) -> None:
    configs = read_plan(run_folder)["step_configs"]
    assert len(configs["ingest"]) > ARGUMENT
    workspace = Workspace(run_folder.parent)
    for step, text in configs.items():
        parameter = to_parameter(text, workspace, "r", step)
        assert argument_bytes(parameter) <= STEP_CONFIG
        assert json.loads(from_parameter(parameter, workspace)) == json.loads(text)
    assert not any(note.startswith("on a cluster") for note in read_plan(run_folder)["warnings"])


def test_the_largest_fingerprint_has_each_source(run_folder: Path, largest: str) -> None:
    found = take_fingerprint(largest, [], run_folder.parent)
    assert len(found.data) == 2 * LARGEST
    assert found.train_key == read_fingerprint(run_folder)["train_key"]
    assert Fingerprint.parse(found.manifest()) == found


def test_the_largest_preset_compiles_with_its_whole_config(largest: str) -> None:
    text = compile_pipeline(largest)
    assert len(text) < PIPELINE
    root = next(yaml.load_all(text, yaml.CSafeLoader))["root"]
    preset = root["inputDefinitions"]["parameters"]["preset"]["defaultValue"]
    assert argument_bytes(preset) < RUN_INPUTS
    assert load_config(preset) == load_config(largest)


def _manifest(record: StepRecord, output: str) -> Manifest:
    path = record.outputs[output].path
    assert path is not None
    return read_artifact(Path(path)).manifest


def test_containers_of_many_folders_mount_each_once(tmp_path: Path) -> None:
    config = load_config("demo", ["data.root=''"])
    folders = [tmp_path / f"folder-{number}" for number in range(300)]
    for folder in folders:
        (folder / "deeper").mkdir(parents=True)
        (folder / "deeper" / "a.jsonl").touch()
        (folder / "b.jsonl").touch()
    source = config.data.sources[0]
    paths = [path for folder in folders for path in (folder / "deeper" / "a.jsonl", folder / "b.jsonl")]
    sources = [source.model_copy(update={"path": str(path)}) for path in paths]
    data = config.data.model_copy(update={"sources": sources, "corpus": [], "evaluation": []})
    config = config.model_copy(update={"data": data})
    assert _readable_folders(config, "demo", tmp_path / "w", folders[0]) == sorted(folders)


def test_the_work_of_a_plan_grows_with_its_sources_and_no_faster(tmp_path: Path) -> None:
    presets = [project(tmp_path / str(size), size) for size in (60, 120, 240)]
    make_plan(presets[0], [], tmp_path / "w")  # imports, tables of the tracking store
    calls = [_calls(preset, tmp_path / "w") for preset in presets]
    first, second = calls[1] - calls[0], calls[2] - calls[1]
    assert first > 0
    assert second < 2.5 * first  # twice the sources more: twice the calls more; four times if quadratic


def _calls(preset: str, work: Path) -> int:
    """Count the calls of Python functions in a plan."""
    count = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        make_plan(preset, [], work)
    finally:
        sys.setprofile(None)
    return count
