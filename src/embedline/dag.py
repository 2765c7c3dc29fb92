"""The line, declared once: every step between preflight and finish, with settings, inputs and outputs.

Cache keys, step configs, plans, groups of cluster tasks, columns of the comparison and types of inputs are
derived from this list. Only what kfp must see as plain code is written a second time
(`pipelines/retrain/pipeline.py`, the outputs of the preflight component); tests compare the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Fields = dict[str, tuple[str, ...]]  # section → fields


@dataclass(frozen=True)
class Step:
    """One step of the line.

    Args:
        name: as in the DAG, in the store and in run records.
        reads: settings that change the step's outputs, and so are part of its key: section (`model`,
            `data.sources`) → fields; an empty tuple means every field of the section.
        ignores: settings inside these sections that the step does not read (`data.sources.weight`).
        inputs: input name → the output that feeds it, as `step.output`.
        outputs: output name → kind of artefact.
        only_with: setting, section or `pins.NAME` → the condition under which the step reads it: a setting
            that is on, `setting=value`, or `not setting`; several joined by ` or `.
            `{"teacher": "teacher.filter"}`: the section `teacher` is read only when `teacher.filter` is on.
        unkeyed: settings that the step reads too but that change no output, in the form of `reads`. It can
            read nothing else of the config.
        pins: hashes or versions, fixed by preflight, of what lies outside the run (data files, base, teacher,
            champion); the named ones are part of the key.
        kind: `cached` steps find their outputs again by key; `trains` are cached steps that several
            processes or nodes can share; `acts` steps run every time, because they change the outside world,
            take no time, or (evaluate) keep their parts in the store themselves.
        module: below `embedline.steps`, with `run(context) -> StepResult`; the name when empty.
        switch: config section that turns the step off; empty for steps that always run.
    """

    name: str
    reads: Fields
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    pins: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()
    only_with: dict[str, str] = field(default_factory=dict)
    unkeyed: Fields = field(default_factory=dict)
    kind: Literal["cached", "trains", "acts"] = "cached"
    module: str = ""
    switch: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "module", self.module or self.name)

    @property
    def cached(self) -> bool:
        """Return whether finished outputs are found again by the step's key."""
        return self.kind != "acts"

    @property
    def trains(self) -> bool:
        """Return whether several processes or nodes can share the step's work."""
        return self.kind == "trains"

    @property
    def input_kinds(self) -> dict[str, str]:
        """Input name → kind of artefact."""
        return {name: output_kind(source) for name, source in self.inputs.items()}


_ALL: tuple[str, ...] = ()  # every field of a section
_MODEL = {"model": "model"}
_DATASET = {"dataset": "clean.dataset"}
_CANDIDATE = {"candidate": "prune_after.model"}
_ONNX = {"onnx": "export.onnx"}
_SCORES = {"scores": "evaluate.scores"}

# Threads and processes change how fast a step is, not what it computes.
_MACHINE: Fields = {"runtime": ("threads", "processes")}
_SOURCE_PATHS: Fields = {"data.sources": ("path",)}  # only for a default name: the content is pinned
_PRECISION: tuple[str, ...] = ("precision", "attention")
_ENCODER = (
    *("pooling", "latent", "mcls_every", "layer_norm", "heads", "multi_vector_width"),
    *("positions", "dynamic_ntk", "lora", "trust_remote_code", "query_length", "document_length"),
)
_TEACHER = ("pooling", "causal")  # how its vectors are made
_BASE = ("base_pooling", "base_causal")
_FROM_SCRATCH = ("architecture", "settings", "vocabulary", "lowercase")
_TOKENS_KEPT = ("min_count", "same_letters")
_TRAINING: Fields = {"seed": _ALL, "model": _ENCODER, "runtime": _PRECISION}


def _pruning(when: str) -> dict[str, str]:
    """Return what pruning reads only when prune.when equals `when`."""
    healing = ("heal_steps", "heal_batch", "heal_learning_rate", "heal_warmup")
    layers = {f"prune.{name}": f"prune.when={when}" for name in ("drop_share", "method", *healing)}
    tokens = {f"prune.vocabulary.{name}": f"prune.vocabulary.when={when}" for name in _TOKENS_KEPT}
    return layers | tokens


def _unkeyed_training(section: str) -> Fields:
    """Return the unkeyed settings of a training stage: how often it logs and saves, and the machine's."""
    return {section: ("checkpoint_every", "log_every"), **_MACHINE, **_SOURCE_PATHS}


