"""The steps of the line: which module, which slice of the config, what goes in and what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Step:
    """One step.

    Args:
        name: as in the DAG and in the store.
        module: below `embedline.steps`; has `run(context) -> StepResult`.
        sections: of the config; together with the pins they are the step's slice and part of its key.
        pins: digests of outside things (preflight finds them) that the step depends on.
        inputs, outputs: name → kind of artefact.
        cached: whether finished outputs are found again by key; false for steps that act on the outside
            world, are instant, or keep their parts in the store themselves.
    """

    name: str
    module: str
    sections: tuple[str, ...]
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    pins: tuple[str, ...] = ()
    cached: bool = True


_TRAINING = ("seed", "model", "prompts", "runtime")
_MODEL = {"model": "model"}

STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step(
            "ingest",
            "ingest",
            ("data",),
            outputs={"dataset": "dataset", "evaluation": "evaluation"},
            pins=("sources", "evaluation"),
        ),
        Step(
            "clean",
            "clean",
            ("clean", "data.sources", "teacher", "runtime"),
            inputs={"dataset": "dataset", "evaluation": "evaluation"},
            outputs={"dataset": "dataset"},
            pins=("teacher",),
        ),
        Step(
            "prune_before",
            "prune",
            ("prune", *_TRAINING),
            inputs={"dataset": "dataset"},
            outputs=_MODEL,
            pins=("base",),
        ),
        Step(
            "pretrain",
            "pretrain",
            ("pretrain", "data.corpus", *_TRAINING),
            inputs={"model": "model", "dataset": "dataset"},
            outputs=_MODEL,
            pins=("base",),  # the head that predicts tokens
        ),
        Step(
            "train_unsupervised",
            "train_unsupervised",
            ("unsupervised", "data.sources", "teacher", *_TRAINING),
            inputs={"model": "model", "dataset": "dataset"},
            outputs=_MODEL,
            pins=("teacher",),
        ),
        Step(
            "mine",
            "mine",
            ("mine", "data.sources", *_TRAINING),
            inputs={"model": "model", "dataset": "dataset"},
            outputs={"triplets": "triplets"},
        ),
        Step(
            "train_supervised",
            "train_supervised",
            ("supervised", "data.sources", "teacher", *_TRAINING),
            inputs={"model": "model", "triplets": "triplets"},
            outputs=_MODEL,
            pins=("teacher",),
        ),
        Step(
            "prune_after",
            "prune",
            ("prune", *_TRAINING),
            inputs={"model": "model", "dataset": "dataset"},
            outputs=_MODEL,
        ),
        Step(
            "export",
            "export",
            ("export", "model", "runtime"),
            inputs={"model": "model", "evaluation": "evaluation"},
            outputs={"onnx": "onnx"},
        ),
        Step(
            "evaluate",
            "evaluate",
            ("evaluate", "model", "prompts", "runtime"),
            inputs={
                "pretrained": "model",
                "unsupervised": "model",
                "supervised": "model",
                "candidate": "model",
                "onnx": "onnx",
                "evaluation": "evaluation",
            },
            outputs={"scores": "scores"},
            pins=("base", "champion", "mteb"),
            cached=False,
        ),
        Step(
            "gate",
            "gate",
            ("gate",),
            inputs={"scores": "scores", "onnx": "onnx", "candidate": "model"},
            outputs={"verdict": "verdict"},
            pins=("champion",),
        ),
        Step(
            "promote",
            "promote",
            ("name", "promote", "tracking"),
            inputs={"verdict": "verdict", "scores": "scores", "candidate": "model", "onnx": "onnx"},
            outputs={"promotion": "promotion"},
            pins=("champion",),
            cached=False,
        ),
        Step(
            "report",
            "report",
            ("name", "description"),
            inputs={
                "dataset": "dataset",
                "triplets": "triplets",
                "onnx": "onnx",
                "scores": "scores",
                "verdict": "verdict",
                "promotion": "promotion",
            },
            outputs={"report": "report"},
            cached=False,
        ),
    )
}
