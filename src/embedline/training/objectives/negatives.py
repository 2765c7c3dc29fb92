"""The documents of a batch that count as negatives of its queries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from embedline.training.objectives.streaming import Rows


@dataclass(frozen=True)
class NegativeRules:
    """The rules for which of a batch's M documents are no negatives of which of its N queries.

    Args:
        query_index_M: the query that each document belongs to (0..N-1 for positives).
        known_positives_NM: True where a document is known to be a positive of the query (the same text as its
            positive); a tensor, or a matrix that is made some rows at a time.
        in_batch_negatives: False leaves each query its own hard negatives only.
        false_negative_margin: a document that scores above the positive by more than this is treated as an
            unlabelled positive (the rule of GISTEmbed, with the model itself as the guide). It is in the
            units of the scores, and its default in the settings is meant for cosines: scores that have no
            upper bound, such as lexical ones, use the mask of the cosines of the same batch as
            `known_positives_NM`.
    """

    query_index_M: Tensor  # noqa: N815
    known_positives_NM: Rows  # noqa: N815
    in_batch_negatives: bool = True
    false_negative_margin: float | None = None

    def ignored_mask(self, scores_nM: Tensor, *, first: int = 0) -> Tensor:
        """Return True where a document is no negative of a query, so that its score does not count (n × M).

        Args:
            scores_nM: the scores of n queries in a row.
            first: the number of the first of them in the batch.
        """
        last = first + len(scores_nM)
        ignored_mask_nM = self.known_positives_NM[first:last].clone()
        if not self.in_batch_negatives:
            queries_n = torch.arange(first, last, device=self.query_index_M.device)
            ignored_mask_nM |= self.query_index_M.unsqueeze(0) != queries_n.unsqueeze(1)
        if self.false_negative_margin is not None:
            positives_n = scores_nM.diagonal(first)
            ignored_mask_nM |= scores_nM > positives_n.unsqueeze(1) + self.false_negative_margin
        ignored_mask_nM[:, first:last].fill_diagonal_(False)  # a query's own positive always counts
        return ignored_mask_nM
