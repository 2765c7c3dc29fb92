"""What a preset changes of its base is a note of the plan; what it leaves out is the base's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import SentenceTransformer

from embedline.config.load import load_config, validate_config
from embedline.config.model import Prompt
from embedline.config.schema import RunConfig
from embedline.models.folder import load_embedder, save_embedder
from embedline.planning.checks.base import base_notes
from embedline.steps.context import StepConfig
from embedline.steps.shared.training import run_spec


@pytest.fixture
def base(make_embedder, tmp_path: Path) -> Path:
    """A third-party folder with prompts and a length of its own, as sentence-transformers writes it."""
    folder = tmp_path / "base"
    save_embedder(make_embedder("bert"), folder)
    (folder / "embedline.json").unlink()
    edit(folder / "config_sentence_transformers.json", prompts={"query": "query: ", "document": "passage: "})
    edit(folder / "sentence_bert_config.json", max_seq_length=24)
    assert SentenceTransformer(str(folder), device="cpu").prompts["document"] == "passage: "
    return folder


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def config(**sections: Any) -> RunConfig:
    data = {"sources": [{"path": "pairs.jsonl"}]}
    model = {"base": "b", "document_length": 24, "query_length": 16}
    return validate_config({"name": "tiny", "data": data, "model": model, **sections}, where="preset")


class _Context:
    """What `run_spec` reads of a step's context."""

    def __init__(self, run: RunConfig) -> None:
        self.step_config = StepConfig(config=run.model_dump(mode="json"))


def trained_prompts(base: Path, run: RunConfig) -> dict[str, str]:
    context: Any = _Context(run)
    spec = run_spec(context, load_embedder(base).spec)
    sides: Any = {"query": ("query", "short-long"), "document": ("document", "short-long")}
    sides |= {"sts": ("document", "sts"), "bitext": ("document", "bitext")}
    return {name: spec.prompts.prompt(side, task_type=kind) for name, (side, kind) in sides.items()}


def test_the_bases_prompts_are_kept_unless_the_preset_has_its_own(base: Path) -> None:
    own = {"query": "query: ", "document": "passage: ", "sts": "query: ", "bitext": "query: "}
    assert trained_prompts(base, config()) == own
    assert set(trained_prompts(base, config(prompts={})).values()) == {""}
    replaced = trained_prompts(base, config(prompts={"default": {"query": "q: ", "document": "d: "}}))
    assert replaced == {"query": "q: ", "document": "d: ", "sts": "q: ", "bitext": "q: "}


def test_ru_search_leaves_the_prompts_to_its_base(base: Path) -> None:
    run = load_config("ru-search", ["data.root=/data"])
    assert run.prompts is None
    context: Any = _Context(run)
    assert run_spec(context, load_embedder(base).spec).prompts.entries == {
        "default": Prompt(query="query: ", document="passage: ")
    }


def test_prompts_that_contradict_the_base_are_named_with_the_bases(base: Path) -> None:
    assert base_notes(config(), base) == []
    assert base_notes(config(prompts={"default": {"query": "query: ", "document": "passage: "}}), base) == []
    (note,) = base_notes(config(prompts={"default": {"query": "вопрос: "}}), base)
    assert all(each in note for each in ("'query: '", "'passage: '", "'вопрос: '", "''"))
    (note,) = base_notes(config(prompts={}), base)
    assert note.startswith("prompts: the base was trained with 'query: '")
    edit(base / "config_sentence_transformers.json", prompts={})
    assert base_notes(config(prompts={"default": {"query": "q: "}}), base) == []  # nothing to contradict
    assert base_notes(config(prompts={}), None) == []


def test_documents_longer_than_the_bases_are_named(base: Path) -> None:
    (note,) = base_notes(config(model={"base": "b", "document_length": 32}), base)
    assert note == "model.document_length: 32; the base's own folder cuts texts at 24 tokens"
