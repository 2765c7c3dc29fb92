"""Conversion of the values of FlagEmbedding's flags into the values of preset keys.

A writer takes a flag's value and all arguments of the command, and returns the key's value; None leaves the
key out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedline.errors import InputError

Writer = Callable[[Any, "Arguments"], Any]
NO_IN_BATCH = "no_in_batch_neg"
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant"}
SCHEDULES |= {"constant_with_warmup": "constant", "warmup_stable_decay": "warmup_stable_decay"}
POOLINGS = {"cls": "cls", "mean": "mean", "last_token": "last"}
DISTILLATION_LOSSES = {"kl_div": "kl_div", "m3_kd_loss": "m3_kd_loss"}


@dataclass(frozen=True)
class Arguments:
    """The arguments of one command.

    Args:
        flags: values by flag name; those that the command leaves out with FlagEmbedding's default.
        module: the Python module that is run (FlagEmbedding.finetune.embedder.encoder_only.m3); empty when
            the command does not name it.
        devices: processes that train together.
        rows: number of rows in all training data; None when they could not be counted.
    """

    flags: Mapping[str, Any] = field(default_factory=dict)
    module: str = ""
    devices: int = 1
    rows: int | None = None

    def __getitem__(self, name: str) -> Any:
        return self.flags.get(name)


def optimizer_steps(arguments: Arguments) -> int | None:
    """Return the optimizer steps; None when they depend on the number of rows and it is not known."""
    if (arguments["max_steps"] or 0) > 0:
        return int(arguments["max_steps"])
    if arguments.rows is None:
        return None
    epochs: float = arguments["num_train_epochs"]
    return max(1, math.ceil(epochs * math.ceil(arguments.rows / total_batch(arguments))))


def total_batch(arguments: Arguments) -> int:
    """Return the pairs a step, over all devices and accumulated steps; at least 2, for one negative."""
    one = arguments["per_device_train_batch_size"] * (arguments["gradient_accumulation_steps"] or 1)
    return max(2, int(one * arguments.devices))


def sources(paths: list[str], arguments: Arguments) -> tuple[list[dict[str, Any]], bool | None]:
    """Write `data.sources`, and `in_batch_negatives: false` when all files are marked so by their name."""
    stems = [Path(path).name.removesuffix(".jsonl") for path in paths]
    entries: list[dict[str, Any]] = []
    for path, stem in zip(paths, stems, strict=True):
        limit = arguments["max_example_num_per_dataset"]
        parent = Path(path).parent.name
        name = {"name": f"{parent}-{stem}"} if stems.count(stem) > 1 and parent else {}
        entries.append({**name, "path": path, **({"limit": limit} if limit else {})})
    all_marked = all(
        stem.endswith(NO_IN_BATCH) or Path(path).parent.name.endswith(NO_IN_BATCH)
        for path, stem in zip(paths, stems, strict=True)
    )
    return entries, False if all_marked and arguments["train_group_size"] > 1 else None


def prompt(side: str) -> Writer:
    """Make the writer of one side's prompt: the instruction in its format, up to the text."""

    def write(instruction: str, arguments: Arguments) -> str:
        name = f"{side}_instruction_format"
        form = str(arguments[name] or "{}{}").replace("\\n", "\n")
        if form.count("{}") != 2 or not form.endswith("{}"):
            raise InputError(
                f"{form!r} does not end with the text's {{}}; a prompt stands before a text.",
                where=f"--{name}",
            )
        return form.removesuffix("{}").replace("{}", instruction)

    return write


def step_interval(value: float, arguments: Arguments) -> int | None:
    """Write an interval in steps; below 1 the value is a share of all steps."""
    if value >= 1:
        return int(value)
    steps = optimizer_steps(arguments)
    return max(1, math.ceil(value * steps)) if steps and value > 0 else None


def warmup(value: float, arguments: Arguments) -> float | None:
    """Write the warm-up as a share of the steps; from 1 on the value is a number of steps."""
    steps = optimizer_steps(arguments)
    if value < 1:
        return value or None
    return min(value / steps, 0.99) if steps else None


def one_of(flag: str, known: Mapping[str, str]) -> Writer:
    """Make a writer that replaces each known value of a flag by its counterpart and refuses the rest."""

    def write(value: str, arguments: Arguments) -> str:
        if value not in known:
            raise InputError(
                f"{value!r} has no counterpart.", where=f"--{flag}", fix=f"Known: {', '.join(known)}."
            )
        return known[value]

    return write


def only_with_lora(value: Any, arguments: Arguments) -> Any:
    """Keep the value when the command trains with LoRA."""
    return value if arguments["use_lora"] else None


def unified(on: bool, arguments: Arguments) -> tuple[list[str] | None, str | None]:
    """Write `model.heads` and `supervised.objective` of BGE-M3's unified fine-tuning."""
    return (["dense", "lexical", "multi_vector"], "unified") if on else (None, None)


def only_with_unified(value: Any, arguments: Arguments) -> Any:
    """Keep the value when the command trains all three heads together."""
    return value if arguments["unified_finetuning"] else None


def self_distillation_start(start: int, arguments: Arguments) -> int | None:
    """Write the first optimizer step with self-distillation.

    FlagEmbedding counts forward passes from 0 and starts after the pass `start`.
    """
    first = max(0, start + 1) // (arguments["gradient_accumulation_steps"] or 1)
    return first if arguments["unified_finetuning"] else None


def distillation_loss(value: str, arguments: Arguments) -> str | None:
    """Write the loss of a distillation, when the command has one."""
    loss: str = one_of("kd_loss_type", DISTILLATION_LOSSES)(value, arguments)
    return loss if arguments["knowledge_distillation"] else None


def nothing(value: Any, arguments: Arguments) -> None:
    """Write nothing: another flag's writer uses this value; the flag's note names it."""


def chunk_tokens(texts_per_chunk: int, arguments: Arguments) -> int | None:
    """Write the tokens of a GradCache chunk that holds so many texts of the longer side."""
    longest = max(arguments["query_max_len"], arguments["passage_max_len"])
    return max(64, texts_per_chunk * longest) if texts_per_chunk > 0 else None
