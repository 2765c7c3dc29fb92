"""Pooling and mask of third-party folders: read as sentence-transformers reads them, stated, or refused."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from embedline.config.model import ModelConfig
from embedline.errors import InputError
from embedline.models import log_once
from embedline.models.bidirectional import is_bidirectional
from embedline.models.folder import CARD, load_embedder, save_embedder
from embedline.models.opening import open_base, open_model
from embedline.models.stated import Stated
from embedline.models.third_party import ST_POOLINGS

CONFIGS = ("sentence_bert", "sentence_roberta", "sentence_xlm-roberta", "sentence_xlnet")


@pytest.fixture(autouse=True)
def _fresh_log() -> None:
    log_once.warn_once.cache_clear()


@pytest.fixture
def folder(make_embedder, tmp_path: Path) -> Path:
    """A folder as sentence-transformers writes it, pooled by CLS."""
    save_embedder(make_embedder("bert", "cls"), tmp_path / "model")
    (tmp_path / "model" / CARD).unlink()
    return tmp_path / "model"


@pytest.fixture
def decoder(make_embedder, tmp_path: Path) -> Path:
    """A causal language model as transformers writes it: no modules.json."""
    embedder = make_embedder("llama", num_key_value_heads=1)
    embedder.backbone.config.is_causal = True
    embedder.backbone.save_pretrained(tmp_path / "decoder")
    embedder.tokenizer.save_pretrained(tmp_path / "decoder")
    edit(tmp_path / "decoder" / "config.json", architectures=["LlamaForCausalLM"])
    return tmp_path / "decoder"


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def move_module(folder: Path, index: int, path: str) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    if modules[index]["path"]:
        (folder / modules[index]["path"]).rename(folder / path)
    modules[index]["path"] = path
    (folder / "modules.json").write_text(json.dumps(modules))


def same_as_peer(folder: Path, texts: list[str], **peer: Any) -> None:
    theirs = SentenceTransformer(str(folder), device="cpu", **peer)
    np.testing.assert_allclose(
        load_embedder(folder).encode(texts), theirs.encode(texts, normalize_embeddings=True), atol=1e-5
    )


def test_pooling_is_read_from_the_path_that_modules_json_names(folder: Path, texts: list[str]) -> None:
    move_module(folder, 1, "pooling_of_mine")
    assert load_embedder(folder).spec.pooling == "cls"
    same_as_peer(folder, texts)


def test_a_module_without_its_config_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "1_Pooling")
    with pytest.raises(InputError, match=r"1_Pooling: .* it has no config.json"):
        load_embedder(folder)


def test_a_list_without_pooling_is_refused(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:1]))
    with pytest.raises(InputError, match="lists no Pooling module"):
        load_embedder(folder)
    assert load_embedder(folder, stated=Stated("cls")).spec.pooling == "cls"


@pytest.mark.parametrize(
    "config",
    [
        {"embedding_dimension": 32},
        {"word_embedding_dimension": 32, "pooling_mode_cls_token": False},
        {"word_embedding_dimension": 32, "pooling_mode": ["lasttoken"]},
    ],
)
def test_defaults_of_the_pooling_config_are_the_peers(
    folder: Path, texts: list[str], config: dict[str, Any]
) -> None:
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    same_as_peer(folder, texts)


@pytest.mark.parametrize("name", CONFIGS)
def test_old_names_of_the_transformers_settings_are_read(folder: Path, texts: list[str], name: str) -> None:
    (folder / "sentence_bert_config.json").rename(folder / f"{name}_config.json")
    edit(folder / "tokenizer.json", normalizer=None)
    edit(folder / f"{name}_config.json", max_seq_length=9, do_lower_case=True)
    for key in ("query_length", "document_length"):
        edit(folder / f"{name}_config.json", **{key: None})
    assert load_embedder(folder).spec.document_length == 9
    same_as_peer(folder, texts)


@pytest.mark.parametrize("name", CONFIGS[:2])
def test_a_layout_with_0_transformer_is_loaded_and_saved(
    folder: Path, texts: list[str], tmp_path: Path, name: str
) -> None:
    (folder / "0_Transformer").mkdir()
    kept = {"modules.json", "config_sentence_transformers.json", "README.md"}
    for file in [file for file in folder.iterdir() if file.is_file() and file.name not in kept]:
        target = file.name.replace("sentence_bert", name)
        file.rename(folder / "0_Transformer" / target)
    move_module(folder, 0, "0_Transformer")
    same_as_peer(folder, texts)
    embedder = load_embedder(folder)
    assert (embedder.spec.pooling, embedder.spec.document_length) == ("cls", 40)
    save_embedder(embedder, tmp_path / "again")
    again = SentenceTransformer(str(tmp_path / "again"), device="cpu")
    np.testing.assert_allclose(again.encode(texts), embedder.encode(texts), atol=1e-5)
    assert open_model(folder, Stated()) == ""


def test_an_encoder_without_modules_is_pooled_by_the_mean_with_a_warning(
    folder: Path, texts: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """As sentence-transformers does, which then reads no lengths either; stated, nothing is assumed."""
    (folder / "modules.json").unlink()
    texts = [*texts, texts[-1] * 3]  # longer than the 40 tokens that the folder's own settings name
    with caplog.at_level(logging.WARNING, logger="embedline"):
        same_as_peer(folder, texts)
    assert "mean pooling is assumed" in caplog.text
    assert str(folder) in caplog.text
    assert "mean pooling is assumed" in open_model(folder, Stated())
    caplog.clear()
    assert load_embedder(folder, stated=Stated("cls")).spec.pooling == "cls"
    assert open_model(folder, Stated("cls")) == ""
    assert not caplog.records


@pytest.mark.parametrize("longest", [20, 512])
def test_without_modules_the_tokenizer_gives_the_length(folder: Path, texts: list[str], longest: int) -> None:
    (folder / "modules.json").unlink()
    edit(folder / "tokenizer_config.json", model_max_length=longest)
    assert load_embedder(folder).spec.document_length == longest
    same_as_peer(folder, [texts[-1], texts[-1] * 3])


def test_a_decoder_without_modules_is_refused_until_pooling_and_mask_are_stated(decoder: Path) -> None:
    for stated, unknown in (
        (Stated(), "the pooling and the mask"),
        (Stated("last"), "do not say the mask"),
        (Stated(causal=True), "do not say the pooling"),
    ):
        for load in (lambda given: load_embedder(decoder, stated=given), lambda g: open_model(decoder, g)):
            with pytest.raises(InputError, match=unknown) as error:
                load(stated)
            assert "--pooling" in str(error.value)


def test_a_stated_causal_decoder_equals_the_peer(decoder: Path, texts: list[str]) -> None:
    """The peer's fallback for a *ForCausalLM is the last token, causal."""
    embedder = load_embedder(decoder, stated=Stated("last", causal=True))
    assert not is_bidirectional(embedder.backbone)
    peer = SentenceTransformer(str(decoder), device="cpu")
    assert peer[1].pooling_mode == "lasttoken"
    np.testing.assert_allclose(
        embedder.encode(texts[:2]), peer.encode(texts[:2], normalize_embeddings=True), atol=1e-5
    )


