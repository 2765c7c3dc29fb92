"""Every head in the graph, in the runtime and in parity."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from embedline.config.model import DynamicNTK
from embedline.errors import StepError
from embedline.export.onnx import export_onnx
from embedline.export.parity import measure_parity
from embedline.export.parity_result import HeadLimits
from embedline.export.runtime import OnnxEmbedder
from embedline.models.head_vectors import encode_heads
from embedline.models.rope import apply_dynamic_ntk

ALL = ("dense", "lexical", "multi_vector")
EVERY = 8  # of mcls in these models
# one token, around one and two blocks of mcls, longer than anything that the exporter saw
SHAPES = [
    (1, 1),
    (3, 1),
    (1, EVERY),
    (2, EVERY + 1),
    (1, EVERY + 2),
    (3, 2 * EVERY + 1),
    (2, 2 * EVERY + 3),
    (4, 131),
]


def _graph_against_torch(embedder, folder):
    """The worst difference of any head, over shapes and padding; the shapes must be the same."""
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch, length in SHAPES:
        ids = torch.randint(5, 300, (batch, length), generator=generator)
        ids[:, 0] = embedder.tokenizer.cls_token_id
        mask = torch.ones(batch, length, dtype=torch.int64)
        for row in range(1, batch):
            mask[row, max(1, length - row * length // batch) :] = 0
        found = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        with torch.no_grad():
            dense, *others = embedder.represent(ids, mask)
        expected = [F.normalize(dense, dim=-1), *(part for part in others if part is not None)]
        assert [part.shape for part in found] == [tuple(part.shape) for part in expected]
        worst = max(
            worst, *(float(np.abs(a - b.numpy()).max()) for a, b in zip(found, expected, strict=True))
        )
    return [output.name for output in session.get_outputs()], worst


@pytest.mark.parametrize(
    ("architecture", "pooling", "heads"),
    [
        ("modernbert", "mcls", ALL),
        ("bert", "latent", ("dense", "lexical")),
    ],
)
def test_the_graph_has_the_models_heads_and_no_others_at_every_length(
    make_heads, architecture, pooling, heads, tmp_path
):
    embedder = make_heads(architecture, pooling, heads, num_hidden_layers=1)
    export_onnx(embedder, tmp_path, 18)
    names, worst = _graph_against_torch(embedder, tmp_path)
    of = {"dense": "sentence_embedding", "lexical": "lexical_weights", "multi_vector": "token_vectors"}
    assert names == [of[head] for head in heads]
    assert worst < 1e-5
    card = json.loads((tmp_path / "embedline.json").read_text(encoding="utf-8"))
    assert card["heads"] == list(heads)
    assert card["hybrid"] == {"dense": 1.0, "lexical": 0.25, "multi_vector": 1.0}


@pytest.mark.parametrize(("architecture", "pooling"), [("nomic_bert", "mean"), ("modernbert", "mcls")])
def test_dynamic_ntk_is_in_the_graph_row_by_row(make_heads, architecture, pooling, tmp_path):
    embedder = make_heads(architecture, pooling, ("dense",), num_hidden_layers=1)
    apply_dynamic_ntk(embedder.backbone, DynamicNTK(factor=2.0, trained_length=16))
    export_onnx(embedder, tmp_path, 18)
    assert _graph_against_torch(embedder, tmp_path)[1] < 1e-5


def test_the_runtime_gives_each_heads_vectors_as_torch_does(exported_heads, with_heads, texts):
    runtime = OnnxEmbedder(exported_heads, threads=1)
    assert runtime.heads == ALL
    assert runtime.hybrid["lexical"] == 0.25
    for batch_tokens in (1, 8192):
        how = {"prompt": "search_query: ", "max_length": 20, "batch_tokens": batch_tokens}
        found, expected = runtime.encode_heads(texts, **how), encode_heads(with_heads, texts, **how)
        np.testing.assert_allclose(found.dense, expected.dense, atol=1e-5)
        np.testing.assert_allclose(found.dense, runtime.encode(texts, **how), atol=1e-6)
        for ours, theirs in zip(found.lexical, expected.lexical, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5)
        for ours, theirs in zip(found.tokens, expected.tokens, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_terms_have_their_tokens_largest_weight_without_special_tokens(with_heads, texts):
    found = encode_heads(with_heads, texts, max_length=48)
    special = set(with_heads.tokenizer.all_special_ids)
    rows = with_heads.tokenize(texts, max_length=48)
    assert any(found.lexical)
    for row, terms, tokens in zip(rows, found.lexical, found.tokens, strict=True):
        encoded = with_heads.represent(**with_heads.pad([row]))
        weights = encoded.lexical[0].tolist()
        by_hand = {t: max(w for i, w in zip(row, weights, strict=True) if i == t) for t in set(row) - special}
        assert terms == pytest.approx({t: w for t, w in by_hand.items() if w > 0}, abs=1e-6)
        assert tokens.shape == (len(row) - 1, 24)
        np.testing.assert_allclose(np.linalg.norm(tokens, axis=1), 1, atol=1e-5)


def test_a_dense_model_has_no_other_heads(exported, exported_heads):
    found = OnnxEmbedder(exported).encode_heads(["a", "b"])
    assert (found.dense.shape, found.lexical, found.tokens) == ((2, 64), None, None)
    empty = OnnxEmbedder(exported_heads).encode_heads([])
    assert (empty.dense.shape, empty.lexical, empty.tokens) == ((0, 64), [], [])


_WITHOUT_TORCH = """
import sys
from pathlib import Path
from embedline.export.runtime import OnnxEmbedder
found = OnnxEmbedder(Path(sys.argv[1]), "int8", threads=1).encode_heads(["привет", "hello"])
assert len(found.lexical) == len(found.tokens) == 2
print(sorted({"torch", "transformers", "kfp", "mlflow"} & set(sys.modules)))
"""


def test_heads_need_neither_torch_nor_transformers(exported_heads):
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, str(exported_heads)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_parity_has_an_entry_a_head_and_each_can_fail_it(exported_heads, with_heads, texts):
    parity = measure_parity(with_heads, exported_heads, texts, min_cosine={"fp32": 0.9999, "int8": 0.9})
    assert parity.passed
    variants = parity.as_dict()["variants"]
    assert all(list(variant["heads"]) == list(ALL) for variant in variants.values())
    fp32, int8 = (parity.variants[name].heads for name in ("fp32", "int8"))
    assert fp32["lexical"].value < 1e-4 < int8["lexical"].value
    assert fp32["multi_vector"].value > 0.99999 > int8["multi_vector"].value
    assert (fp32["dense"].value, fp32["dense"].threshold) == (parity.variants["fp32"].worst_cosine, 0.9999)
    for limits, failing in ((HeadLimits(1.0, 0.5), "multi_vector"), (HeadLimits(0.5, 1e-6), "lexical")):
        parity = measure_parity(
            with_heads, exported_heads, texts, min_cosine={"int8": 0.9}, limits={"int8": limits}
        )
        assert not parity.passed
        heads = parity.variants["int8"].heads
        assert [name for name, head in heads.items() if not head.passed] == [failing]


def test_a_lexical_weight_that_is_not_finite_stops_the_step(exported_heads, with_heads, texts, tmp_path):
    folder = shutil.copytree(exported_heads, tmp_path / "onnx")
    graph = onnx.load(folder / "model.onnx")
    (bias,) = [t for t in graph.graph.initializer if t.name.endswith("lexical.weigh.bias")]
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(bias.dims, np.inf, np.float32), bias.name))
    onnx.save(graph, folder / "model.onnx")
    with pytest.raises(StepError, match=r"model.onnx gives a vector that is not finite"):
        measure_parity(with_heads, folder, texts, min_cosine={"fp32": 0.9})
