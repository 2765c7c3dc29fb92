"""From the words of FlagEmbedding's flags to the values of preset keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedline.errors import InputError

Read = Callable[[list[str]], Any]
Write = Callable[[Any, "Given"], Any]
NO_IN_BATCH = "no_in_batch_neg"


@dataclass(frozen=True)
class Given:
    """What a command says.

    Args:
        flags: values by name, read; those that the command leaves out with FlagEmbedding's default.
        module: what is run (FlagEmbedding.finetune.embedder.encoder_only.m3); empty when it is not said.
        devices: processes that train together.
        rows: of all training data; None when they could not be counted.
    """

    flags: Mapping[str, Any] = field(default_factory=dict)
    module: str = ""
    devices: int = 1
    rows: int | None = None

    def __getitem__(self, name: str) -> Any:
        return self.flags.get(name)


def text(words: list[str]) -> str:
    (word,) = words
    return word


def texts(words: list[str]) -> list[str]:
    if not words:
        raise ValueError
    return words


def whole(words: list[str]) -> int:
    return int(text(words))


def wholes(words: list[str]) -> list[int]:
    return [int(word) for word in texts(words)]


def number(words: list[str]) -> float:
    return float(text(words))


def yes(words: list[str]) -> bool:
    """As transformers' HfArgumentParser reads a switch: alone, or with a word for true or false."""
    return _SWITCH[text(words).lower() if words else "true"]


_SWITCH = dict.fromkeys(("yes", "true", "t", "y", "1"), True)
_SWITCH |= dict.fromkeys(("no", "false", "f", "n", "0"), False)
KINDS: dict[Read, str] = {
    text: "one value",
    texts: "at least one value",
    whole: "a whole number",
    wholes: "whole numbers",
    number: "a number",
    yes: "True or False",
}


def steps_of(given: Given) -> int | None:
    """Optimizer steps; None when only the size of the data could tell and it is not known."""
    if (given["max_steps"] or 0) > 0:
        return int(given["max_steps"])
    if given.rows is None:
        return None
    epochs: float = given["num_train_epochs"]
    return max(1, math.ceil(epochs * math.ceil(given.rows / batch_of(given))))


def batch_of(given: Given) -> int:
    """Pairs a step, over all devices and accumulated steps; one pair has no negatives in its batch."""
    one = given["per_device_train_batch_size"] * (given["gradient_accumulation_steps"] or 1)
    return max(2, int(one * given.devices))


def sources(paths: list[str], given: Given) -> tuple[list[dict[str, Any]], bool | None]:
    stems = [Path(path).name.removesuffix(".jsonl") for path in paths]
    found: list[dict[str, Any]] = []
    for path, stem in zip(paths, stems, strict=True):
        limit = given["max_example_num_per_dataset"]
        parent = Path(path).parent.name
        name = {"name": f"{parent}-{stem}"} if stems.count(stem) > 1 and parent else {}
        found.append({**name, "path": path, **({"limit": limit} if limit else {})})
    alone = all(
        stem.endswith(NO_IN_BATCH) or Path(path).parent.name.endswith(NO_IN_BATCH)
        for path, stem in zip(paths, stems, strict=True)
    )
    return found, False if alone and given["train_group_size"] > 1 else None


def prompt(side: str) -> Write:
    def write(instruction: str, given: Given) -> str:
        name = f"{side}_instruction_format"
        form = str(given[name] or "{}{}").replace("\\n", "\n")
        if form.count("{}") != 2 or not form.endswith("{}"):
            raise InputError(
                f"{form!r} does not end with the text's {{}}; a prompt stands before a text.",
                where=f"--{name}",
            )
        return form.removesuffix("{}").replace("{}", instruction)

    return write


def steps_between(value: float, given: Given) -> int | None:
    """A number of steps, or below 1 a share of all of them."""
    if value >= 1:
        return int(value)
    steps = steps_of(given)
    return max(1, math.ceil(value * steps)) if steps and value > 0 else None


