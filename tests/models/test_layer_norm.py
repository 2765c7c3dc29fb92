"""Nomic Embed's layer norm is a part of the model: every loader cuts normed vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from embedline.models.embedder import Embedder
from embedline.models.folder import load_embedder, save_embedder


def normed_twin(embedder: Embedder) -> Embedder:
    return embedder.with_spec(replace(embedder.spec, layer_norm=True)).eval()


@pytest.mark.parametrize("pooling", ["mean", "latent"])
def test_every_loader_gives_the_normed_vectors(
    make_embedder, texts: list[str], tmp_path: Path, pooling: str
) -> None:
    """Compare with the norm's definition, and with sentence-transformers cut to 8 dims."""
    plain = make_embedder("modernbert", pooling=pooling)
    embedder = normed_twin(plain)
    raw = plain.encode(texts, normalize=False).astype(np.float64)
    normed = (raw - raw.mean(1, keepdims=True)) / np.sqrt(raw.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(embedder.encode(texts, normalize=False), normed, atol=1e-5)

    save_embedder(embedder, tmp_path)
    again = load_embedder(tmp_path)
    assert again.spec.layer_norm
    np.testing.assert_allclose(again.encode(texts, normalize=False), normed, atol=1e-5)
    peer = SentenceTransformer(str(tmp_path), trust_remote_code=True, truncate_dim=8)
    unit = normed / np.linalg.norm(normed, axis=1, keepdims=True)
    np.testing.assert_allclose(peer.encode(texts), unit[:, :8], atol=1e-5)


def test_a_norm_is_another_index_version_over_the_same_weights(make_embedder, tmp_path: Path) -> None:
    save_embedder(make_embedder("modernbert"), tmp_path / "plain")
    save_embedder(normed_twin(make_embedder("modernbert")), tmp_path / "normed")
    versions = {
        (tmp_path / name / "embedline.json").read_text().split("index_version")[1][:24]
        for name in ("plain", "normed")
    }
    assert len(versions) == 2


def test_a_common_component_does_not_dominate_a_prefix(make_embedder, texts: list[str]) -> None:
    """Vectors that share a large offset look alike; after the norm their differences decide."""
    embedder = normed_twin(make_embedder("modernbert"))
    run = embedder._run
    embedder._run = lambda ids, mask: run(ids, mask) + 10
    shifted = embedder.encode(texts[:2])
    embedder._run = run
    np.testing.assert_allclose(shifted, embedder.encode(texts[:2]), atol=1e-4)
