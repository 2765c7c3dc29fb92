"""clean: reject rows that must not be trained on; count them and keep them for inspection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedline.config.data import CleanConfig, Source
from embedline.config.fusion import FusionConfig
from embedline.config.model import TeacherConfig
from embedline.config.training import RuntimeConfig
from embedline.data.sources import source_name
from embedline.models.machine import prepare
from embedline.steps.context import Context, StepResult
from embedline.steps.shared.training import encodes_in_bf16, load_teacher

if TYPE_CHECKING:
    import numpy as np

    from embedline.data.consistency import Encode
    from embedline.models.prompts import Side


def run(context: Context) -> StepResult:
    """Write the output `dataset`: clean records and corpus, rejected rows, and the funnel.

    With section `fusion`, records are set aside for the fit of its weights.
    """
    from embedline.data.clean import clean
    from embedline.data.set_aside import set_aside

    teacher = context.step_config.section("teacher", TeacherConfig)  # None when the run has no teacher
    funnel = clean(
        context.artifact("dataset").path,
        context.artifact("evaluation").path,
        context.output("dataset"),
        context.step_config.section("clean", CleanConfig),
        _teacher(context) if teacher and teacher.filter else None,
        teacher.languages if teacher else [],
        {
            source_name(s.name, s.path): s.stages
            for s in context.step_config.section("data.sources", list[Source])
        },
    )
    fusion = context.step_config.section("fusion", FusionConfig)  # None when the run fits none
    taken = set_aside(context.output("dataset"), fusion.queries) if fusion else 0
    counts = {
        "records": funnel.rows_out("records") - taken,
        **({"set_aside": taken} if fusion else {}),
        "passages": funnel.rows_out("corpus"),
        "rejected": funnel.rejected("records").total(),
        "rejected_passages": funnel.rejected("corpus").total(),
    }
    return StepResult(
        metrics=funnel.metrics(),
        summary=funnel.markdown(),
        counts={"dataset": counts},
        metadata={"dataset": {"funnel": funnel.as_json()}},
    )


def _teacher(context: Context) -> Encode:
    """Load the teacher; it encodes texts with its own prompts for each row's source and task type."""

    prepare(context.step_config.section("runtime", RuntimeConfig))
    embedder = load_teacher(context)
    bf16 = encodes_in_bf16(context, embedder)

    def encode(texts: list[str], source: str, task_type: str, side: Side) -> np.ndarray:
        return embedder.encode_side(texts, side, name=source, task_type=task_type, bf16=bf16)

    return encode
