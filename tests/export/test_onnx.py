from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from embedline.export.onnx import export_onnx
from embedline.models.embedder import Embedder

# batch × sequence: one text, one token, odd and even, longer than any example the exporter saw
SHAPES = [(1, 1), (1, 17), (2, 2), (3, 7), (5, 64), (2, 131)]

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}


def _worst_difference(embedder: Embedder, graph: Path) -> float:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch, length in SHAPES:
        ids = torch.randint(5, 300, (batch, length), generator=generator)
        mask = torch.ones(batch, length, dtype=torch.int64)
        for row in range(1, batch):
            mask[row, max(1, length - row * length // batch) :] = 0
        found = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0]
        with torch.no_grad():
            expected = F.normalize(embedder(ids, mask), dim=-1).numpy()
        assert found.shape == expected.shape == (batch, embedder.width)
        worst = max(worst, float(np.abs(found - expected).max()))
    return worst


@pytest.mark.parametrize(
    ("architecture", "pooling", "settings"),
    [
        (
            "modernbert",
            "mean",
            {"layer_types": ["full_attention", "sliding_attention"], "local_attention": 8},
        ),
        ("bert", "cls", {"num_hidden_layers": 1}),
        ("nomic_bert", "mean", {"num_hidden_layers": 1}),
        ("xlm-roberta", "last", {"num_hidden_layers": 1}),
        ("qwen3_moe", "last", {"num_hidden_layers": 1, **EXPERTS}),
        (
            "gemma3_text",
            "mean",
            {"num_hidden_layers": 1, "layer_types": ["sliding_attention"], "sliding_window": 4},
        ),
    ],
)
def test_the_graph_gives_torchs_vectors_for_every_shape_and_padding(
    make_embedder, architecture, pooling, settings, tmp_path, capfd
):
    embedder = make_embedder(architecture, pooling, **settings).train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = export_onnx(embedder, tmp_path, 18)
    assert capfd.readouterr() == ("", "")
    assert embedder.training
    assert embedder.backbone.training
    assert _worst_difference(embedder.eval(), graph) < 1e-5


def test_the_graph_is_one_file_with_the_promised_names_and_opset(exported):
    graph = onnx.load(exported / "model.onnx")
    onnx.checker.check_model(graph)
    assert [i.name for i in graph.graph.input] == ["input_ids", "attention_mask"]
    assert [o.name for o in graph.graph.output] == ["sentence_embedding"]
    shapes = [[d.dim_param for d in i.type.tensor_type.shape.dim] for i in graph.graph.input]
    assert shapes == [["batch", "sequence"]] * 2
    assert [o.version for o in graph.opset_import if o.domain == ""] == [18]
    assert not list(exported.glob("*.data"))