def warmup(value: float, given: Given) -> float | None:
    steps = steps_of(given)
    if value < 1:
        return value or None
    return min(value / steps, 0.99) if steps else None


def one_of(flag: str, known: Mapping[str, str]) -> Write:
    def write(value: str, given: Given) -> str:
        if value not in known:
            raise InputError(
                f"{value!r} has no counterpart.", where=f"--{flag}", fix=f"Known: {', '.join(known)}."
            )
        return known[value]

    return write


def if_lora(value: Any, given: Given) -> Any:
    return value if given["use_lora"] else None


def unified(on: bool, given: Given) -> tuple[Any, Any]:
    return (["dense", "lexical", "multi_vector"], "unified") if on else (None, None)


def if_unified(value: Any, given: Given) -> Any:
    return value if given["unified_finetuning"] else None


def distilled_from(start: int, given: Given) -> int | None:
    """The first optimizer step that self-distils; theirs counts forward passes and starts after `start`."""
    first = max(0, start + 1) // (given["gradient_accumulation_steps"] or 1)
    return first if given["unified_finetuning"] else None


def kd_loss(value: str, given: Given) -> str | None:
    known = {"kl_div": "kl_div", "m3_kd_loss": "m3_kd_loss"}
    found: str = one_of("kd_loss_type", known)(value, given)
    return found if given["knowledge_distillation"] else None


def elsewhere(value: Any, given: Given) -> None:
    """The flag acts through the row that its note names."""


def sub_batch(texts_at_once: int, given: Given) -> int | None:
    longest = max(given["query_max_len"], given["passage_max_len"])
    return max(64, texts_at_once * longest) if texts_at_once > 0 else None


SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant"}
SCHEDULES |= {"constant_with_warmup": "constant", "warmup_stable_decay": "warmup_stable_decay"}
POOLING = {"cls": "cls", "mean": "mean", "last_token": "last"}
# Arguments of transformers' Trainer that say how it works and not what is learnt.
_OTHER = """
    accelerator_config activation_checkpointing activation_checkpointing_kwargs auto_find_batch_size
    average_tokens_across_devices batch_eval_metrics bf16_full_eval data_seed dataloader_in_order
    dataloader_multiprocessing_context dataloader_num_workers dataloader_persistent_workers
    dataloader_pin_memory dataloader_prefetch_factor ddp_backend ddp_broadcast_buffers ddp_bucket_cap_mb
    ddp_find_unused_parameters ddp_static_graph ddp_timeout debug disable_tqdm do_eval do_predict do_train
    enable_jit_checkpoint eval_accumulation_steps eval_delay eval_do_concat_batches eval_on_start eval_steps
    eval_strategy eval_use_gather_object evaluation_strategy fp16_full_eval fsdp_config full_determinism
    gradient_checkpointing_kwargs greater_is_better group_by_length hub_always_push hub_model_id
    hub_private_repo hub_revision hub_strategy ignore_data_skip include_for_metrics
    include_num_input_tokens_seen label_names label_smoothing_factor length_column_name liger_kernel_config
    load_best_model_at_end local_rank log_level log_level_replica log_on_each_node logging_dir
    logging_first_step logging_nan_inf_filter logging_strategy lr_scheduler_kwargs metric_for_best_model
    neftune_noise_alpha optim_args optim_target_modules parallelism_config per_device_eval_batch_size
    prediction_loss_only project push_to_hub remove_unused_columns restore_callback_states_from_checkpoint
    save_on_each_node save_only_model save_strategy skip_memory_metrics tf32 torch_compile
    torch_compile_backend torch_compile_mode torch_empty_cache_steps trackio_bucket_id trackio_space_id
    trackio_static_space_id train_sampling_strategy use_cache use_cpu use_liger_kernel
"""
OTHER = tuple(_OTHER.split())
