from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from embedline.config.model import ModelConfig, Prompt
from embedline.errors import InputError
from embedline.models.folder import (
    CARD,
    load_embedder,
    read_lineage,
    read_spec,
    save_embedder,
    spec_from_config,
)
from embedline.models.pooling import POOLING
from embedline.models.prompts import PromptTable


@pytest.fixture(scope="module")
def saved(make_embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model folder; tests must not write here."""
    folder = tmp_path_factory.mktemp("model")
    save_embedder(make_embedder(), folder, lineage=[{"step": "pretrain"}])
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("architecture", ["modernbert", "nomic_bert", "bert"])
def test_three_ways_to_load_give_one_vector(
    make_embedder, texts: list[str], tmp_path: Path, architecture: str, pooling: str
) -> None:
    embedder = make_embedder(architecture, pooling)
    save_embedder(embedder, tmp_path)
    expected = embedder.encode(texts)
    again = load_embedder(tmp_path)
    assert again.spec == embedder.spec
    np.testing.assert_allclose(again.encode(texts), expected, atol=1e-6)
    peer = SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(peer.encode(texts), expected, atol=1e-5)
    backbone = AutoModel.from_pretrained(tmp_path)
    batch = AutoTokenizer.from_pretrained(tmp_path)(
        texts, padding=True, truncation=True, max_length=40, return_tensors="pt"
    )
    with torch.no_grad():
        states = backbone(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    pooled = POOLING[embedder.spec.pooling](states, batch["attention_mask"])
    vectors = torch.nn.functional.normalize(pooled, dim=-1)
    np.testing.assert_allclose(vectors.numpy(), expected, atol=1e-5)


def test_sentence_transformers_puts_our_prompts_before_texts(saved: Path, make_embedder) -> None:
    embedder, peer = make_embedder(), SentenceTransformer(str(saved), device="cpu")
    written = json.loads((saved / "config_sentence_transformers.json").read_text())
    assert written["prompts"] == {
        "query": "search_query: ",
        "document": "search_document: ",
        "faq": "Instruct: ответь\nQuery: ",
    }
    short = ["Как настроить почту?", "VPN"]
    for side, encode in (("query", peer.encode_query), ("document", peer.encode_document)):
        prompt = embedder.spec.prompts.prompt(side)
        assert prompt
        np.testing.assert_allclose(encode(short), embedder.encode(short, prompt=prompt), atol=1e-5)
    faq = embedder.spec.prompts.prompt("query", name="faq")
    np.testing.assert_allclose(
        peer.encode(short, prompt_name="faq"), embedder.encode(short, prompt=faq), atol=1e-5
    )


def test_the_card_says_what_the_model_is(saved: Path) -> None:
    card = json.loads((saved / CARD).read_text())
    assert card["dims"] == [16, 8]
    assert card["width"] == 32
    assert card["lineage"] == read_lineage(saved) == [{"step": "pretrain"}]
    assert len(card["index_version"]) == 16
    assert not list(saved.rglob("*.bin"))


def test_encoding_does_not_change_what_is_saved(make_embedder, saved: Path, tmp_path: Path) -> None:
    embedder = make_embedder()
    embedder.tokenize(["слово " * 100], max_length=8)
    save_embedder(embedder, tmp_path, lineage=[{"step": "pretrain"}])
    for file in saved.rglob("*.*"):
        assert file.read_bytes() == (tmp_path / file.relative_to(saved)).read_bytes(), file.name


def test_other_weights_are_another_index_version(make_embedder, saved: Path, tmp_path: Path) -> None:
    embedder = make_embedder("modernbert", num_hidden_layers=1)
    save_embedder(embedder, tmp_path)
    assert (
        json.loads((tmp_path / CARD).read_text())["index_version"]
        != json.loads((saved / CARD).read_text())["index_version"]
    )


def test_a_spec_given_replaces_that_of_the_folder(saved: Path) -> None:
    spec = replace(read_spec(saved), document_length=8, prompts=PromptTable())
    assert load_embedder(saved, spec=spec).spec == spec


def test_the_configs_dims_keep_the_order_of_their_weights() -> None:
    model = ModelConfig(dims=[16, 64, 32], pooling="cls", query_length=8, document_length=9)
    spec = spec_from_config(model, PromptTable({"default": Prompt(query="q")}))
    assert (spec.dims, spec.pooling, spec.query_length, spec.document_length) == ((16, 64, 32), "cls", 8, 9)


def damage(folder: Path, what: str) -> None:
    weights = folder / "model.safetensors"
    match what:
        case "no config":
            (folder / "config.json").unlink()
        case "pickle":
            weights.unlink()
            torch.save({}, folder / "pytorch_model.bin")
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "garbage":
            weights.write_bytes(b"not safetensors")
        case "no tokenizer":
            for file in folder.glob("tokenizer*"):
                file.unlink()
        case "broken config":
            (folder / "config.json").write_text("{")
        case "other architecture":
            edit(folder / "config.json", model_type="bert", architectures=["BertModel"])
        case "other size":
            edit(folder / "config.json", intermediate_size=128)


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no config", "it has no config.json"),
        ("pickle", "pickled weights are not loaded"),
        ("cut", "cannot be loaded"),
        ("garbage", "cannot be loaded"),
        ("no tokenizer", "cannot be loaded"),
        ("broken config", "cannot be loaded"),
        ("other architecture", r"lacks \d+ weights"),
        ("other size", "cannot be loaded"),
    ],
)
def test_a_damaged_folder_is_named(copy: Path, what: str, message: str) -> None:
    damage(copy, what)
    with pytest.raises(InputError, match=message) as error:
        load_embedder(copy)
    assert str(copy) in str(error.value)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": "mean", "include_prompt": True}, "mean"),
    ],
)
def test_folders_of_others_are_understood(copy: Path, pooling: dict[str, Any], expected: str) -> None:
    (copy / CARD).unlink()
    (copy / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    spec = read_spec(copy)
    assert (spec.pooling, spec.query_length, spec.document_length) == (expected, 40, 40)


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode_max_tokens": True},
        {"pooling_mode": "weightedmean"},
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        {"pooling_mode": "mean", "include_prompt": False},
    ],
)
def test_a_pooling_that_is_not_ours_is_refused(copy: Path, pooling: dict[str, Any]) -> None:
    (copy / CARD).unlink()
    (copy / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    with pytest.raises(InputError, match="Embedline knows mean, cls, last"):
        load_embedder(copy)


def test_a_module_that_is_not_ours_is_refused(copy: Path) -> None:
    (copy / CARD).unlink()
    modules = json.loads((copy / "modules.json").read_text())
    modules.insert(
        2, {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    )
    (copy / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match="a module that Embedline does not know: Dense"):
        load_embedder(copy)
