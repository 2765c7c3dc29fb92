"""YAML made to exhaust its reader is refused at once, with line and column."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from embedline.config.load import load_config
from embedline.config.yamltext import MAX_DEPTH, read_yaml
from embedline.errors import InputError

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {k: v}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 10)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("text", "reason", "line"),
    [
        (LAUGHS, "aliases repeat more than 100,000 values", 5),
        (MERGES, "aliases repeat more than 100,000 values", 6),
        ("a: &a [*a]\n", "the alias 'a' stands inside its own anchor", 1),
        ("name: b\nmine: " + "[" * 100_000, "more than 50 levels of nesting", 2),
        ("mine: " + "{a: " * 20_000, "more than 50 levels of nesting", 1),
        ("\n\n" + "- " * 20_000, "more than 50 levels of nesting", 3),
        ("name: b\nday: 2001-13-45\n", "month must be in 1..12", 2),
        ("seed: 0x" + "f" * 5000, "int too large", 1),
        ("seed: " + "1" * 5000, "Exceeds the limit", 1),
    ],
)
def test_yaml_that_exhausts_a_reader_is_refused_with_its_place(
    tmp_path: Path, text: str, reason: str, line: int
) -> None:
    preset = tmp_path / "preset.yaml"
    preset.write_text(text)
    with pytest.raises(InputError, match="is not valid YAML") as refused:
        load_config(str(preset))
    assert reason in refused.value.what
    assert f"line {line}, column " in refused.value.what
    assert refused.value.where == str(preset)
    assert len(str(refused.value)) < 1000


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("mine=" + "[" * 50_000, "levels of nesting"),
        ("mine.depth=2001-13-45", "line 1, column 1"),
        (".".join(["a"] * 5000) + "=1", "more than 50 parts"),
    ],
)
def test_override_that_exhausts_a_reader_is_refused(override: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as refused:
        load_config("demo", [override])
    assert len(str(refused.value)) < 1000


@pytest.mark.timeout(20)
def test_deeply_nested_preset_text_is_refused() -> None:
    with pytest.raises(InputError, match="nested too deeply"):
        load_config('{"mine": ' + "[" * 100_000)


def test_nesting_and_aliases_of_a_real_preset_are_read() -> None:
    text = "base: &base {steps: 3, batch: 2}\none: {<<: *base, steps: 4}\ntwo: *base\n"
    assert read_yaml(text) == {
        "base": {"steps": 3, "batch": 2},
        "one": {"steps": 4, "batch": 2},
        "two": {"steps": 3, "batch": 2},
    }
    assert read_yaml("[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)) is not None
    with pytest.raises(yaml.YAMLError):
        read_yaml("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


def test_values_that_were_read_are_not_shared() -> None:
    text = "a: {b: 1}\n"
    read_yaml(text)["a"]["b"] = 2
    assert read_yaml(text) == {"a": {"b": 1}}


def test_message_about_many_problems_is_short(tmp_path: Path) -> None:
    preset = tmp_path / "preset.yaml"
    preset.write_text("extends: demo\ndata:\n  sources:\n" + "  - {pathh: x.jsonl}\n" * 1000)
    with pytest.raises(InputError, match=r"and 1980 more\.") as refused:
        load_config(str(preset))
    assert "data.sources.0.pathh" in str(refused.value)
    assert len(str(refused.value)) < 5000
