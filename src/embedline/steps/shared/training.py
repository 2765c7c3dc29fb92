"""What the training steps share: the model that comes in, the records of a stage, the model that goes out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedline.config.data import Source
from embedline.config.model import ModelConfig, Prompt, TeacherConfig
from embedline.config.training import RuntimeConfig
from embedline.errors import EmbedlineError, InputError
from embedline.models.prompts import PromptTable
from embedline.steps.context import Context, StepResult

if TYPE_CHECKING:
    from embedline.models.embedder import Embedder, EmbedderSpec
    from embedline.training.batching.records import Record, SourceRecords

_SETTINGS = {
    "training",
    "batch",
    "buckets",
    "task_shares",
}  # what the training room names: it does not know the stage


def wanted_spec(context: Context) -> EmbedderSpec:
    """Pooling, lengths, dims and prompts as the run's config asks for."""
    from embedline.models.folder import spec_from_config

    prompts = context.step_config.section("prompts", dict[str, Prompt])
    return spec_from_config(context.step_config.section("model", ModelConfig), PromptTable(prompts))


def load_model(context: Context) -> Embedder:
    """The model that the step was handed, where this machine works, with what the run's spec adds to it."""
    return load_folder(context, context.artifact("model").path)


def load_folder(context: Context, folder: Path) -> Embedder:
    """A model folder with the run's spec; a pooling or head new to it starts at random, by the run's seed."""
    from embedline.models.device import best_device
    from embedline.models.folder import load_embedder
    from embedline.models.machine import attention

    model = context.step_config.section("model", ModelConfig)
    runtime = context.step_config.section("runtime", RuntimeConfig)
    embedder = load_embedder(folder, attention=attention(runtime), trust_remote_code=model.trust_remote_code)
    return embedder.with_spec(wanted_spec(context), seed=context.step_config.config["seed"]).to(best_device())


def load_teacher(context: Context) -> Embedder:
    """The run's teacher where this machine works, with the words that it is asked with."""
    from embedline.models.device import best_device
    from embedline.models.folder import load_embedder
    from embedline.models.machine import attention

    about = context.step_config.section("teacher", TeacherConfig)
    runtime = context.step_config.section("runtime", RuntimeConfig)
    teacher = load_embedder(Path(str(context.step_config.locations["teacher"])), attention=attention(runtime))
    if about.prompts:
        teacher = teacher.with_spec(replace(teacher.spec, prompts=PromptTable(about.prompts)))
    return teacher.to(best_device()).eval()


def fit(context: Context, embedder: Embedder) -> Embedder:
    """A model that is new to the line, made to fit the run: bidirectional, with the positions it needs.

    Raises:
        InputError: the run's lengths are beyond the model's positions, or a dim is wider than it.
    """
    from embedline.models.backbone import prepare_backbone
    from embedline.models.folder_checks import require_same_tokenizer
    from embedline.models.lengths import require_lengths

    model = context.step_config.section("model", ModelConfig)
    prepare_backbone(embedder.backbone, embedder.tokenizer, model)
    require_same_tokenizer(embedder)  # saving would refuse it, after the training
    require_lengths(embedder)
    for dim in model.dims:
        if dim > embedder.width:
            raise InputError(f"{dim} is larger than the base's width {embedder.width}.", where="model.dims")
    return embedder


@contextmanager
def naming(section: str) -> Iterator[None]:
    """What a training says about its settings, it says about this section: `batch` is `supervised.batch`."""
    try:
        yield
    except EmbedlineError as error:
        if error.where not in _SETTINGS:
            raise
        where = section if error.where == "training" else f"{section}.{error.where}"
        raise type(error)(error.what, where=where, fix=error.fix) from error


@contextmanager
def adapters(context: Context, embedder: Embedder) -> Iterator[None]:
    """While a model is trained, its backbone has LoRA adapters where the run asks for them; merged after."""
    lora = context.step_config.section("model", ModelConfig).lora
    if lora is None:
        yield
        return
    import torch

    from embedline.models.lora import add_lora, merge_lora

    torch.manual_seed(context.step_config.config["seed"])
    add_lora(embedder.backbone, lora)
    yield
    merge_lora(embedder.backbone)


def stage_sources(context: Context, stage: str) -> dict[str, Source]:
    """The sources that a stage uses, by name."""
    from embedline.data.sources import source_name

    sources = context.step_config.section("data.sources", list[Source])
    return {source_name(s.name, s.path): s for s in sources if stage in s.stages}


def stage_records(context: Context, stage: str, artifact: str) -> dict[str, SourceRecords]:
    from embedline.training.batching.records import read_records

    return read_records(_records_file(context, artifact), stage_sources(context, stage))


def streamed_records(context: Context, stage: str, artifact: str) -> Iterator[Record]:
    """The same, one by one from the disk."""
    from embedline.training.batching.records import stream_records

    return stream_records(_records_file(context, artifact), stage_sources(context, stage))


def _records_file(context: Context, artifact: str) -> Path:
    return context.artifact(artifact).path / "records.parquet"


def keep_model(context: Context, embedder: Embedder, **lineage: Any) -> None:
    """Write the step's output `model`; its lineage says what each step before did to it.

    Of several processes, the first one does.
    """
    from embedline.models.folder import read_lineage, save_embedder
    from embedline.training.engine import processes

    if not processes.is_first():
        return
    before = context.inputs.get("model")
    history = read_lineage(before.path) if before else []
    save_embedder(embedder, context.output("model"), lineage=[*history, {"step": context.step, **lineage}])


def passed_through(context: Context) -> StepResult:
    """A stage that is switched off hands its model on by reference."""
    return StepResult(passed_through={"model": context.inputs["model"]}, summary=f"`{context.step}` is off.")
