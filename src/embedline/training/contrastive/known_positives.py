"""Pairs of a query and a document of a batch that are known to belong together, and so are no negatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class KnownPositives:
    """An N × M matrix, made some rows at a time: True where a document is no negative of a query.

    That is a positive of the query, in its own row or in another row of the same query, or the query itself
    (pairs of questions with the same meaning form chains: a, b and b, c).

    Documents are the same when their texts are equal, and when their tokens are: cut, or in a tokenizer's
    lower case, they have one vector, and a document with the positive's own vector is no negative.

    Args:
        queries: the text of each of the N queries.
        positives: the positives of each query, those that are not in the batch included.
        documents: the text of each of the M documents.
        tokens: a number for each document, equal for documents of equal tokens; without it only texts are
            compared.
    """

    def __init__(
        self,
        queries: Sequence[str],
        positives: Sequence[Sequence[str]],
        documents: Sequence[str],
        device: torch.device | str = "cpu",
        *,
        tokens: Sequence[int] = (),
    ) -> None:
        numbers, documents_M = _numbered(documents, tokens)
        by_query: dict[str, set[int]] = {}
        for query, texts in zip(queries, positives, strict=True):
            known = (numbers[text] for text in (query, *texts) if text in numbers)
            by_query.setdefault(query, set()).update(known)
        self.known = [sorted(by_query[query]) for query in queries]
        self.text_M = torch.tensor(documents_M, device=device)
        self.texts = max(documents_M, default=-1) + 1

    def __getitem__(self, rows: slice) -> Tensor:
        """Make some rows (n × M)."""
        known = self.known[rows]
        row = [i for i, texts in enumerate(known) for _ in texts]
        column = [text for texts in known for text in texts]
        same = torch.zeros(len(known), self.texts, dtype=torch.bool)
        same[row, column] = True
        return same.to(self.text_M.device)[:, self.text_M]

    @property
    def everything(self) -> bool:
        """Return whether each document is a positive of each query, so that there is no negative."""
        return all(len(texts) == self.texts for texts in self.known)


def _numbered(texts: Sequence[str], tokens: Sequence[int]) -> tuple[dict[str, int], list[int]]:
    """Number the texts, the same number for the same text or the same tokens.

    Returns:
        The number by text, and the number of each text in their order.
    """
    by_text: dict[str, int] = {}
    by_tokens: dict[int, int] = {}
    numbers, count = [], 0
    for i, text in enumerate(texts):
        number = by_text.get(text, by_tokens.get(tokens[i]) if tokens else None)
        if number is None:
            number, count = count, count + 1
        by_text[text] = number
        if tokens:
            by_tokens.setdefault(tokens[i], number)
        numbers.append(number)
    return by_text, numbers
