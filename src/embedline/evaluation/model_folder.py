"""Score one model folder outside a run: what `embedline evaluate` does."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedline.artifacts.manifest import folder_digest
from embedline.artifacts.workspace import Workspace
from embedline.config.data import EvaluationSet
from embedline.config.schema import RunConfig
from embedline.config.training import RuntimeConfig
from embedline.evaluation.bm25 import BM25_DIGEST
from embedline.models.machine import attention, prepare

if TYPE_CHECKING:
    from embedline.evaluation.local import Subject


def score_folder(
    model: Path,
    sets: Sequence[EvaluationSet],
    config: RunConfig | None,
    preset: str,
    work: Path,
    *,
    bm25: bool = False,
    trust_remote_code: bool = False,
) -> list[dict[str, Any]]:
    """The score rows of a model on `sets`, and on the sets and mteb tasks of a preset's config.

    Args:
        model: folder of a model, or of an exported one (its fp32 form, and int8 where there is one).
        preset: name or path of the config's preset, which its paths start from.
        bm25: score BM25 on the retrieval sets, too.

    Raises:
        InputError: a set cannot be read, or the model cannot be loaded.
        StepError: an mteb task failed.
    """
    from embedline.data.evaluation_sets import lay_out, set_names
    from embedline.data.root import data_root
    from embedline.evaluation.local import score_bm25, score_subject
    from embedline.evaluation.rumteb import score_tasks
    from embedline.evaluation.sets import read_sets

    tasks: list[str] = []
    wanted = [item.model_copy(update={"path": str(Path(item.path).resolve())}) for item in sets]
    root = Path.cwd()
    if config is not None:
        root = data_root(config, preset, Workspace(work))
        wanted, tasks = [*wanted, *config.data.evaluation], config.evaluate.mteb_tasks
    set_names(wanted)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="embedline-sets-") as scratch:
        lay_out(wanted, root, Path(scratch))
        found = read_sets(Path(scratch))
        for subject in _subjects(model, config, trust_remote_code):
            rows += score_subject(subject, found).rows
            if tasks:
                assert config is not None
                copies = config.evaluate.mteb_root
                rows += score_tasks(subject, tasks, root=root / Path(copies).expanduser() if copies else None)
        if bm25:
            rows += score_bm25(found, digest=BM25_DIGEST).rows
    return rows


def _subjects(model: Path, config: RunConfig | None, trust_remote_code: bool) -> list[Subject]:
    from embedline.evaluation.subjects import onnx_subject, torch_subject
    from embedline.models.prompts import PromptTable

    who = model.name, folder_digest(model), model
    if (model / "model.onnx").is_file():
        forms = {"onnx-fp32": "model.onnx", "onnx-int8": "model_int8.onnx"}
        return [onnx_subject(*who, form) for form, file in forms.items() if (model / file).is_file()]
    runtime = config.runtime if config else RuntimeConfig()
    outside = config is not None and not (model / "embedline.json").is_file()
    return [
        torch_subject(
            *who,
            bf16=prepare(runtime),
            prompts=PromptTable(config.prompts) if outside and config else None,
            attention=attention(runtime),
            trust_remote_code=trust_remote_code,
        )
    ]
