"""Presets, `extends:` and overrides: read as written, or refused by key and file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedline.config.load import load_config, preset_text
from embedline.errors import InputError


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def refused(preset: str, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load_config(preset, overrides)
    return str(caught.value)


def test_a_preset_extends_another_from_the_folder_it_lies_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "one" / "two" / "c.yaml", "extends: demo\nname: c\nmine: {depth: 7, margin: 0.9}\n")
    write(tmp_path / "one" / "b.yaml", "extends: two/c.yaml\nname: b\nmine: {depth: 8}\n")
    top = write(tmp_path / "a.yaml", "extends: one/b.yaml\nname: a\n")
    write(tmp_path / "elsewhere" / "two" / "c.yaml", "extends: demo\nmine: {depth: 1}\n")
    for folder in (tmp_path, tmp_path / "elsewhere"):
        monkeypatch.chdir(folder)
        config = load_config(top)
        assert (config.name, config.mine.depth, config.mine.margin) == ("a", 8, 0.9)
        assert config.data == load_config("demo").data
    assert load_config(preset_text(top)) == config  # what another machine is given


def test_presets_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "a.yaml", "extends: sub/../b.yaml\n")
    write(tmp_path / "b.yaml", "extends: ./a.yaml\n")
    write(tmp_path / "self.yaml", "extends: self.yaml\n")
    assert "extends it again" in refused(str(tmp_path / "a.yaml"))
    assert "extends it again" in refused(str(tmp_path / "self.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"extends: [demo]\n", "extends: takes one preset, got ['demo']"),
        (b"name: \xff\n", "is not UTF-8 (byte 7)"),
        (b"extends: demo\nmine: {depth: 5}\nmine: {margin: 0.9}\n", "the key 'mine' stands twice"),
        (b"extends: demo\nmine: {depth: 5, depth: 6}\n", "the key 'depth' stands twice"),
        (b"extends: demo\nmine:\n", "mine: is a section of settings, got None"),
        (b"extends: demo\nmine: [\n", "is not valid YAML"),
        (b"- demo\n", "is a mapping of sections"),
        (b"extends: demo\nmine: {margn: 0.9}\n", "unknown key mine.margn (did you mean 'margin'?)"),
        (b"extends: demo\nminee: {}\n", "unknown key minee (did you mean 'mine'?)"),
        (
            b"extends: demo\nunsupervised: {buckets: [{tokenz: 9, batch: 3}]}\n",
            "unknown key unsupervised.buckets.0.tokenz (did you mean 'tokens'?)",
        ),
        (
            b"extends: demo\nprompts: {faq: {qery: a}}\n",
            "unknown key prompts.faq.qery (did you mean 'query'?)",
        ),
    ],
)
def test_a_wrong_preset_is_refused_by_key_and_file(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(text)
    error = refused(str(path))
    assert message in error
    assert "mine.yaml" in error


@pytest.mark.parametrize("text", ["2e-4", "2E-4", "2.0e-4", ".2e-3", "0.0002"])
def test_a_number_may_be_written_with_an_exponent(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "a.yaml", f"extends: demo\nsupervised: {{learning_rate: {text}}}\n")
    assert load_config(path).supervised.learning_rate == 2e-4
    assert load_config("demo", [f"supervised.learning_rate={text}"]).supervised.learning_rate == 2e-4


def test_overrides_take_lists_mappings_null_quotes_and_unicode() -> None:
    config = load_config(
        "demo",
        [
            "model.dims=[32, 16]",
            "data.sources.0.weight=2",
            'prompts.default={query: "вопрос: ", document: ""}',
            "prompts.faq.query='a=b: '",
            "gate.max_drop_vs_champion=",
            "gate.rules.0.min=-0.5",
            "description='2e-4'",
            "gate.mode=off",
        ],
    )
    assert config.model.dims == [32, 16]
    assert config.data.sources[0].weight == 2
    assert config.prompts["default"].query == "вопрос: "
    assert config.prompts["faq"].query == "a=b: "
    assert config.gate.max_drop_vs_champion is None
    assert config.gate.rules[0].min == -0.5
    assert (config.description, config.gate.mode) == ("2e-4", "off")


def test_two_sets_with_one_name_are_refused() -> None:
    sets = "data.evaluation=[{path: a/Docs}, {path: b/Docs}]"
    assert "two entries are called 'Docs'; give them different names" in refused("demo", sets)
    load_config("demo", ["data.evaluation=[{path: a/Docs}, {path: b/Docs, name: Others}]"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mine.margin", "is not of the form section.key=value"),
        ("=5", "is not of the form section.key=value"),
        ("data.sources.9.weight=2", "there is nothing at '9'"),
        ("data.sources.-1.weight=2", "there is nothing at '-1'"),
        ("name.first=a", "there is nothing to set 'first' of"),
        ("mine.depth=[", "the value is not valid YAML"),
        ("mine.depth=1.5", "mine.depth: input should be a valid integer"),
        ("mine.enabled='yes'", "mine.enabled: input should be a valid boolean"),
        ("mine=5", "mine: is a section of settings, got 5"),
        ("gate.max_drop_vs_champion=.nan", "gate.max_drop_vs_champion: input should be a finite number"),
        ("gate.rules=[{set: a, min: .inf}]", "gate.rules.0.min: input should be a finite number"),
    ],
)
def test_a_wrong_override_is_refused_with_a_reason(override: str, message: str) -> None:
    assert message in refused("demo", override)


def test_preset_text_loads_as_the_same_config(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.yaml", "extends: demo\nname: a\nsupervised: {learning_rate: 1e-5, temperature: 2E-2}\n"
    )
    text = preset_text(path)
    json.loads(text)
    assert load_config(text) == load_config(path)
    assert preset_text("demo") == "demo"
