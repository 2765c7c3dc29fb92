"""The consistency filter against its definition, one pair at a time."""

from __future__ import annotations

import numpy as np
import pytest

from embedline.data.consistency import consistent
from embedline.errors import InputError

KIND = ("docs", "short-long")


def made_up_teacher(texts: list[str], *_: str) -> np.ndarray:
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
def test_a_pair_is_kept_when_its_positive_is_among_the_top_k(top_k: int, chunk: int) -> None:
    queries = [f"query {i}" for i in range(90)]
    positives = [f"positive {i % 60}" for i in range(90)]  # some positives answer two queries
    kept = consistent(queries, positives, [KIND] * len(queries), made_up_teacher, top_k, 1000, chunk=chunk)
    expected = slowly(queries, positives, top_k)
    assert kept.tolist() == expected
    assert 0 < sum(expected) < 90


def test_equal_positives_do_not_compete() -> None:
    kept = consistent(["a 1", "b 1", "c 1"], ["same 1"] * 3, [KIND] * 3, made_up_teacher, 1, 100)
    assert kept.all()


def test_a_query_that_is_a_positive_elsewhere_is_no_rival() -> None:
    """Questions of one meaning form chains: its own text would be the best positive of every query."""
    texts = [f"text {i}" for i in range(12)]
    kept = consistent(texts[:-1], texts[1:], [KIND] * 11, chain, 1, 100)
    assert kept.all()


def chain(texts: list[str], *_: str) -> np.ndarray:
    """Points of an arc: each text is nearest to itself, then to the next one."""
    angles = np.array([0.9 ** int(text.split()[1]) for text in texts])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_a_teacher_with_one_vector_for_all_texts_is_refused() -> None:
    """Every pair would be a tie, and kept."""

    def collapsed(texts: list[str], *_: str) -> np.ndarray:
        return np.ones((len(texts), 4), np.float32)

    queries, positives = [f"q {i}" for i in range(20)], [f"p {i}" for i in range(20)]
    with pytest.raises(InputError, match=r"^teacher\.model: it gives the same vector to 20 different"):
        consistent(queries, positives, [KIND] * 20, collapsed, 2, 100)
    assert consistent(queries[:2], positives[:2], [KIND] * 2, collapsed, 2, 100).all()


def test_pairs_compete_within_their_pool_only() -> None:
    sizes = []

    def teacher(texts: list[str], *_: str) -> np.ndarray:
        sizes.append(len(texts))
        return made_up_teacher(texts)

    queries, positives = [f"q {i}" for i in range(100)], [f"p {i}" for i in range(100)]
    small = consistent(queries, positives, [KIND] * len(queries), teacher, 2, 30)
    assert max(sizes) <= 30
    assert sum(sizes) == 200
    assert small.sum() > consistent(queries, positives, [KIND] * len(queries), made_up_teacher, 2, 100).sum()
    again = consistent(queries, positives, [KIND] * len(queries), made_up_teacher, 2, 30)
    assert (small == again).all()


def test_no_pairs_give_an_empty_mask() -> None:
    assert consistent([], [], [], lambda texts, *_: np.zeros((len(texts), 4), np.float32), 2, 10).shape == (
        0,
    )


def test_texts_are_encoded_by_source_and_task_and_equal_texts_do_not_compete() -> None:
    asked: list[tuple[str, ...]] = []

    def teacher(texts: list[str], source: str, task_type: str, side: str) -> np.ndarray:
        asked.extend((text, source, task_type, side) for text in texts)
        # the same text, under the other kind's prompt, is a little more like every query
        bonus = 0.5 if source == "faq" else 0.0
        return made_up_teacher(texts) + np.eye(16, dtype=np.float32)[0] * (0 if side == "query" else bonus)

    kinds = [("docs", "short-long"), ("faq", "sts"), ("docs", "short-long")]
    queries, positives = ["a 1", "b 1", "c 2"], ["same 1", "same 1", "other 2"]
    assert consistent(queries, positives, kinds, teacher, 1, 100).all()
    assert set(asked) == {
        ("a 1", "docs", "short-long", "query"),
        ("c 2", "docs", "short-long", "query"),
        ("b 1", "faq", "sts", "query"),
        ("same 1", "docs", "short-long", "document"),
        ("other 2", "docs", "short-long", "document"),
        ("same 1", "faq", "sts", "document"),
    }
