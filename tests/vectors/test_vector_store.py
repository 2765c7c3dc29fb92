"""Vectors kept on disk: found by key, whole or absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedline.vectors.vector_store import VectorStore, key_of

KEYS = [key_of(f"text {i}", "query: ") for i in range(7)]
VECTORS = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)


def filled(folder: Path) -> VectorStore:
    store = VectorStore(folder)
    store.add(KEYS[:3], VECTORS[:3])
    store.add(KEYS[3:], VECTORS[3:])
    store.open()
    return store


def test_vectors_are_read_in_any_order_from_several_shards(tmp_path: Path) -> None:
    store, order = filled(tmp_path), [6, 0, 3, 3, 2]
    np.testing.assert_allclose(store.read(KEYS[i] for i in order), VECTORS[order], rtol=1e-3)
    assert len(store) == 7
    assert all(key in store for key in KEYS)
    assert key_of("text 0", "passage: ") not in store
    with pytest.raises(KeyError):
        store.read([KEYS[0], key_of("other", "query: ")])


def test_an_empty_store_holds_nothing(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "none")
    assert len(store) == 0
    assert KEYS[0] not in store


def test_a_text_is_not_mistaken_for_its_prompt() -> None:
    assert key_of("b", "a") != key_of("ab", "")
    assert key_of("1\nx", "") != key_of("x", "1\n")


@pytest.mark.parametrize("damage", ["cut", "changed", "no vectors", "no keys"])
def test_a_damaged_shard_counts_as_absent_and_can_be_written_again(tmp_path: Path, damage: str) -> None:
    filled(tmp_path)
    vectors = sorted(tmp_path.glob("*.vectors.npy"))[0]
    keys = vectors.with_name(vectors.name.replace("vectors", "keys"))
    lost = np.load(keys).tolist()
    raw = vectors.read_bytes()
    if damage == "cut":
        vectors.write_bytes(raw[:-4])
    elif damage == "changed":
        vectors.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    else:
        (vectors if damage == "no vectors" else keys).unlink()
    store = VectorStore(tmp_path)
    assert {key for key in KEYS if key not in store} == set(lost)
    store.add(lost, VECTORS[[KEYS.index(key) for key in lost]])
    store.open()
    np.testing.assert_allclose(store.read(KEYS), VECTORS, rtol=1e-3)


def test_a_vector_written_twice_is_one(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.add(KEYS[2:5], VECTORS[2:5])
    store.open()
    assert len(store) == 7
