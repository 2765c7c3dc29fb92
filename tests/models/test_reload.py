from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from embedline.config.model import DynamicNTK, ModelConfig
from embedline.errors import InputError
from embedline.models.backbone import new_backbone, prepare_backbone
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.folder import save_embedder
from embedline.models.reload import require_described, require_same_after_reload
from embedline.models.tokenizer import train_tokenizer

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TOKENIZER = train_tokenizer(["пароль", "printer"], 384)


def _embedder(architecture: str, **settings: Any) -> Embedder:
    backbone = new_backbone(architecture, {**SIZES, **settings}, TOKENIZER, 0)
    return Embedder(backbone, TOKENIZER, EmbedderSpec(document_length=48)).eval()


@pytest.mark.parametrize(
    ("architecture", "settings", "change"),
    [
        ("mistral", {"sliding_window": 4}, {}),
        ("modernbert-decoder", {"local_attention": 8, "layer_types": ["sliding_attention"] * 2}, {}),
        ("xlm-roberta", {"max_position_embeddings": 34}, {"positions": 64}),
        ("llama", {}, {"dynamic_ntk": DynamicNTK(factor=2.0, trained_length=16)}),
    ],
)
def test_changes_that_the_config_stores_pass(architecture: str, settings: dict, change: dict) -> None:
    embedder = _embedder(architecture, **settings)
    prepare_backbone(embedder.backbone, TOKENIZER, ModelConfig(architecture=architecture, **change))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    require_described(embedder, "here", "Do that.")
    assert torch.equal(torch.rand(3), expected), "the random state advanced"
    assert not any(p.is_meta for p in embedder.parameters())


def test_a_change_that_the_config_does_not_store_is_refused(tmp_path: Path) -> None:
    embedder = _embedder("llama", initializer_range=0.5)
    embedder.backbone.layers[0].self_attn.scaling *= 3
    save_embedder(embedder, tmp_path)
    with pytest.raises(InputError, match=r"llama would be another model.*cosine of 0\.") as error:
        require_described(embedder, "model.base", "Do that.")
    assert (error.value.where, error.value.fix) == ("model.base", "Do that.")
    with pytest.raises(InputError, match=r"llama would be another model.*cosine of 0\."):
        require_same_after_reload(embedder, tmp_path, "prune.when", "Do that.")


def test_a_saved_folder_that_lacks_something_is_refused(tmp_path: Path) -> None:
    embedder = _embedder("llama")
    save_embedder(embedder, tmp_path)
    require_same_after_reload(embedder, tmp_path, "prune.when", "Do that.")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(InputError, match=r"llama would be another model.*lacks \d+ weights"):
        require_same_after_reload(embedder, tmp_path, "prune.when", "Do that.")