def test_a_stated_mask_is_set(decoder: Path, texts: list[str]) -> None:
    embedder = load_embedder(decoder, stated=Stated("mean", causal=False))
    assert is_bidirectional(embedder.backbone)
    edit(decoder / "config.json", is_causal=False)  # the folder says it: the pooling alone is unknown
    peer = SentenceTransformer(str(decoder), device="cpu")
    np.testing.assert_allclose(
        load_embedder(decoder, stated=Stated("mean")).encode(texts[:2]),
        peer.encode(texts[:2], normalize_embeddings=True),
        atol=1e-5,
    )
    with pytest.raises(InputError, match="do not say the pooling of"):
        load_embedder(decoder)


def test_a_statement_comes_before_modules_json(folder: Path, texts: list[str]) -> None:
    peer = SentenceTransformer(
        modules=[Transformer(str(folder), max_seq_length=40), Pooling(32, "mean")], device="cpu"
    )
    ours = load_embedder(folder, stated=Stated("mean"))
    np.testing.assert_allclose(ours.encode(texts), peer.encode(texts, normalize_embeddings=True), atol=1e-5)


def test_an_encoder_stated_as_causal_is_refused(folder: Path) -> None:
    for load in (load_embedder, lambda path, *, stated: open_model(path, stated)):
        with pytest.raises(InputError, match=r"is an encoder \(bert\): it has no causal mask"):
            load(folder, stated=Stated(causal=True))


def test_a_statement_about_embedlines_own_folder_is_refused(make_embedder, tmp_path: Path) -> None:
    save_embedder(make_embedder(), tmp_path)
    for load in (load_embedder, lambda path, *, stated: open_model(path, stated)):
        with pytest.raises(InputError, match="was written by Embedline"):
            load(tmp_path, stated=Stated("cls"))


def test_a_reranker_is_no_embedding_model(folder: Path) -> None:
    (folder / "modules.json").unlink()
    edit(folder / "config.json", architectures=["BertForSequenceClassification"])
    with pytest.raises(InputError, match="is a classifier or reranker"):
        load_embedder(folder)
    assert load_embedder(folder, as_base=True).spec.pooling == "mean"  # its layers can be trained


def test_a_language_model_as_a_base_says_what_is_assumed(decoder: Path) -> None:
    assert is_bidirectional(load_embedder(decoder, as_base=True).backbone)
    assumed = open_base(decoder, ModelConfig(base=str(decoder)))
    assert "mean pooling and a bidirectional mask is assumed" in assumed


def test_the_poolings_that_can_be_stated_are_those_of_the_peer() -> None:
    from typing import get_args

    from embedline.cli.shared import PoolingName
    from embedline.config.model import PlainPooling

    assert set(get_args(PlainPooling)) == {name.value for name in PoolingName} == ST_POOLINGS
