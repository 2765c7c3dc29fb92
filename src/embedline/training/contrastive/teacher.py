"""Distillation from a teacher on the batches of contrastive training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from embedline.config.training import DistillationConfig
from embedline.errors import InputError
from embedline.models.embedder import Embedder
from embedline.models.prompts import Side, is_long
from embedline.training.batching.pairs import ContrastiveBatch
from embedline.training.engine import processes
from embedline.training.objectives.distillation import cosine_distance, score_divergence
from embedline.training.objectives.streaming import by_rows

TeacherLoss = Callable[[Tensor], Tensor]


class Teacher:
    """A model whose vectors of a batch give a loss of the student's vectors.

    Of scores: the ranking of the batch's documents by the teacher, for each query. Of vectors: the teacher's
    vector of the text; the translation of a text in a language of the teacher gets that text's vector, so
    that a teacher of one language is extended to another (Reimers and Gurevych 2020, "Making Monolingual
    Sentence Embeddings Multilingual").

    Args:
        model: the teacher.
        languages: languages of the teacher; texts in other languages are left out.
        width: of the student's vectors.

    Raises:
        InputError: vectors are to be learnt, and the teacher's have another width.
    """

    def __init__(
        self,
        model: Embedder,
        languages: Collection[str],
        config: DistillationConfig,
        *,
        width: int,
        bf16: bool = False,
    ) -> None:
        if config.of == "vectors" and model.width != width:
            raise InputError(
                f"its vectors have {model.width} values, the model's {width}: they cannot be the same.",
                where="teacher.model",
                fix="Set the stage's distillation.of to scores.",
            )
        self.model, self.languages, self.config, self.bf16 = model, set(languages), config, bf16

    def teacher_loss(self, batch: ContrastiveBatch, *, batch_tokens: int = 8192) -> TeacherLoss | None:
        """Return a loss of the vectors of the batch's N queries and M documents (N + M × D), not normalised.

        None where too few texts are in the teacher's languages: no text, or for scores no query with two
        documents.

        Args:
            batch_tokens: tokens that the teacher encodes at a time, padding included.
        """
        count, rows_M = batch.query_count, batch.query_index
        sides = [_sides(language) for language in batch.languages]
        has_teacher_N = np.array([query in self.languages for query, _ in sides])
        has_teacher_M = np.array([sides[i][1] in self.languages for i in rows_M])
        queries_ND = self._vectors(
            batch.query_texts, has_teacher_N, "query", range(count), batch, batch_tokens
        )
        documents_MD = self._vectors(
            batch.document_texts, has_teacher_M, "document", rows_M, batch, batch_tokens
        )
        if self.config.of == "scores":
            return self._ranking(queries_ND, documents_MD, has_teacher_N, has_teacher_M)
        translated_N = np.array([task_type == "bitext" for task_type in batch.task_types])
        to_query_N = translated_N & ~has_teacher_N & has_teacher_M[:count]
        to_document_N = translated_N & has_teacher_N & ~has_teacher_M[:count]
        queries_ND[to_query_N] = documents_MD[:count][to_query_N]
        documents_MD[:count][to_document_N] = queries_ND[to_document_N]
        has_teacher_M[:count] |= to_document_N
        known = torch.from_numpy(np.concatenate([has_teacher_N | to_query_N, has_teacher_M]))
        known = known.to(self.model.device)
        expected_KD = torch.cat([queries_ND, documents_MD])[known]
        if not len(expected_KD):
            return None
        return lambda vectors: cosine_distance(vectors[known], expected_KD).mean()

    def _ranking(
        self, queries_ND: Tensor, documents_MD: Tensor, has_teacher_N: np.ndarray, has_teacher_M: np.ndarray
    ) -> TeacherLoss | None:
        if not has_teacher_N.any() or has_teacher_M.sum() < 2:
            return None
        count = len(has_teacher_N)
        rows = torch.from_numpy(np.flatnonzero(has_teacher_N)).to(queries_ND.device)
        columns = torch.from_numpy(np.flatnonzero(has_teacher_M)).to(queries_ND.device)
        teacher_nD, teacher_mD = queries_ND[rows], documents_MD[columns]

        def loss(vectors: Tensor) -> Tensor:
            unit = F.normalize(vectors, dim=-1)
            student_nD, student_mD = unit[:count][rows], unit[count:][columns]

            def divergence(block: slice) -> Tensor:
                expected, found = teacher_nD[block] @ teacher_mD.T, student_nD[block] @ student_mD.T
                return score_divergence(found, expected, temperature=self.config.temperature).sum()

            blocks = by_rows(divergence, len(student_nD), len(student_mD))
            return torch.stack(blocks).sum() / len(student_nD)

        return loss

    def _vectors(
        self,
        texts: list[str],
        known: np.ndarray,
        side: Side,
        rows: Sequence[int],
        batch: ContrastiveBatch,
        batch_tokens: int,
    ) -> Tensor:
        """Return the teacher's unit vectors of the `known` texts, zeros for the others (K × D).

        Each process encodes some of them.

        Args:
            known: True where a text is in a language of the teacher.
            rows: the batch's row that each text belongs to.
        """
        own_share = np.zeros_like(known)
        own_share[processes.share_of([len(text) for text in texts])] = True
        return processes.sum_over_processes(
            processes.run_in_lockstep(
                lambda: self._encoded(texts, known & own_share, side, rows, batch, batch_tokens)
            )
        )

    def _encoded(
        self,
        texts: list[str],
        chosen: np.ndarray,
        side: Side,
        rows: Sequence[int],
        batch: ContrastiveBatch,
        batch_tokens: int,
    ) -> Tensor:
        spec = self.model.spec
        vectors = np.zeros((len(texts), self.model.width), dtype=np.float32)
        origins = [(batch.row_sources[i], batch.task_types[i]) for i in rows]
        for source, task_type in sorted(set(origins)):
            numbers = [i for i in np.flatnonzero(chosen) if origins[i] == (source, task_type)]
            vectors[numbers] = self.model.encode(
                [texts[i] for i in numbers],
                prompt=spec.prompts.prompt(side, name=source, task_type=task_type),
                max_length=spec.document_length if is_long(side, task_type) else spec.query_length,
                batch_tokens=batch_tokens,
                bf16=self.bf16,
            )
        return torch.from_numpy(vectors).to(self.model.device)


def _sides(language: str) -> tuple[str, str]:
    """Return the languages of query and document: both of "en", one each of "en-ru"."""
    query, _, document = language.partition("-")
    return query, document or query
