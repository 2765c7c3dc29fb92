"""Parts shared by the training steps: loading the input model and a stage's records, saving the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedline.config.data import Source
from embedline.config.model import ModelConfig, Prompt, TeacherConfig
from embedline.config.training import RuntimeConfig
from embedline.data.sources import source_name
from embedline.errors import EmbedlineError
from embedline.models.layer_work import encoding_work, training_work
from embedline.models.machine import attention, works_in_bf16
from embedline.models.prompts import PromptTable
from embedline.steps.context import Context, StepResult

if TYPE_CHECKING:
    from embedline.models.embedder import Embedder, EmbedderSpec
    from embedline.training.batching.records import Record, SourceRecords

# The settings that errors of the training room name, without their section: it depends on the stage.
_SETTINGS = {"training", "batch", "buckets", "task_shares"}


def run_spec(context: Context, before: EmbedderSpec | None = None) -> EmbedderSpec:
    """Return the pooling, lengths, dims and prompts of the run's config, as far as the step reads them.

    Args:
        before: the model's spec so far, which keeps the rest: a base its own prompts, unless the run has any.
    """
    from embedline.models.folder import spec_from_config

    model = context.step_config.section("model", ModelConfig)
    if context.step_config.config.get("prompts") is None:
        return spec_from_config(model, before=before)
    return spec_from_config(
        model, PromptTable(context.step_config.section("prompts", dict[str, Prompt])), before
    )


def load_model(context: Context) -> Embedder:
    """Load the step's input model with the run's spec, onto this machine's best device."""
    return load_folder(context, context.artifact("model").path)


def load_folder(context: Context, folder: Path) -> Embedder:
    """Load a model folder with the run's spec; a new pooling or head is random, by the run's seed."""
    from embedline.models.device import best_device
    from embedline.models.folder import load_embedder

    model = context.step_config.section("model", ModelConfig)
    runtime = context.step_config.section("runtime", RuntimeConfig)
    embedder = load_embedder(
        folder,
        attention=attention(runtime),
        trust_remote_code=model.trust_remote_code,
        as_base=True,
    )
    spec = run_spec(context, embedder.spec)
    return embedder.with_spec(spec, seed=context.step_config.config["seed"]).to(best_device())


def load_teacher(context: Context) -> Embedder:
    """Load the run's teacher with its own prompts, onto this machine's best device."""
    from embedline.models.device import best_device
    from embedline.models.folder import load_embedder
    from embedline.models.stated import Stated

    config = context.step_config.section("teacher", TeacherConfig)
    runtime = context.step_config.section("runtime", RuntimeConfig)
    teacher = load_embedder(
        context.outside("teacher"),
        attention=attention(runtime),
        stated=Stated(config.pooling, config.causal),
    )
    if config.prompts:
        teacher = teacher.with_spec(replace(teacher.spec, prompts=PromptTable(config.prompts)))
    return teacher.to(best_device()).eval()


def trains_in_bf16(context: Context, embedder: Embedder, *, tokens: int, length: int) -> bool:
    """Return whether a training runs under bf16 autocast, in chunks of `tokens` tokens of such texts."""
    work = training_work(embedder.backbone.config.to_dict(), tokens=tokens, length=length)
    return works_in_bf16(context.step_config.section("runtime", RuntimeConfig), work)


def encodes_in_bf16(context: Context, embedder: Embedder) -> bool:
    """Return whether a model encodes under bf16 autocast."""
    work = encoding_work(embedder.backbone.config.to_dict())
    return works_in_bf16(context.step_config.section("runtime", RuntimeConfig), work)


def fit_to_run(context: Context, embedder: Embedder) -> Embedder:
    """Make a base model fit the run: bidirectional, with the positions that the run needs.

    Raises:
        InputError: the run's lengths are beyond the model's positions, a dim is wider than it, or its config
            cannot hold these changes.
    """
    from embedline.models.backbone import prepare_backbone
    from embedline.models.folder_checks import require_same_tokenizer
    from embedline.models.lengths import require_dims, require_lengths
    from embedline.models.reload import require_described

    model = context.step_config.section("model", ModelConfig)
    prepare_backbone(embedder.backbone, embedder.tokenizer, model)
    require_same_tokenizer(embedder)  # saving would refuse it, after the training
    require_lengths(embedder)
    require_dims(embedder)
    where = "model.base" if model.base else "model.architecture"
    require_described(embedder, where, "Use another architecture: this one does not store these changes.")
    return embedder


@contextmanager
def errors_in_section(section: str) -> Iterator[None]:
    """Add the section to the settings that a training's errors name: `batch` becomes `supervised.batch`."""
    try:
        yield
    except EmbedlineError as error:
        if error.where not in _SETTINGS:
            raise
        where = section if error.where == "training" else f"{section}.{error.where}"
        raise type(error)(error.what, where=where, fix=error.fix) from error


@contextmanager
def adapters(context: Context, embedder: Embedder) -> Iterator[None]:
    """Add the run's LoRA adapters to the backbone, if it has any, and merge them after the training."""
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


def machine_params(embedder: Embedder, *, bf16: bool) -> dict[str, str | int]:
    """Return what `auto` settings and the machine decided, for the run's record."""
    import torch

    return {
        "precision": "bf16" if bf16 else "fp32",
        "attention": embedder.backbone.config._attn_implementation,
        "threads": torch.get_num_threads(),
    }


def stage_sources(context: Context, stage: str) -> dict[str, Source]:
    """Return the sources that a stage uses, by name."""
    sources = context.step_config.section("data.sources", list[Source])
    return {source_name(s.name, s.path): s for s in sources if stage in s.stages}


def stage_records(context: Context, stage: str, artifact: str) -> dict[str, SourceRecords]:
    """Read the records of a stage by source."""
    from embedline.training.batching.records import read_records

    return read_records(_records_file(context, artifact), stage_sources(context, stage))


def streamed_records(context: Context, stage: str, artifact: str) -> Iterator[Record]:
    """Yield the records of a stage one by one from the disk."""
    from embedline.training.batching.records import stream_records

    return stream_records(_records_file(context, artifact), stage_sources(context, stage))


def _records_file(context: Context, artifact: str) -> Path:
    return context.artifact(artifact).path / "records.parquet"


def save_model(context: Context, embedder: Embedder, **lineage: Any) -> None:
    """Write the step's output `model` with its lineage; of several processes, the first one does."""
    from embedline.models.folder import read_lineage, save_embedder
    from embedline.training.engine import processes

    if not processes.is_first():
        return
    before = context.inputs.get("model")
    history = read_lineage(before.path) if before else []
    save_embedder(embedder, context.output("model"), lineage=[*history, {"step": context.step, **lineage}])


def passed_through(context: Context) -> StepResult:
    """Return the input model by reference: the stage is switched off."""
    return StepResult(passed_through={"model": context.inputs["model"]}, summary=f"`{context.step}` is off.")
