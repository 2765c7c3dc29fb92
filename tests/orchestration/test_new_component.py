"""`make component`: the folder that it writes is a component like the others."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedline.dag import STEPS, Step
from embedline.errors import InputError
from embedline.orchestration.component_docs import readme
from embedline.orchestration.new_component import main, write_component

STEP = Step(
    "distil",
    {"seed": ()},
    inputs={"model": "prune_after.model", "dataset": "clean.dataset", "scores": "evaluate.scores"},
    outputs={"model": "model", "notes": "notes"},
)


def component_of(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location(folder.name, folder / "component.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, folder.name)


@pytest.mark.parametrize("step", [STEP, replace(STEP, kind="trains", switch="supervised")])
def test_a_written_component_is_one_that_kfp_accepts(tmp_path: Path, step: Step) -> None:
    write_component(step, tmp_path / "distil")
    spec = component_of(tmp_path / "distil").component_spec
    curves = {"curves"} if step.trains else set()
    assert set(spec.inputs) == {"config_json", "workspace", "run", "model", "dataset", "scores"}
    assert set(spec.outputs) == {"new_model", "notes", "metrics", "summary"} | curves
    assert spec.outputs["new_model"].type == "system.Model@0.0.1"


def test_a_written_component_runs_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_component(STEP, tmp_path / "distil")
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        "embedline.execution.kfp_component.run_component", lambda *given, **rest: calls.append((given, rest))
    )
    names = ("model", "dataset", "scores", "new_model", "notes", "metrics", "summary")
    component_of(tmp_path / "distil").python_func("{}", "w", "r", **{name: name for name in names})
    [(given, rest)] = calls
    assert given == ("distil", "{}", "w", "r")
    assert rest["inputs"] == {name: name for name in STEP.inputs}
    assert rest["outputs"] == {"model": "new_model", "notes": "notes"}


def test_the_page_and_metadata_of_a_written_component_agree(tmp_path: Path) -> None:
    folder = tmp_path / "distil"
    write_component(STEP, folder)
    assert (folder / "README.md").read_text(encoding="utf-8") == readme(folder)
    about = yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))
    schema = yaml.safe_load((Path(__file__).parents[2] / "components/export/metadata.yaml").read_text())
    assert about.keys() == schema.keys()
    text = (folder / "component.py").read_text(encoding="utf-8")
    formatted = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "-"], input=text, capture_output=True, text=True, check=True
    )
    assert "def distil(" in formatted.stdout


def test_a_component_that_exists_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "distil").mkdir()
    with pytest.raises(InputError, match="exists already"):
        write_component(STEP, tmp_path / "distil")
    assert main(["export"]) == 2, "a component of the line is there"
    assert main(["no-such-step"]) == 2
    assert ", ".join(STEPS) in capsys.readouterr().err