def _contrastive(section: str, inputs: dict[str, str]) -> Step:
    """Return the contrastive stage that a config section describes."""
    return Step(
        f"train_{section}",
        {
            section: _ALL,
            "data.sources": ("name", "stages", "weight"),
            "prompts": _ALL,
            "teacher": (*_TEACHER, "languages", "prompts"),
            **_TRAINING,
            "model": (*_ENCODER, "dims", "hybrid"),
        },
        inputs=inputs,
        outputs=_MODEL,
        pins=("teacher",),
        only_with={
            "model.dims": f"{section}.matryoshka",
            "model.hybrid": f"{section}.objective=unified",
            "prompts": f"{section}.prompts",
            "teacher": f"{section}.distillation",
            "pins.teacher": f"{section}.distillation",
        },
        unkeyed=_unkeyed_training(section),
        kind="trains",
        switch=section,
    )


STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step(
            "ingest",
            {"data": _ALL},
            ignores=("data.sources.stages", "data.sources.weight", "data.corpus.weight"),
            outputs={"dataset": "dataset", "evaluation": "evaluation"},
            pins=("sources", "evaluation"),
        ),
        Step(
            "clean",
            {
                "clean": _ALL,
                "data.sources": ("name", "stages"),
                "teacher": (*_TEACHER, "languages", "filter", "prompts"),
                "runtime": _PRECISION,
                "fusion": ("queries",),
            },
            inputs={"dataset": "ingest.dataset", "evaluation": "ingest.evaluation"},
            outputs={"dataset": "dataset"},
            pins=("teacher",),
            only_with={
                "teacher": "teacher.filter",
                "runtime": "teacher.filter",
                "pins.teacher": "teacher.filter",
                "fusion": "fusion",
            },
            unkeyed={**_MACHINE, **_SOURCE_PATHS},
        ),
        Step(
            "prune_before",
            {"prune": _ALL, "prompts": _ALL, **_TRAINING},
            inputs=_DATASET,
            outputs=_MODEL,
            pins=("base",),
            only_with={
                "prompts": "prune.when=before or prune.vocabulary.when=before",
                **_pruning("before"),
            },
            unkeyed={"model": ("base",), **_MACHINE},
            module="prune",
        ),
        Step(
            "pretrain",
            {
                "pretrain": _ALL,
                "data.corpus": ("name", "weight"),
                **_TRAINING,
                "model": (*_ENCODER, *_FROM_SCRATCH),
            },
            inputs={"model": "prune_before.model", **_DATASET},
            outputs=_MODEL,
            pins=("base",),  # the head that predicts tokens
            only_with={f"model.{name}": "not model.base" for name in _FROM_SCRATCH},
            unkeyed={"model": ("base",), **_unkeyed_training("pretrain"), "data.corpus": ("path",)},
            kind="trains",
            switch="pretrain",
        ),
        _contrastive("unsupervised", {"model": "pretrain.model", **_DATASET}),
        Step(
            "mine",
            {"mine": _ALL, "data.sources": ("name", "stages"), "prompts": _ALL, **_TRAINING},
            inputs={"model": "train_unsupervised.model", **_DATASET},
            outputs={"triplets": "triplets"},
            unkeyed={**_MACHINE, **_SOURCE_PATHS},
            switch="mine",
        ),
        _contrastive("supervised", {"model": "train_unsupervised.model", "triplets": "mine.triplets"}),
        Step(
            "prune_after",
            {
                "prune": _ALL,
                "prompts": _ALL,
                **_TRAINING,
                "model": (*_ENCODER, "dims", "hybrid"),
                "fusion": _ALL,
            },
            inputs={"model": "train_supervised.model", **_DATASET},
            outputs=_MODEL,
            only_with={**_pruning("after"), "fusion": "fusion"},
            unkeyed=_MACHINE,
            module="prune",
        ),
        Step(
            "export",
            {"export": _ALL, "model": ("trust_remote_code",)},
            inputs={"model": "prune_after.model", "evaluation": "ingest.evaluation"},
            outputs={"onnx": "onnx"},
            unkeyed={"runtime": ("threads", "processes", *_PRECISION)},
        ),
        Step(
            "evaluate",
            {
                "evaluate": _ALL,
                "model": ("trust_remote_code", "query_length", "document_length", *_BASE),
                "prompts": _ALL,
                "runtime": _PRECISION,
                "fusion": ("method", "legs"),
            },
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
            only_with={"fusion": "fusion"},
            unkeyed=_MACHINE,
            kind="acts",
        ),
        Step(
            "gate",
            {"gate": _ALL},
            inputs={**_SCORES, **_ONNX, **_CANDIDATE},
            outputs={"verdict": "verdict"},
            pins=("champion",),
        ),
        Step(
            "promote",
            {"name": _ALL, "promote": _ALL, "tracking": _ALL},
            inputs={"verdict": "gate.verdict", **_SCORES, **_CANDIDATE, **_ONNX},
            outputs={"promotion": "promotion"},
            pins=("champion",),
            kind="acts",
        ),
        Step(
            "report",
            {"name": _ALL, "description": _ALL},
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
