"""Few-shot classification of texts by their vectors, as mteb does it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

EXPERIMENTS, SAMPLES, SEED = (
    10,
    8,
    42,
)  # as in mteb: classifiers, and texts of each label that a classifier learns from
NEIGHBOURS = 5


def accuracy(
    train_ND: np.ndarray, train: Sequence[str], test_MD: np.ndarray, test: Sequence[str]
) -> np.ndarray:
    """Return for each test text the share of classifiers that predict its label (M values).

    A classifier is a logistic regression on `SAMPLES` texts of every label. As in mteb, the texts of each
    classifier are drawn from the previous order, shuffled again with the same seed: the numbers are mteb's.
    """
    from sklearn.linear_model import LogisticRegression

    right = np.zeros(len(test))
    order = list(range(len(train)))
    for _ in range(EXPERIMENTS):
        np.random.RandomState(SEED).shuffle(order)
        chosen = _few(order, [[label] for label in train])
        classifier = LogisticRegression(max_iter=100, random_state=SEED).fit(
            train_ND[chosen], [train[i] for i in chosen]
        )
        right += classifier.predict(test_MD) == np.asarray(test)
    return right / EXPERIMENTS


def multilabel_accuracy(
    train_ND: np.ndarray,
    train: Sequence[Sequence[str]],
    test_MD: np.ndarray,
    test: Sequence[Sequence[str]],
) -> np.ndarray:
    """Return for each test text the share of nearest-neighbour classifiers that find exactly its labels."""
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import MultiLabelBinarizer

    binarizer = MultiLabelBinarizer().fit([*train, *test])
    expected = binarizer.transform(test)
    right = np.zeros(len(test))
    generator = np.random.default_rng(SEED)
    for _ in range(EXPERIMENTS):
        order = list(range(len(train)))
        generator.shuffle(order)
        chosen = _few(order, train)
        classifier = KNeighborsClassifier(n_neighbors=min(NEIGHBOURS, len(chosen)))
        classifier.fit(train_ND[chosen], binarizer.transform([train[i] for i in chosen]))
        right += (classifier.predict(test_MD) == expected).all(1)
    return right / EXPERIMENTS


def _few(order: Sequence[int], labels: Sequence[Sequence[str]]) -> list[int]:
    """Select texts, in `order`, until every label has `SAMPLES` of them."""
    taken: Counter[str] = Counter()
    chosen = []
    for i in order:
        if any(taken[label] < SAMPLES for label in labels[i]):
            chosen.append(i)
            taken.update(labels[i])
    return chosen
