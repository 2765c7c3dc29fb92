"""The adapter between pipeline artefacts and steps: metadata, Metrics, Markdown and plain failures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from embedline.artifacts.manifest import write_manifest
from embedline.artifacts.record import OutputRecord, StepRecord, write_record
from embedline.config.load import read_overrides
from embedline.errors import InputError
from embedline.execution import kfp_component as component


class Artefact(SimpleNamespace):
    def __init__(self, path: Path) -> None:
        super().__init__(path=str(path), metadata={}, logged={})

    def log_metric(self, name: str, value: float) -> None:
        self.logged[name] = value


def _call(folder: Path, **more: Any) -> dict[str, Artefact]:
    artefacts = {name: Artefact(folder / name) for name in ("given", "made", "metrics", "summary", "page")}
    component.run_component(
        "clean",
        "{}",
        str(folder),
        "run",
        inputs={"dataset": artefacts["given"]},
        outputs={"dataset": artefacts["made"]},
        metrics=artefacts["metrics"],
        summary=artefacts["summary"],
        **{name: artefacts[name] for name in more},
    )
    return artefacts


def test_what_a_step_says_reaches_the_pipeline_artefacts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made-here"
    made.mkdir()
    (made / "report.html").write_text("<p>hello</p>")
    metadata = {"outcome": "not judged", "funnel": {}}
    write_manifest(made, kind="dataset", step="clean", key="k1", counts={"rows": 7}, metadata=metadata)
    record = StepRecord(step="clean", status="done", key="k1", seconds=1.5)
    record.outputs = {"dataset": OutputRecord(kind="dataset", path=str(made), digest="d1")}
    record.metrics, record.summary = {"kept": 7.0, "ratio": float("nan")}, "**kept** 7"
    seen: dict[str, Any] = {}

    def execute(name: str, **arguments: Any) -> StepRecord:
        seen.update(name=name, **arguments)
        return record

    monkeypatch.setattr(component, "execute", execute)
    artefacts = _call(tmp_path, page=True)
    assert seen["inputs"] == {"dataset": tmp_path / "given"}
    assert seen["outputs"] == {"dataset": tmp_path / "made"}
    shown = {"kind": "dataset", "key": "k1", "digest": "d1", "rows": 7, "outcome": "not judged"}
    assert artefacts["made"].metadata == shown
    assert artefacts["metrics"].logged == {"kept": 7.0, "seconds": 1.5}
    assert Path(artefacts["summary"].path).read_text() == "**kept** 7"
    assert Path(artefacts["page"].path).read_text() == "<p>hello</p>"


def test_a_failure_is_one_line_and_the_right_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def execute(name: str, **arguments: Any) -> StepRecord:
        raise InputError("no rows.", where="pairs.jsonl", fix="Fill it.")

    monkeypatch.delenv("EMBEDLINE_DEBUG", raising=False)
    monkeypatch.setattr(component, "execute", execute)
    with pytest.raises(SystemExit) as ended:
        _call(tmp_path)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: pairs.jsonl: no rows. Fill it.\n"
    monkeypatch.setenv("EMBEDLINE_DEBUG", "1")
    with pytest.raises(InputError):
        _call(tmp_path)


def test_a_retry_of_what_cannot_succeed_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = StepRecord(step="clean", status="failed", error="pairs.jsonl: no rows.", exit_code=2, final=True)
    write_record(tmp_path / "run" / "steps" / "clean", record)
    monkeypatch.setattr(component, "execute", lambda *_, **__: pytest.fail("it was tried again"))
    with pytest.raises(SystemExit) as ended:
        _call(tmp_path)
    assert ended.value.code == 2


def test_overrides_are_lines_or_a_json_list() -> None:
    assert read_overrides(" a.b=1 \n\n# no\nc=[1, 2]\n") == ["a.b=1", "c=[1, 2]"]
    assert read_overrides('["a.b=1", "c=[1, 2]"]') == ["a.b=1", "c=[1, 2]"]
    assert read_overrides("") == []
    with pytest.raises(InputError, match="not a JSON list"):
        read_overrides("[a=1")
