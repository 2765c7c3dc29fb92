"""What is known of a batch: rows of N × M matrices of queries and documents, made when asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class KnownAnswers:
    """True where a document is a positive of the query in its row, or of the same query in another row.

    Args:
        queries: the text of each of the N queries.
        answers: the positives of each of them, those that are not in the batch included.
        documents: the text of each of the M documents.
    """

    def __init__(
        self,
        queries: Sequence[str],
        answers: Sequence[Sequence[str]],
        documents: Sequence[str],
        device: torch.device | str = "cpu",
    ) -> None:
        numbers = {text: number for number, text in enumerate(dict.fromkeys(documents))}
        by_query: dict[str, set[int]] = {}
        for query, texts in zip(queries, answers, strict=True):
            by_query.setdefault(query, set()).update(numbers[text] for text in texts if text in numbers)
        self.known = [sorted(by_query[query]) for query in queries]
        self.text_M = torch.tensor([numbers[text] for text in documents], device=device)
        self.texts = len(numbers)

    def __getitem__(self, rows: slice) -> Tensor:
        """Some rows (n × M)."""
        known = self.known[rows]
        row = [i for i, texts in enumerate(known) for _ in texts]
        column = [text for texts in known for text in texts]
        same = torch.zeros(len(known), self.texts, dtype=torch.bool)
        same[row, column] = True
        return same.to(self.text_M.device)[:, self.text_M]

    @property
    def everything(self) -> bool:
        """Whether each document answers each query: nothing is a negative."""
        return all(len(texts) == self.texts for texts in self.known)
