"""MinHash against Jaccard computed the slow way, and groups that do not depend on the order of rows."""

from __future__ import annotations

import random
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedline.data import dedup
from embedline.data.dedup import bands, representatives, signatures

WORDS = [f"слово{i}" for i in range(400)]


def shingles(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def jaccard(a: str, b: str) -> float:
    return len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))


def variations(count: int, seed: int = 0) -> list[str]:
    """Texts of 120 words, each in a few versions with up to 12 words changed."""
    rng = random.Random(seed)
    texts = []
    for _ in range(count):
        base = rng.choices(WORDS, k=120)
        for changes in (0, 0, 1, 3, 12):
            version = list(base)
            for place in rng.sample(range(120), changes):
                version[place] = rng.choice(WORDS)
            texts.append(" ".join(version))
    rng.shuffle(texts)
    return texts


def groups(found: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(found == root).tolist()) for root in np.unique(found)}


def test_equal_hashes_estimate_the_jaccard_similarity() -> None:
    texts = variations(12)
    found = signatures(texts, 256)[:, 0]
    errors = [
        float((found[i] == found[j]).mean()) - jaccard(texts[i], texts[j])
        for i in range(len(texts))
        for j in range(i)
    ]
    assert max(map(abs, errors)) < 0.15  # five standard deviations of the estimate at its widest
    assert abs(float(np.mean(errors))) < 0.01


def test_near_duplicates_are_those_that_brute_force_finds() -> None:
    texts = variations(40)
    found = representatives(signatures(texts, 128), 0.8)
    for i in range(len(texts)):
        for j in range(i):
            similarity = jaccard(texts[i], texts[j])
            if similarity >= 0.93:
                assert found[i] == found[j], similarity
            if similarity <= 0.1:
                assert found[i] != found[j], similarity
    assert all(found[found[i]] == found[i] <= i for i in range(len(texts)))


def test_lsh_finds_what_comparing_every_pair_of_signatures_finds() -> None:
    hashed = signatures(variations(40, seed=3), 64)
    near = (hashed[:, None] == hashed[None]).mean(axis=3).min(axis=2) >= 0.9
    while True:  # the closure of "near", by squaring
        wider = near | (near.astype(int) @ near.astype(int) > 0)
        if (wider == near).all():
            break
        near = wider
    assert (representatives(hashed, 0.9) == near.argmax(axis=1)).all()


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False))
def test_groups_do_not_depend_on_the_order_of_rows(rng: random.Random) -> None:
    hashed = signatures(variations(8, seed=1), 64)
    order = list(range(len(hashed)))
    rng.shuffle(order)
    shuffled = representatives(hashed[order], 0.9)
    renamed = {frozenset(order[i] for i in group) for group in groups(shuffled)}
    assert renamed == groups(representatives(hashed, 0.9))


def union_find(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    """The first member of each row's group, one pair after another."""
    parent = list(range(count))

    def root(row: int) -> int:
        while parent[row] != row:
            row = parent[row]
        return row

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return [root(row) for row in range(count)]


@settings(deadline=None)
@given(st.data(), st.integers(1, 30), st.integers(1, 50))
def test_connected_groups_are_those_of_a_union_find(data: st.DataObject, count: int, in_memory: int) -> None:
    row = st.integers(0, count - 1)
    pairs = data.draw(st.lists(st.tuples(row, row), max_size=60))
    blocks = [np.array(pairs[i : i + 3], np.int64).reshape(-1, 2) for i in range(0, len(pairs), 3)]
    with mock.patch.object(dedup, "MAX_PAIRS", in_memory):
        group = dedup._connected(count, blocks)
    first = [int(np.flatnonzero(group == number)[0]) for number in group]
    assert first == union_find(count, pairs)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 25), st.sampled_from([0.5, 0.75, 1.0]))
def test_representatives_are_those_of_a_union_find(seed: int, count: int, threshold: float) -> None:
    hashed = np.random.default_rng(seed).integers(0, 2, (count, 2, 8)).astype(np.uint32)
    near = (hashed[:, None] == hashed[None]).mean(axis=3).prod(axis=2) >= threshold**2 - 1e-9
    count_of_bands, rows = bands(16, threshold)
    flat = hashed.transpose(0, 2, 1).reshape(count, -1)[:, : count_of_bands * rows]
    banded = flat.reshape(count, count_of_bands, rows)
    shared = (banded[:, None] == banded[None]).all(axis=3).any(axis=2)
    pairs = [(int(a), int(b)) for a, b in np.argwhere(near & shared)]
    assert representatives(hashed, threshold).tolist() == union_find(count, pairs)


def test_a_row_whose_sides_are_not_all_alike_is_no_duplicate() -> None:
    passage = " ".join(WORDS[:100])
    queries = ["как сохранить файл", "как удалить файл", "как сохранить файл"]
    sides = [signatures(queries, 64), signatures([passage] * 3, 64)]
    assert representatives(np.concatenate(sides, axis=1), 0.9).tolist() == [0, 1, 0]


def test_a_text_shorter_than_an_ngram_is_near_its_equal_only() -> None:
    texts = ["сохранить файл", "сохранить файлы", "сохранить файл", "файл"]
    assert representatives(signatures(texts, 64), 0.5).tolist() == [0, 1, 0, 3]


def test_thousands_of_equal_texts_are_one_group() -> None:
    texts = ["один и тот же текст из восьми слов"] * 5000
    assert representatives(signatures(texts, 64), 0.9).tolist() == [0] * 5000


def test_no_texts_give_no_representatives() -> None:
    assert representatives(signatures([], 64), 0.9).tolist() == []


@pytest.mark.parametrize("permutations", [16, 64, 128])
@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9, 1.0])
def test_bands_find_a_pair_at_the_threshold(permutations: int, threshold: float) -> None:
    count, rows = bands(permutations, threshold)
    assert count * rows <= permutations
    assert rows == 1 or 1 - (1 - threshold**rows) ** count >= 0.99
