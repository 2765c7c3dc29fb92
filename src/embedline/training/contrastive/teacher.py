"""Distillation from a teacher on the batches of contrastive training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedline.config.training import DistillationConfig
from embedline.models.embedder import Embedder
from embedline.models.prompts import Side, is_long
from embedline.training.batching.pairs import ContrastiveBatch
from embedline.training.engine import processes
from embedline.training.engine.token_budget import TokenBudget
from embedline.training.objectives.distillation import cosine_distance, score_divergence
from embedline.training.objectives.streaming import by_rows
from embedline.vectors.vector_store import VectorStore, key_of

_log = logging.getLogger(__name__)

SHARD = 4096  # texts that are encoded before their vectors are written

TeacherLoss = Callable[[Tensor], Tensor]


class TaughtRow(NamedTuple):
    """The texts of a record that a training may use, without prompts."""

    source: str
    task_type: str
    language: str
    query: str
    documents: Sequence[str]


class _Input(NamedTuple):
    """A text as the teacher encodes it."""

    text: str
    prompt: str
    max_length: int

    @property
    def key(self) -> bytes:
        return key_of(self.text, f"{self.max_length}\n{self.prompt}")


class Teacher:
    """A model whose vectors of a batch give a loss of the student's vectors.

    Of scores: the ranking of the batch's documents by the teacher, for each query. Of vectors: the teacher's
    vector of the text; the translation of a text in a language of the teacher gets that text's vector, so
    that a teacher of one language is extended to another (Reimers and Gurevych 2020, "Making Monolingual
    Sentence Embeddings Multilingual"). Where the teacher's vectors have another width, the student's are
    projected to it by a matrix that is trained with the student and left out of its model.

    The teacher's vectors are computed once, before the training (`prepare`), and kept.

    Args:
        model: the teacher.
        languages: languages of the teacher; texts in other languages are left out.
        width: of the student's vectors.
        folder: of this teacher's vectors; other trainings with it find them there.
        seed: of the projection.
    """

    def __init__(
        self,
        model: Embedder,
        languages: Collection[str],
        config: DistillationConfig,
        *,
        width: int,
        folder: Path,
        bf16: bool = False,
        seed: int = 0,
    ) -> None:
        self.languages, self.config, self.bf16 = set(languages), config, bf16
        self.spec, self.device, self.width = model.spec, model.device, model.width
        self.model: Embedder | None = model
        self.vectors = VectorStore(folder)
        self.projection: nn.Linear | None = None
        if config.of == "vectors" and model.width != width:
            self.projection = _projection(width, model.width, seed).to(model.device)

    def prepare(self, rows: Iterable[TaughtRow], *, batch_tokens: int = 8192) -> None:
        """Compute the vectors of the rows' texts that are not kept yet, and let go of the model.

        Each process computes some of them; what a killed call has written is not computed again.

        Args:
            batch_tokens: tokens that the teacher encodes at a time, padding included; fewer where memory runs
                out.
        """
        self.vectors.open()
        processes.any_of(False)  # no process writes before all have seen the same vectors
        budget = TokenBudget(batch_tokens)
        for number, inputs in enumerate(_shards(self._missing(rows))):
            if number % processes.world_size() == processes.rank():
                self.vectors.add([each.key for each in inputs], self._encoded(inputs, budget))
                _log.info("teacher: %s vectors computed", f"{number * SHARD + len(inputs):,}")
        processes.any_of(False)  # all have written theirs
        self.vectors.open()
        self.vectors.touch()
        self.model = None

    def _missing(self, rows: Iterable[TaughtRow]) -> Iterator[_Input]:
        """Yield each input once that has no vector yet."""
        seen: set[bytes] = set()
        for row in rows:
            query, document = _sides(row.language)
            texts: list[tuple[Side, str]] = [("query", row.query)] if query in self.languages else []
            if document in self.languages:
                texts += [("document", text) for text in row.documents]
            for side, text in texts:
                found = self._input(text, side, row.source, row.task_type)
                if (key := found.key) not in seen and key not in self.vectors:
                    seen.add(key)
                    yield found

    def _input(self, text: str, side: Side, source: str, task_type: str) -> _Input:
        prompt = self.spec.prompts.prompt(side, name=source, task_type=task_type)
        long = is_long(side, task_type)
        return _Input(text, prompt, self.spec.document_length if long else self.spec.query_length)

    def _encoded(self, inputs: Sequence[_Input], budget: TokenBudget) -> np.ndarray:
        assert self.model is not None
        vectors = np.zeros((len(inputs), self.width), np.float32)
        for about in sorted({each[1:] for each in inputs}):
            numbers = [i for i, each in enumerate(inputs) if each[1:] == about]
            vectors[numbers] = self._fitting([inputs[i] for i in numbers], budget)
        return vectors

    def _fitting(self, inputs: Sequence[_Input], budget: TokenBudget) -> np.ndarray:
        """Encode inputs of one prompt and length, fewer at a time when memory runs out."""
        assert self.model is not None
        texts, (_, prompt, length) = [each.text for each in inputs], inputs[0]
        while True:
            try:
                return self.model.encode(
                    texts, prompt=prompt, max_length=length, batch_tokens=budget.chunk, bf16=self.bf16
                )
            except Exception as error:
                if not processes.is_out_of_memory(error) or not budget.halve():
                    raise
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def teacher_loss(self, batch: ContrastiveBatch) -> TeacherLoss | None:
        """Return a loss of the vectors of the batch's N queries and M documents (N + M × D), not normalised.

        None where too few texts are in the teacher's languages: no text, or for scores no query with two
        documents.
        """
        count, rows_M = batch.query_count, batch.query_index
        sides = [_sides(language) for language in batch.languages]
        has_teacher_N = np.array([query in self.languages for query, _ in sides])
        has_teacher_M = np.array([sides[i][1] in self.languages for i in rows_M])
        queries_ND = self._vectors(batch.query_texts, has_teacher_N, "query", range(count), batch)
        documents_MD = self._vectors(batch.document_texts, has_teacher_M, "document", rows_M, batch)
        if self.config.of == "scores":
            return self._ranking(queries_ND, documents_MD, has_teacher_N, has_teacher_M)
        translated_N = np.array([task_type == "bitext" for task_type in batch.task_types])
        to_query_N = translated_N & ~has_teacher_N & has_teacher_M[:count]
        to_document_N = translated_N & has_teacher_N & ~has_teacher_M[:count]
        queries_ND[to_query_N] = documents_MD[:count][to_query_N]
        documents_MD[:count][to_document_N] = queries_ND[to_document_N]
        has_teacher_M[:count] |= to_document_N
        known = torch.from_numpy(np.concatenate([has_teacher_N | to_query_N, has_teacher_M]))
        known = known.to(self.device)
        expected_KD = torch.cat([queries_ND, documents_MD])[known]
        if not len(expected_KD):
            return None
        projected = self.projection or nn.Identity()
        return lambda vectors: cosine_distance(projected(vectors[known]), expected_KD).mean()

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
        texts: Sequence[str],
        known: np.ndarray,
        side: Side,
        rows: Sequence[int],
        batch: ContrastiveBatch,
    ) -> Tensor:
        """Return the teacher's unit vectors of the `known` texts, zeros for the others (K × D).

        Args:
            known: True where a text is in a language of the teacher.
            rows: the batch's row that each text belongs to.
        """
        vectors = np.zeros((len(texts), self.width), dtype=np.float32)
        numbers = np.flatnonzero(known).tolist()
        if len(numbers):
            vectors[numbers] = self.vectors.read(
                self._input(texts[i], side, batch.row_sources[rows[i]], batch.task_types[rows[i]]).key
                for i in numbers
            )
        return F.normalize(torch.from_numpy(vectors), dim=-1).to(self.device)  # float16 rounds the length


def _shards(inputs: Iterable[_Input]) -> Iterator[list[_Input]]:
    remaining = iter(inputs)
    while shard := list(islice(remaining, SHARD)):
        yield shard


def _projection(width: int, teacher_width: int, seed: int) -> nn.Linear:
    """Return a matrix with orthonormal rows or columns: angles of the vectors are what they were."""
    projection = nn.Linear(width, teacher_width, bias=False)
    nn.init.orthogonal_(projection.weight, generator=torch.Generator().manual_seed(seed))
    return projection


def _sides(language: str) -> tuple[str, str]:
    """Return the languages of query and document: both of "en", one each of "en-ru"."""
    query, _, document = language.partition("-")
    return query, document or query
