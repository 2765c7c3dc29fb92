"""The consistency filter against its definition, one pair at a time."""

from __future__ import annotations

import numpy as np
import pytest

from embedline.data.consistency import consistent


def made_up_teacher(texts: list[str]) -> np.ndarray:
    """The same vector for the same text, of any length; texts that share their end are alike."""
    rows = []
    for text in texts:
        theme = np.random.default_rng(int(text.rpartition(" ")[2])).normal(size=16)
        noise = np.random.default_rng([ord(c) for c in text]).normal(size=16)
        rows.append((theme + 1.1 * noise) * (1 + len(text)))
    return np.array(rows, dtype=np.float32)


def slowly(queries: list[str], positives: list[str], top_k: int) -> list[bool]:
    def unit(text: str) -> np.ndarray:
        vector = made_up_teacher([text])[0].astype(float)
        return vector / np.linalg.norm(vector)

    kept = []
    for query, positive in zip(queries, positives, strict=True):
        scores = {text: float(unit(query) @ unit(text)) for text in positives}
        ranking = sorted(scores, key=lambda text: -scores[text])
        kept.append(ranking.index(positive) < top_k)
    return kept


@pytest.mark.parametrize("top_k", [1, 2, 5])
@pytest.mark.parametrize("chunk", [7, 1000])
def test_a_pair_stands_when_its_own_positive_is_among_the_first(top_k: int, chunk: int) -> None:
    queries = [f"query {i}" for i in range(90)]
    positives = [f"positive {i % 60}" for i in range(90)]  # some positives answer two queries
    kept = consistent(queries, positives, made_up_teacher, top_k, 1000, chunk=chunk)
    expected = slowly(queries, positives, top_k)
    assert kept.tolist() == expected
    assert 0 < sum(expected) < 90


def test_equal_positives_do_not_compete() -> None:
    kept = consistent(["a 1", "b 1", "c 1"], ["same 1"] * 3, made_up_teacher, 1, 100)
    assert kept.all()


def test_pairs_compete_within_their_pool_only() -> None:
    sizes = []

    def teacher(texts: list[str]) -> np.ndarray:
        sizes.append(len(texts))
        return made_up_teacher(texts)

    queries, positives = [f"q {i}" for i in range(100)], [f"p {i}" for i in range(100)]
    small = consistent(queries, positives, teacher, 2, 30)
    assert max(sizes) <= 30
    assert sum(sizes) == 200
    assert small.sum() > consistent(queries, positives, made_up_teacher, 2, 100).sum()
    again = consistent(queries, positives, made_up_teacher, 2, 30)
    assert (small == again).all()


def test_no_pairs_no_mask() -> None:
    assert consistent([], [], lambda texts: np.zeros((len(texts), 4), np.float32), 2, 10).shape == (0,)
