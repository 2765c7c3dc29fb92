"""Folders that are no transformer with a vocabulary and safetensors weights: each is named for what it is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW, StaticEmbedding
from transformers import AutoModel, CanineConfig, MambaConfig, T5Config, XLNetConfig

from embedline.config.model import ModelConfig
from embedline.errors import InputError
from embedline.models.backbone import prepare_backbone
from embedline.models.folder import CARD, load_embedder, save_embedder
from embedline.models.model_files import read_config
from embedline.models.opening import open_base, open_model
from embedline.models.resolve import resolve_model
from embedline.models.stated import Stated
from embedline.models.tokenizer import train_tokenizer

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
OPENERS: dict[str, Callable[[Path], Any]] = {
    "load": load_embedder,
    "open": lambda folder: open_model(folder, Stated()),
    "base": lambda folder: open_base(folder, ModelConfig(base=str(folder))),
}


@pytest.fixture(params=["bert", "xlm-roberta", "llama"])
def any_folder(request: pytest.FixtureRequest, make_embedder, tmp_path: Path) -> Path:
    save_embedder(make_embedder(request.param), tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def folder(make_embedder, tmp_path: Path) -> Path:
    save_embedder(make_embedder("bert"), tmp_path / "model")
    (tmp_path / "model" / CARD).unlink()
    return tmp_path / "model"


def architecture(config: Any, folder: Path, **tokenizer_config: Any) -> Path:
    """Write a random model and a tokenizer_config.json."""
    AutoModel.from_config(config).save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    return folder


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("files", [TOKENIZER_FILES, TOKENIZER_FILES[:1]], ids=["none", "no vocabulary"])
def test_a_folder_without_a_vocabulary_is_refused(
    any_folder: Path, files: tuple[str, ...], opener: str
) -> None:
    for name in files:
        (any_folder / name).unlink(missing_ok=True)
    with pytest.raises(InputError, match="has no tokenizer") as error:
        OPENERS[opener](any_folder)
    assert str(any_folder) in str(error.value)


@pytest.mark.parametrize("opener", OPENERS)
def test_a_vocabulary_far_smaller_than_the_table_is_refused(make_embedder, folder: Path, opener: str) -> None:
    """A table of 768 rows, and 375 tokens: another model's tokenizer."""
    make_embedder("bert", vocab_size=768).backbone.save_pretrained(folder)
    with pytest.raises(InputError, match=r"the tokenizer has \d+ tokens, the model embeds 768"):
        OPENERS[opener](folder)


def test_spare_rows_of_a_padded_table_are_no_fault(make_embedder, folder: Path) -> None:
    make_embedder("bert", vocab_size=640).backbone.save_pretrained(folder)
    assert load_embedder(folder).encode(["почта"]).shape == (1, 32)
    OPENERS["base"](folder)


def test_loading_prints_nothing(folder: Path) -> None:
    """Transformers would print a progress bar, and a table about the pooler that nothing uses."""
    backbone = AutoModel.from_pretrained(folder, add_pooling_layer=False)
    backbone.save_pretrained(folder)
    program = (
        "import sys; from pathlib import Path; from embedline.models.folder import load_embedder; "
        "load_embedder(Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_an_adapter_is_named_with_its_base(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/large"}')
    (folder / "adapter_model.safetensors").write_bytes(b"")
    for load in (*OPENERS.values(), resolve_model):
        with pytest.raises(InputError, match=r"an adapter \(LoRA\) for org/large") as error:
            load(folder if load is not resolve_model else str(folder))  # type: ignore[arg-type]
        assert "merge_and_unload" in str(error.value)
    (folder / "config.json").unlink()  # as peft saves it
    with pytest.raises(InputError, match="an adapter"):
        read_config(folder)


def test_a_static_model_is_named(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["the printer does not answer"], 320)
    static = StaticEmbedding(tokenizer.backend_tokenizer, embedding_dim=8)
    SentenceTransformer(modules=[static], device="cpu").save_pretrained(str(tmp_path / "st"))
    (tmp_path / "m2v").mkdir()
    (tmp_path / "m2v" / "config.json").write_text(
        '{"model_type": "model2vec", "architectures": ["StaticModel"]}'
    )
    for name in ("st", "m2v"):
        for load in OPENERS.values():
            with pytest.raises(InputError, match="is a static model"):
                load(tmp_path / name)


def test_a_model_without_a_transformer_is_named(tmp_path: Path) -> None:
    words = BoW(["printer", "mail"])
    SentenceTransformer(modules=[words], device="cpu").save_pretrained(str(tmp_path))
    with pytest.raises(InputError, match=r"has no Transformer among its modules \(BoW\)"):
        load_embedder(tmp_path)


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("pytorch_model.bin", "pickled weights"),
        ("onnx/model.onnx", "an ONNX"),
        ("tf_model.h5", "TensorFlow"),
        ("model.gguf", "GGUF"),
    ],
)
def test_weights_in_another_form_are_named(folder: Path, file: str, named: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(b"never read")
    for load in OPENERS.values():
        with pytest.raises(InputError, match=f"has no safetensors weights.* It has {named}") as error:
            load(folder)
        assert "refs/pr" in str(error.value)


@pytest.mark.parametrize("kind", ["CrossEncoder", "SparseEncoder"])
def test_another_kind_of_sentence_transformers_model_is_named(folder: Path, kind: str) -> None:
    file = folder / "config_sentence_transformers.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": kind}))
    for load in OPENERS.values():
        with pytest.raises(InputError, match=f"is a {kind} of sentence-transformers"):
            load(folder)


