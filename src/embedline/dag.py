"""The line, declared once: every step with its config sections, pins, inputs, outputs and kind.

Everything that follows from this list is derived from it. Only what kfp must see as plain code is written a
second time (`pipelines/retrain/pipeline.py`, the outputs of the preflight component); tests compare the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Step:
    """One step of the line.

    Args:
        name: as in the DAG, in the store and in run records.
        sections: what the step reads of the config (`data.corpus`, `runtime.precision`); with the pins, this
            is its `StepConfig` and part of its key.
        inputs: input name → the output that feeds it, as `step.output`.
        outputs: output name → kind of artefact.
        pins: digests of outside things, found by preflight, that the step depends on.
        kind: `cached` steps find their outputs again by key; `trains` are cached steps that several
            processes or nodes can share; `acts` steps run every time, because they change the outside world,
            take no time, or keep their parts in the store themselves.
        module: below `embedline.steps`, with `run(context) -> StepResult`; the name when empty.
        switch: config section that turns the step off; empty for steps that always run.
    """

    name: str
    sections: tuple[str, ...]
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    pins: tuple[str, ...] = ()
    kind: Literal["cached", "trains", "acts"] = "cached"
    module: str = ""
    switch: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "module", self.module or self.name)

    @property
    def cached(self) -> bool:
        """Whether finished outputs are found again by the step's key."""
        return self.kind != "acts"

    @property
    def trains(self) -> bool:
        """Whether several processes or nodes can share the step's work."""
        return self.kind == "trains"

    @property
    def input_kinds(self) -> dict[str, str]:
        """Input name → kind of artefact."""
        return {name: output_kind(source) for name, source in self.inputs.items()}


_TRAINING = ("seed", "model", "prompts", "runtime")
_MODEL = {"model": "model"}
_DATASET = {"dataset": "clean.dataset"}
_CANDIDATE = {"candidate": "prune_after.model"}
_ONNX = {"onnx": "export.onnx"}
_SCORES = {"scores": "evaluate.scores"}

STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step(
            "ingest",
            ("data",),
            outputs={"dataset": "dataset", "evaluation": "evaluation"},
            pins=("sources", "evaluation"),
        ),
        Step(
            "clean",
            ("clean", "data.sources", "teacher", "runtime"),
            inputs={"dataset": "ingest.dataset", "evaluation": "ingest.evaluation"},
            outputs={"dataset": "dataset"},
            pins=("teacher",),
        ),
        Step(
            "prune_before",
            ("prune", *_TRAINING),
            inputs=_DATASET,
            outputs=_MODEL,
            pins=("base",),
            module="prune",
        ),
        Step(
            "pretrain",
            ("pretrain", "data.corpus", *_TRAINING),
            inputs={"model": "prune_before.model", **_DATASET},
            outputs=_MODEL,
            pins=("base",),  # the head that predicts tokens
            kind="trains",
            switch="pretrain",
        ),
        Step(
            "train_unsupervised",
            ("unsupervised", "data.sources", "teacher", *_TRAINING),
            inputs={"model": "pretrain.model", **_DATASET},
            outputs=_MODEL,
            pins=("teacher",),
            kind="trains",
            switch="unsupervised",
        ),
        Step(
            "mine",
            ("mine", "data.sources", *_TRAINING),
            inputs={"model": "train_unsupervised.model", **_DATASET},
            outputs={"triplets": "triplets"},
            switch="mine",
        ),
        Step(
            "train_supervised",
            ("supervised", "data.sources", "teacher", *_TRAINING),
            inputs={"model": "train_unsupervised.model", "triplets": "mine.triplets"},
            outputs=_MODEL,
            pins=("teacher",),
            kind="trains",
            switch="supervised",
        ),
        Step(
            "prune_after",
            ("prune", *_TRAINING),
            inputs={"model": "train_supervised.model", **_DATASET},
            outputs=_MODEL,
            module="prune",
        ),
        Step(
            "export",
            ("export", "model", "runtime"),
            inputs={"model": "prune_after.model", "evaluation": "ingest.evaluation"},
            outputs={"onnx": "onnx"},
        ),
        Step(
            "evaluate",
            ("evaluate", "model", "prompts", "runtime"),
            inputs={
                "pretrained": "pretrain.model",
                "unsupervised": "train_unsupervised.model",
                "supervised": "train_supervised.model",
                **_CANDIDATE,
                **_ONNX,
                "evaluation": "ingest.evaluation",
            },
            outputs={"scores": "scores"},
            pins=("base", "champion", "mteb"),
            kind="acts",
        ),
        Step(
            "gate",
            ("gate",),
            inputs={**_SCORES, **_ONNX, **_CANDIDATE},
            outputs={"verdict": "verdict"},
            pins=("champion",),
        ),
        Step(
            "promote",
            ("name", "promote", "tracking"),
            inputs={"verdict": "gate.verdict", **_SCORES, **_CANDIDATE, **_ONNX},
            outputs={"promotion": "promotion"},
            pins=("champion",),
            kind="acts",
        ),
        Step(
            "report",
            ("name", "description"),
            inputs={
                **_DATASET,
                "triplets": "mine.triplets",
                **_ONNX,
                **_SCORES,
                "verdict": "gate.verdict",
                "promotion": "promote.promotion",
            },
            outputs={"report": "report"},
            kind="acts",
        ),
    )
}


def output_kind(source: str) -> str:
    """Return the kind of artefact of an output, named as `step.output`."""
    step, _, output = source.partition(".")
    return STEPS[step].outputs[output]
