"""Few-shot classification of texts by their vectors, as mteb does it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

EXPERIMENTS, SAMPLES, SEED = 10, 8, 42  # mteb's: classifiers, texts a label that each learns from
NEIGHBOURS = 5


def accuracy(
    train_ND: np.ndarray, train: Sequence[str], test_MD: np.ndarray, test: Sequence[str]
) -> np.ndarray:
    """Of each test text, the share of classifiers that name its label (M values).

    A classifier is a logistic regression on `SAMPLES` texts of every label. mteb draws the texts of each from
    those of the last one, shuffled again with the same seed; so does this, and gets mteb's numbers.
    """
    from sklearn.linear_model import LogisticRegression

    right = np.zeros(len(test))
    order = list(range(len(train)))
    for _ in range(EXPERIMENTS):
        np.random.RandomState(SEED).shuffle(order)
        chosen = _few(order, [[label] for label in train])
        found = LogisticRegression(max_iter=100, random_state=SEED).fit(
            train_ND[chosen], [train[i] for i in chosen]
        )
        right += found.predict(test_MD) == np.asarray(test)
    return right / EXPERIMENTS


def multilabel_accuracy(
    train_ND: np.ndarray,
    train: Sequence[Sequence[str]],
    test_MD: np.ndarray,
    test: Sequence[Sequence[str]],
) -> np.ndarray:
    """The same where a text has any number of labels, all of which are to be named; by nearest neighbours."""
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
    """The texts, in `order`, that have a label of which fewer than `SAMPLES` were taken before."""
    taken: Counter[str] = Counter()
    chosen = []
    for i in order:
        if any(taken[label] < SAMPLES for label in labels[i]):
            chosen.append(i)
            taken.update(labels[i])
    return chosen