def test_a_tokenizer_in_python_only_is_refused_as_a_base_and_taken_as_a_teacher(tmp_path: Path) -> None:
    config = T5Config(d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, vocab_size=384)
    architecture(config, tmp_path, tokenizer_class="ByT5Tokenizer")
    with pytest.raises(InputError, match="its tokenizer ByT5Tokenizer exists in Python only"):
        open_base(tmp_path, ModelConfig(base=str(tmp_path)))
    embedder = load_embedder(tmp_path)
    with pytest.raises(InputError, match="its tokenizer ByT5Tokenizer exists in Python only"):
        prepare_backbone(embedder.backbone, embedder.tokenizer, ModelConfig(base="x"))
    peer = SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(
        embedder.encode(["Hello"]), peer.encode(["Hello"], normalize_embeddings=True), atol=1e-5
    )


def test_a_phobert_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("".join(f"w{i} {i}\n" for i in range(370)))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PhobertTokenizer"}')
    with pytest.raises(InputError, match="its tokenizer PhobertTokenizer cannot be loaded"):
        OPENERS["base"](folder)
    (folder / "bpe.codes").write_text("w 0 1\n")
    with pytest.raises(InputError, match="its tokenizer PhobertTokenizer exists in Python only"):
        OPENERS["base"](folder)


def test_a_japanese_tokenizer_is_named_with_the_package_that_it_needs(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "水"]))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "mecab"}'
    )
    with pytest.raises(InputError, match=r"BertJapaneseTokenizer cannot be loaded .*fugashi"):
        OPENERS["base"](folder)


def test_canine_is_named_for_its_missing_token_table(tmp_path: Path) -> None:
    config = CanineConfig(**SIZES, num_hash_functions=8, num_hash_buckets=64, local_transformer_stride=16)
    architecture(config, tmp_path, tokenizer_class="CanineTokenizer")
    for load in OPENERS.values():
        with pytest.raises(InputError, match="canine has no table of token embeddings"):
            load(tmp_path)


def test_xlnet_has_no_bound_on_its_positions(tmp_path: Path, texts: list[str]) -> None:
    """Its config's max_position_embeddings is -1."""
    tokenizer = train_tokenizer(texts, 320)
    config = XLNetConfig(d_model=32, n_layer=2, n_head=2, d_inner=64, vocab_size=320, pad_token_id=0)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert "bidirectional mask is assumed" in OPENERS["base"](tmp_path)
    embedder = load_embedder(tmp_path, stated=Stated("mean", causal=False))
    assert embedder.spec.document_length == 512
    peer = SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(
        embedder.encode(texts[:2]), peer.encode(texts[:2], normalize_embeddings=True), atol=1e-4
    )


def test_opening_reads_no_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All weights stay on torch's meta device; a missing one is found by its name all the same."""
    from embedline.models.parts import load_parts

    parts = load_parts(folder, weights=False)
    assert {weight.device.type for weight in parts.backbone.parameters()} == {"meta"}
    shutil.copy(folder / "config.json", folder / "config.bak")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"num_hidden_layers": 3}))
    with pytest.raises(InputError, match=r"lacks \d+ weights, encoder.layer.2"):
        OPENERS["base"](folder)
    (folder / "config.json").write_text(json.dumps(values | {"intermediate_size": 128}))
    with pytest.raises(InputError, match="cannot be loaded"):
        OPENERS["base"](folder)


def test_a_base_that_stays_causal_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["the printer does not answer"], 320)
    config = MambaConfig(hidden_size=16, num_hidden_layers=2, state_size=4, vocab_size=320, pad_token_id=0)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for load in (OPENERS["base"], lambda folder: load_embedder(folder, as_base=True)):
        with pytest.raises(InputError, match="stays causal"):
            load(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "settings", "message"),
    [
        ("modernbert", {"positions": 1024}, "modernbert has no learned positions to extend"),
        ("bert", {"document_length": 600}, "has positions for 512"),
        ("bert", {"document_length": 600, "positions": 1024}, ""),
        ("bert", {"dims": [64]}, "64 is larger than the model's width 32"),
        ("bert", {"pooling": "latent", "latent": {"heads": 5}}, "not a multiple of 5 heads"),
        ("bert", {"pooling": "latent", "latent": {"heads": 2, "latents": 8}}, ""),
        ("llama", {"pooling": "last"}, ""),
    ],
)
def test_a_base_that_does_not_fit_the_run_is_refused_before_it(
    make_embedder, tmp_path: Path, architecture: str, settings: dict[str, Any], message: str
) -> None:
    save_embedder(make_embedder(architecture), tmp_path)
    model = ModelConfig.model_validate({"base": str(tmp_path), **settings})
    if message:
        with pytest.raises(InputError, match=message):
            open_base(tmp_path, model)
    else:
        assert open_base(tmp_path, model) == ""
