"""Sizes of what is handed on: measured as kfp and Argo pass it, and refused before a run."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedline.config.limits import PIPELINE, PRESET, RUN_INPUTS, argument_bytes, check_pipeline
from embedline.config.load import load_config, preset_name, preset_text
from embedline.config.preset_input import pack, unpack
from embedline.errors import InputError
from embedline.orchestration.compile import compile_pipeline
from embedline.planning.preflight import make_plan


@given(st.text(max_size=200))
def test_argument_bytes_are_those_of_json_three_deep(text: str) -> None:
    passed = json.dumps([json.dumps([json.dumps([text])])])
    brackets = 2 + 2 + 2
    assert argument_bytes(text) == len(passed.encode()) - brackets
    assert argument_bytes(text) >= len(text.encode("utf-8", "surrogatepass"))


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=5), st.integers(0, 3))
def test_packed_preset_reads_as_written(values: dict[str, str], repeats: int) -> None:
    values = {**values, "description": "long " * (repeats * PRESET // 3)}
    packed = pack(values)
    assert json.loads(unpack(packed)) == values
    assert packed.isprintable() or not packed.startswith("xz:")
    assert argument_bytes(packed) <= PRESET


def test_long_preset_is_submitted_compressed(tmp_path: Path) -> None:
    prompt = "".join(random.Random(0).choices(string.ascii_letters, k=30_000))
    preset = tmp_path / "my.yaml"
    preset.write_text(f"extends: demo\nname: my\nprompts: {{default: {{query: {prompt}}}}}\n")
    text = preset_text(str(preset))
    assert text.startswith("xz:")
    assert load_config(text) == load_config(str(preset))
    assert preset_name(text) == "my"
    with pytest.raises(InputError, match="damaged"):
        load_config(text[:50] + "!" + text[50:])
    with pytest.raises(InputError, match="cut off"):
        load_config(text[: 3 + 4 * 500])


def test_preset_that_cannot_be_submitted_is_refused_by_compile_and_noted_by_the_plan(tmp_path: Path) -> None:
    prompt = "".join(random.Random(0).choices(string.ascii_letters, k=2 * RUN_INPUTS))
    (tmp_path / "a.jsonl").write_text(
        '{"query": "how to reset", "pos": ["Press the button for long."]}\n' * 300
    )
    preset = tmp_path / "my.yaml"
    preset.write_text(
        f"name: my\ndata: {{sources: [{{path: a.jsonl}}]}}\nprompts: {{default: {{query: {prompt}}}}}\n"
    )
    with pytest.raises(InputError, match=r"a run can be given 60,000\. Put the preset file on the workspace"):
        compile_pipeline(str(preset))
    notes = make_plan(str(preset), [], tmp_path / "w").warnings
    assert any(note.startswith("on a cluster: preset: the run's inputs have") for note in notes)


def test_overrides_longer_than_an_argument_are_refused_in_plan_and_compile(tmp_path: Path) -> None:
    overrides = [f"prompts.source-{number}.query={'x' * 1000}" for number in range(100)]
    for refuse in (
        lambda: make_plan("demo", overrides, tmp_path),
        lambda: compile_pipeline("demo", overrides),
    ):
        with pytest.raises(InputError, match="Write them into a preset file") as refused:
            refuse()
        assert refused.value.where == "overrides"


def test_pipeline_larger_than_a_workflow_is_refused() -> None:
    check_pipeline("x" * PIPELINE)
    with pytest.raises(InputError, match="Give the tasks fewer"):
        check_pipeline("x" * (PIPELINE + 1))
