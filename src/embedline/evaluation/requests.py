"""Requests to score one model each, and how they are carried out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from embedline.artifacts.scores import TORCH, UNRELATED, ScoreRow
from embedline.config.evaluation import EvaluateConfig
from embedline.config.model import Prompt
from embedline.config.training import RuntimeConfig
from embedline.evaluation.compare import BENCHMARK
from embedline.evaluation.haystack import set_name
from embedline.models.layer_work import encoding_work, folder_config
from embedline.models.machine import attention, prepare, works_in_bf16
from embedline.models.prompts import PromptTable
from embedline.models.stated import NOTHING, Stated
from embedline.retrieval.fusion import Fusion

if TYPE_CHECKING:
    from embedline.evaluation.evaluated_models import EvaluatedModel
    from embedline.evaluation.score_files import Scores

UNTRAINED = "untrained"
BASE = "base"
CHAMPION = "champion"
BM25_DIGEST = "bm25-stemmed-k1.2-b0.75"  # in the place of a model's digest in BM25's score rows


@dataclass(frozen=True)
class ScoringRequest:
    """One model to score.

    Args:
        role: `model` in its rows.
        folder: of the model; None for BM25.
        tasks: of mteb.
        depths: of needles in long documents, in tokens.
        runtime: torch, onnx-fp32 or onnx-int8.
        all_dims: whether its rows at smaller Matryoshka dims are shown, too.
        of_stage: a model between two stages: it is scored with the run's prompts.
        stated: pooling and mask of a third-party folder.
    """

    role: str
    digest: str
    folder: Path | None
    sets: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    depths: tuple[int, ...] = ()
    runtime: str = TORCH
    all_dims: bool = False
    of_stage: bool = False
    stated: Stated = NOTHING

    @property
    def has_prompts(self) -> bool:
        """Return whether the model is scored with the prompts of its own folder."""
        return self.folder is not None and not self.of_stage and (self.folder / "embedline.json").is_file()

    def is_within(self, other: ScoringRequest) -> bool:
        """Return whether the scores of `other` include all sets, tasks and depths of this request."""
        pairs = ((self.sets, other.sets), (self.tasks, other.tasks), (self.depths, other.depths))
        return all(set(ours) <= set(theirs) for ours, theirs in pairs)

    def select(self, rows: Iterable[ScoreRow]) -> list[ScoreRow]:
        """Select the requested rows among kept scores, under the role that the model has in this run."""
        names = {*self.sets, *self.tasks, *map(set_name, self.depths), UNRELATED}
        names |= {BENCHMARK} if self.tasks else set()
        own = [replace(row, model=self.role) for row in rows if row.set in names]
        if self.all_dims:
            return own
        width: dict[str, int] = {}
        for row in own:
            if row.is_dense:
                width[row.set] = max(width.get(row.set, 0), row.dim)
        return [row for row in own if not row.is_dense or row.dim == width[row.set]]


@dataclass(frozen=True)
class ScoringSettings:
    """The settings that all requests of a run share.

    Args:
        sets: folder of the laid-out evaluation sets.
        revision: of these sets, for the score rows.
        prompts: the run's, for models of its stages and for third-party folders, which name none.
        fusion: the run's, for models whose folders have none; None where hybrid is the sum of the heads.
        mteb_root: folder with copies of mteb's datasets; None without one.
    """

    sets: Path
    revision: str
    config: EvaluateConfig
    runtime: RuntimeConfig
    prompts: Mapping[str, Prompt]
    fusion: Fusion | None = None
    mteb_root: Path | None = None
    trust_remote_code: bool = False


def score_request(request: ScoringRequest, settings: ScoringSettings) -> Scores:
    """Score one model on the sets, mteb tasks and needle depths of a request."""
    from embedline.evaluation.local import score_bm25, score_model
    from embedline.evaluation.sets import read_sets
    from embedline.evaluation.spread import spread_rows

    config, resamples = settings.config, settings.config.bootstrap
    sets = read_sets(settings.sets, list(request.sets)) if request.sets else []
    if request.folder is None:
        return score_bm25(sets, digest=request.digest, resamples=resamples, revision=settings.revision)
    model = _load(request, request.folder, settings)
    scores = score_model(model, sets, resamples=resamples, revision=settings.revision)
    if request.tasks:
        from embedline.evaluation.rumteb import score_tasks

        scores.rows += score_tasks(model, request.tasks, root=settings.mteb_root)
    if request.runtime == TORCH:  # before the needles, whose texts are alike
        scores.rows += spread_rows(model, revision=settings.revision)
    if request.depths:
        from embedline.evaluation.needle import needle_recall

        scores.rows += needle_recall(
            model, request.depths, documents=config.needle_documents, resamples=resamples
        )
    return scores


def _load(request: ScoringRequest, folder: Path, settings: ScoringSettings) -> EvaluatedModel:
    from embedline.evaluation.evaluated_models import load_onnx_model, load_torch_model

    identity = request.role, request.digest, folder
    prepare(settings.runtime)
    runtime, batch_tokens = settings.runtime, settings.config.batch_tokens
    if request.runtime != TORCH:
        return load_onnx_model(
            *identity,
            request.runtime,
            batch_tokens=batch_tokens,
            threads=runtime.threads,
            fusion=settings.fusion,
        )
    return load_torch_model(
        *identity,
        bf16=works_in_bf16(runtime, encoding_work(folder_config(folder))),
        untrained=request.role == UNTRAINED,
        prompts=None if request.has_prompts else PromptTable(settings.prompts),
        batch_tokens=batch_tokens,
        attention=attention(runtime),
        trust_remote_code=settings.trust_remote_code,
        stated=request.stated,
        as_base=request.role == BASE,
        fusion=settings.fusion,
    )
