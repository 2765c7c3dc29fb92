"""The untrained twin differs from its model in nothing but the weights."""

import numpy as np
import torch

from embedline.config.model import DynamicNTK
from embedline.evaluation.untrained import untrained_twin
from embedline.models.backbone import new_backbone
from embedline.models.bidirectional import is_bidirectional
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.folder import load_embedder, save_embedder
from embedline.models.rope import apply_dynamic_ntk
from embedline.models.rotary import RowwiseRotary
from embedline.models.tokenizer import train_tokenizer

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def test_untrained_twin_keeps_attention_positions_pooling_and_heads(tmp_path):
    tokenizer = train_tokenizer(["как сбросить пароль", "reset"], 320)
    backbone = new_backbone("llama", SIZES, tokenizer, 1)
    apply_dynamic_ntk(backbone, DynamicNTK(factor=2.0, trained_length=16))
    spec = EmbedderSpec("last", heads=("dense", "lexical"), query_length=8, document_length=64)
    save_embedder(Embedder(backbone, tokenizer, spec), tmp_path)
    model, twin = load_embedder(tmp_path), untrained_twin(tmp_path)
    assert is_bidirectional(twin.backbone)
    assert any(isinstance(module, RowwiseRotary) for module in twin.backbone.modules())
    assert twin.spec == model.spec
    ours, theirs = model.state_dict(), twin.state_dict()
    assert ours.keys() == theirs.keys()
    assert not all(torch.equal(ours[name], theirs[name]) for name in ours)
    again = untrained_twin(tmp_path)
    np.testing.assert_array_equal(twin.encode(["пароль"]), again.encode(["пароль"]))
