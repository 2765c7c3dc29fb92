"""Latent attention and MCLS against slow transcriptions of the papers: loops over tokens, float64."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from embedline.models.embedder import EmbedderSpec
from embedline.models.folder import load_embedder, save_embedder
from embedline.models.pooling import LatentAttention

Array = np.ndarray


def softmax(scores: list[float]) -> list[float]:
    weights = [math.exp(score - max(scores)) for score in scores]
    return [weight / sum(weights) for weight in weights]


def layer_norm(row: Array, gain: Array, bias: Array) -> Array:
    centred = row - row.mean()
    return centred / math.sqrt((centred**2).mean() + 1e-5) * gain + bias


def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def nv_embed(states: list[Array], p: dict[str, Array], heads: int) -> Array:
    """NV-Embed (arXiv:2405.17428), section 3.1.

    Equation 1: O = softmax(Q Kᵀ) V, where Q are the l states of a text's tokens and K = V the r latents, in
    `heads` heads; "followed by a regular MLP consists of two linear transformations with a GELU activation
    in between", then mean pooling. From the authors' code (modeling_nvembed.py): PreNorm before each of the
    two, of the queries and of the latents, a residual around each, projections without bias, scale 1/√d.
    """
    width = len(states[0])
    part = width // heads
    latents = [layer_norm(row, p["latent_norm.weight"], p["latent_norm.bias"]) for row in p["latents_RD"]]
    keys = [p["key.weight"] @ row for row in latents]
    values = [p["value.weight"] @ row for row in latents]
    pooled = np.zeros(width)
    for state in states:
        query = p["query.weight"] @ layer_norm(state, p["state_norm.weight"], p["state_norm.bias"])
        seen = np.zeros(width)
        for head in range(heads):
            its = slice(head * part, (head + 1) * part)
            weights = softmax([float(query[its] @ key[its]) / math.sqrt(part) for key in keys])
            for weight, value in zip(weights, values, strict=True):
                seen[its] += weight * value[its]
        output = p["output.weight"] @ seen + state
        inner = (
            p["mlp.0.weight"] @ layer_norm(output, p["mlp_norm.weight"], p["mlp_norm.bias"]) + p["mlp.0.bias"]
        )
        outer = p["mlp.2.weight"] @ np.array([gelu(x) for x in inner]) + p["mlp.2.bias"]
        pooled += (outer + output) / len(states)
    return pooled


@pytest.mark.parametrize(("width", "latents", "heads"), [(8, 5, 1), (12, 7, 3), (16, 1, 4), (8, 20, 8)])
def test_latent_attention_equals_the_paper(width: int, latents: int, heads: int) -> None:
    torch.manual_seed(0)
    module = LatentAttention(width, latents, heads).double()
    with torch.no_grad():  # norms that are not the identity
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    lengths = [6, 1, 3]
    states = torch.randn(3, 6, width, dtype=torch.float64) * 2
    mask = torch.tensor([[1] * n + [0] * (6 - n) for n in lengths])
    weights = {name: weight.detach().numpy() for name, weight in module.named_parameters()}
    pooled = module(states, mask).detach().numpy()
    for row, length in enumerate(lengths):
        expected = nv_embed(list(states[row, :length].numpy()), weights, heads)
        np.testing.assert_allclose(pooled[row], expected, rtol=1e-6, atol=1e-6)


def m3_mcls(backbone: PreTrainedModel, ids: list[int], every: int) -> Array:
    """M3-Embedding (arXiv:2402.03216), section 3.3 and appendix: multiple CLS.

    "We insert a [CLS] token for every fixed number of tokens … the final text embedding is obtained by
    averaging the last hidden states of all [CLS] tokens". `ids` begin with the tokenizer's own one.
    """
    cls, rest = ids[0], ids[1:]
    row: list[int] = []
    marks: list[int] = []
    for number, token in enumerate(rest):
        if number % every == 0:
            marks.append(len(row))
            row.append(cls)
        row.append(token)
    with torch.no_grad():
        [states] = backbone.double()(torch.tensor([row])).last_hidden_state.numpy()
    backbone.float()
    total = np.zeros(states.shape[1])
    for mark in marks:
        total += states[mark]
    return total / len(marks)


@pytest.mark.parametrize("architecture", ["modernbert", "nomic_bert", "bert", "xlm-roberta"])
@pytest.mark.parametrize("every", [3, 8, 100])
def test_mcls_equals_the_paper(make_embedder, texts: list[str], architecture: str, every: int) -> None:
    spec = EmbedderSpec("mcls", mcls_every=every, document_length=60)
    embedder = make_embedder(architecture, spec=spec)
    ids = embedder.tokenize([*texts, " ".join(texts)], max_length=60)
    with torch.no_grad():
        pooled = embedder(**embedder.pad(ids)).numpy()
    for row, vector in zip(ids, pooled, strict=True):
        np.testing.assert_allclose(vector, m3_mcls(embedder.backbone, row, every), rtol=1e-5, atol=2e-6)


def test_mcls_on_a_model_trained_with_its_first_cls(make_embedder, texts: list[str], tmp_path: Path) -> None:
    """M3 uses MCLS "without training": another pooling of the same weights, saved as its own model."""
    made = make_embedder("xlm-roberta", spec=EmbedderSpec("cls", document_length=60))
    save_embedder(made, tmp_path / "cls")
    plain = load_embedder(tmp_path / "cls")
    mcls = load_embedder(tmp_path / "cls", spec=replace(plain.spec, pooling="mcls", mcls_every=4))
    save_embedder(mcls, tmp_path / "mcls")
    again = load_embedder(tmp_path / "mcls").eval()
    ids = plain.tokenize([*texts, " ".join(texts)], max_length=60)
    with torch.no_grad():
        pooled = again(**again.pad(ids)).numpy()
    for row, vector in zip(ids, pooled, strict=True):
        np.testing.assert_allclose(vector, m3_mcls(made.backbone, row, 4), rtol=1e-5, atol=2e-6)


def test_mcls_of_a_text_shorter_than_a_block_is_its_cls(make_embedder, texts: list[str]) -> None:
    mcls = make_embedder(spec=EmbedderSpec("mcls", mcls_every=256, document_length=60))
    cls = make_embedder(spec=EmbedderSpec("cls", document_length=60))
    np.testing.assert_allclose(mcls.encode(texts), cls.encode(texts), atol=1e-6)
