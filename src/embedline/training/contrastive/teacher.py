"""A teacher's lessons on the batches of contrastive training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from embedline.config.training import DistillationConfig
from embedline.errors import InputError
from embedline.models.embedder import Embedder
from embedline.models.prompts import Side, is_long
from embedline.training.engine import processes
from embedline.training.objectives.distillation import cosine_distance, score_divergence
from embedline.training.objectives.streaming import by_rows

Lesson = Callable[[Tensor], Tensor]


class Teaching:
    """What a teacher says about a batch, as a loss of the student's vectors.

    Of scores: how the teacher ranks the batch's documents for each query. Of vectors: be the teacher's vector
    of the text; the translation of a text that it knows gets that text's vector, so that a teacher of one
    language teaches another (Reimers and Gurevych 2020, "Making Monolingual Sentence Embeddings
    Multilingual").

    Args:
        languages: that the teacher knows; it says nothing about texts in others.
        width: of the student's vectors.

    Raises:
        InputError: its vectors are to be learnt, and they are of another width.
    """

    def __init__(
        self,
        teacher: Embedder,
        languages: Collection[str],
        config: DistillationConfig,
        *,
        width: int,
        bf16: bool = False,
    ) -> None:
        if config.of == "vectors" and teacher.width != width:
            raise InputError(
                f"its vectors have {teacher.width} values, the model's {width}: they cannot be the same.",
                where="teacher.model",
                fix="Set the stage's distillation.of to scores.",
            )
        self.teacher, self.languages, self.config, self.bf16 = teacher, set(languages), config, bf16

    def lesson(self, batch: dict[str, Any], *, batch_tokens: int = 8192) -> Lesson | None:
        """A loss of the vectors of the batch's N queries and M documents (N + M × D), not normalised.

        None where the teacher knows too little: no text, or for scores no query with two documents.

        Args:
            batch_tokens: that the teacher encodes at a time, padding included.
        """
        count = batch["queries"]
        sides = [_sides(language) for language in batch["languages"]]
        asked_N = np.array([query in self.languages for query, _ in sides])
        told_M = np.array([sides[i][1] in self.languages for i in batch["owner"]])
        queries_ND = self._vectors(batch["query_texts"], asked_N, "query", range(count), batch, batch_tokens)
        documents_MD = self._vectors(batch["texts"], told_M, "document", batch["owner"], batch, batch_tokens)
        if self.config.of == "scores":
            return self._ranking(queries_ND, documents_MD, asked_N, told_M)
        translated_N = np.array([kind == "bitext" for kind in batch["task_types"]])
        to_query_N = translated_N & ~asked_N & told_M[:count]
        to_document_N = translated_N & asked_N & ~told_M[:count]
        queries_ND[to_query_N] = documents_MD[:count][to_query_N]
        documents_MD[:count][to_document_N] = queries_ND[to_document_N]
        told_M[:count] |= to_document_N
        known = torch.from_numpy(np.concatenate([asked_N | to_query_N, told_M])).to(self.teacher.device)
        expected_KD = torch.cat([queries_ND, documents_MD])[known]
        if not len(expected_KD):
            return None
        return lambda vectors: cosine_distance(vectors[known], expected_KD).mean()

    def _ranking(
        self, queries_ND: Tensor, documents_MD: Tensor, asked_N: np.ndarray, told_M: np.ndarray
    ) -> Lesson | None:
        if not asked_N.any() or told_M.sum() < 2:
            return None
        count = len(asked_N)
        rows = torch.from_numpy(np.flatnonzero(asked_N)).to(queries_ND.device)
        columns = torch.from_numpy(np.flatnonzero(told_M)).to(queries_ND.device)
        asked_nD, about_mD = queries_ND[rows], documents_MD[columns]

        def loss(vectors: Tensor) -> Tensor:
            unit = F.normalize(vectors, dim=-1)
            found_nD, found_mD = unit[:count][rows], unit[count:][columns]

            def divergence(block: slice) -> Tensor:
                expected, found = asked_nD[block] @ about_mD.T, found_nD[block] @ found_mD.T
                return score_divergence(found, expected, temperature=self.config.temperature).sum()

            blocks = by_rows(divergence, len(found_nD), len(found_mD))
            return torch.stack(blocks).sum() / len(found_nD)

        return loss

    def _vectors(
        self,
        texts: list[str],
        known: np.ndarray,
        side: Side,
        rows: Sequence[int],
        batch: dict[str, Any],
        batch_tokens: int,
    ) -> Tensor:
        """The teacher's unit vectors of the texts that it knows, zeros for the others (K × D).

        Each process encodes some of them.

        Args:
            rows: of the batch, that each text belongs to.
        """
        mine = np.zeros_like(known)
        mine[processes.share_of([len(text) for text in texts])] = True
        return processes.total(
            processes.agreed(lambda: self._encoded(texts, known & mine, side, rows, batch, batch_tokens))
        )

    def _encoded(
        self,
        texts: list[str],
        chosen: np.ndarray,
        side: Side,
        rows: Sequence[int],
        batch: dict[str, Any],
        batch_tokens: int,
    ) -> Tensor:
        spec = self.teacher.spec
        vectors = np.zeros((len(texts), self.teacher.width), dtype=np.float32)
        kinds = [(batch["row_sources"][i], batch["task_types"][i]) for i in rows]
        for source, kind in sorted(set(kinds)):
            places = [i for i in np.flatnonzero(chosen) if kinds[i] == (source, kind)]
            vectors[places] = self.teacher.encode(
                [texts[i] for i in places],
                prompt=spec.prompts.prompt(side, name=source, task_type=kind),
                max_length=spec.document_length if is_long(side, kind) else spec.query_length,
                batch_tokens=batch_tokens,
                bf16=self.bf16,
            )
        return torch.from_numpy(vectors).to(self.teacher.device)


def _sides(language: str) -> tuple[str, str]:
    """The languages of query and document: both of "en", one each of "en-ru"."""
    query, _, document = language.partition("-")
    return query, document or query
