"""Scores of one model folder outside a run, as in `embedline evaluate`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedline.artifacts.manifest import folder_digest
from embedline.artifacts.scores import ScoreRow
from embedline.artifacts.workspace import Workspace
from embedline.config.data import DataConfig, EvaluationSet, HoldOut
from embedline.config.schema import RunConfig
from embedline.config.training import RuntimeConfig
from embedline.data.root import data_root
from embedline.data.sources import source_name
from embedline.evaluation.requests import BM25_DIGEST
from embedline.models.layer_work import encoding_work, folder_config
from embedline.models.machine import attention, prepare, works_in_bf16
from embedline.models.prompts import PromptTable
from embedline.models.stated import NOTHING, Stated, require_unstated
from embedline.quoting import home_expanded

if TYPE_CHECKING:
    from embedline.evaluation.evaluated_models import EvaluatedModel


def score_folder(
    folder: Path,
    sets: Sequence[EvaluationSet],
    config: RunConfig | None,
    preset: str,
    work: Path,
    *,
    bm25: bool = False,
    trust_remote_code: bool = False,
    stated: Stated = NOTHING,
) -> list[ScoreRow]:
    """Score a model folder on `sets`, and on the sets and mteb tasks of a preset's config.

    >>> faq = EvaluationSet(path="faq", kind="retrieval")
    >>> rows = score_folder(Path("model"), [faq], None, "", Path("runs"))
    >>> {row.set: row.value for row in rows if row.main}

    Args:
        folder: of a model, or of an exported one (its fp32 form, and int8 where there is one).
        config: of a preset; None scores on `sets` alone.
        preset: name or path of the config's preset; its relative paths start from there.
        work: folder of runs, for the data of presets that need one.
        stated: pooling and mask of a third-party folder.
        bm25: score BM25 on the retrieval sets, too.

    Raises:
        InputError: a set cannot be read, or the model cannot be loaded.
        StepError: an mteb task failed.
    """
    from embedline.data.evaluation_sets import lay_out, set_names
    from embedline.evaluation.local import score_bm25, score_model
    from embedline.evaluation.rumteb import score_tasks
    from embedline.evaluation.sets import read_sets
    from embedline.evaluation.spread import spread_rows

    tasks: list[str] = []
    listed = [item.model_copy(update={"path": str(Path(item.path).resolve())}) for item in sets]
    root = Path.cwd()
    copies: Path | None = None
    if config is not None:
        root = data_root(config, preset, Workspace(work))
        listed, tasks = [*listed, *config.data.evaluation], config.evaluate.mteb_tasks
        if config.evaluate.mteb_root:
            copies = root / home_expanded(config.evaluate.mteb_root)
    set_names(listed)
    rows: list[ScoreRow] = []
    with tempfile.TemporaryDirectory(prefix="embedline-sets-") as scratch:
        place = Path(scratch) / "sets"
        lay_out(listed, root, place)
        if config is not None and config.data.hold_out is not None:
            _add_held_out(config.data, config.data.hold_out, root, place, Path(scratch) / "dataset")
        laid_out = read_sets(place)
        for model in _load_forms(folder, config, trust_remote_code, stated):
            rows += score_model(model, laid_out).rows
            if tasks:
                rows += score_tasks(model, tasks, root=copies)
            rows += spread_rows(model)
        if bm25:
            rows += score_bm25(laid_out, digest=BM25_DIGEST).rows
    return rows


def _add_held_out(data: DataConfig, rule: HoldOut, root: Path, place: Path, dataset: Path) -> None:
    """Add the set of data.hold_out to the sets in `place`, from the same records as a run's ingest."""
    from embedline.data.holdout import hold_out
    from embedline.data.ingest import ingest

    named = [s for s in data.sources if not rule.sources or source_name(s.name, s.path) in rule.sources]
    ingest(named, [], root, dataset)
    hold_out(dataset, place, rule)


def _load_forms(
    folder: Path, config: RunConfig | None, trust_remote_code: bool, stated: Stated
) -> list[EvaluatedModel]:
    """Load every form of a model that its folder holds: torch, or ONNX fp32 and int8."""
    from embedline.evaluation.evaluated_models import load_onnx_model, load_torch_model

    identity = folder.name, folder_digest(folder), folder
    if (folder / "model.onnx").is_file():
        require_unstated(folder, stated)
        forms = {"onnx-fp32": "model.onnx", "onnx-int8": "model_int8.onnx"}
        return [load_onnx_model(*identity, form) for form, file in forms.items() if (folder / file).is_file()]
    runtime = config.runtime if config else RuntimeConfig()
    prepare(runtime)
    third_party = not (folder / "embedline.json").is_file()
    prompts = config.prompts if config and third_party else None
    return [
        load_torch_model(
            *identity,
            bf16=works_in_bf16(runtime, encoding_work(folder_config(folder))),
            prompts=None if prompts is None else PromptTable(prompts),
            attention=attention(runtime),
            trust_remote_code=trust_remote_code,
            stated=stated,
        )
    ]
