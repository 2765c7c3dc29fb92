"""FlagEmbedding's fine-tuning flags (1.4.2) and the preset keys that stand for them: one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedline.errors import InputError
from embedline.importers.flagembedding import values
from embedline.importers.flagembedding.values import (
    Given,
    Read,
    Write,
    number,
    text,
    texts,
    whole,
    wholes,
    yes,
)

DECODER = "decoder_only"
SECRETS = frozenset({"token", "hub_token"})


@dataclass(frozen=True)
class Flag:
    """One flag.

    Args:
        keys: of the preset; none where there is no counterpart, and `note` says why.
        write: from the flag's value to that of the key (of each key, when there are several); None leaves a
            key out. Without it the value is taken as it is.
        default: FlagEmbedding's own value where it counts even if the flag is absent: ours differs.
        only: the modules whose default that is; all when empty.
    """

    name: str
    note: str = ""
    keys: tuple[str, ...] = ()
    read: Read = text
    write: Write | None = None
    default: Any = None
    only: str = ""


def flag(name: str, keys: str = "", note: str = "", read: Read = text, **more: Any) -> Flag:
    return Flag(name, note, tuple(keys.split()), read, **more)


_BASE = "a model is its whole folder: config and tokenizer come with the base"
_ICL = "examples inside the prompt are not trained with"
_MERGED = "LoRA weights are always merged into the saved model"
_CHUNKS = "GradCache in chunks of batch_tokens bounds the memory instead"

MODEL = [
    flag("model_name_or_path", "model.base"),
    flag("config_name", note=_BASE),
    flag("tokenizer_name", note=_BASE),
    flag("cache_dir", note="the hub's cache is where HF_HOME says"),
    flag("trust_remote_code", "model.trust_remote_code", read=yes),
    flag("use_fast_tokenizer", note="always so: the exported model runs the same fast tokenizer"),
    flag("token", note="a preset holds no secrets; the environment's HF_TOKEN is used"),
    flag(
        "colbert_dim",
        "model.multi_vector_width",
        "the model's width when below 1",
        whole,
        write=lambda value, given: value if value > 0 else None,
    ),
]
DECODERS = [
    flag("peft_model_path", note="merge the adapter into the base first"),
    flag(
        "use_lora",
        "model.lora",
        "decoders: on unless switched off",
        yes,
        write=lambda on, given: {} if on else None,
        default=True,
        only=DECODER,
    ),
    flag("lora_rank", "model.lora.rank", read=whole, write=values.if_lora, default=64, only=DECODER),
    flag(
        "lora_alpha",
        "model.lora.alpha",
        "whole numbers only",
        whole,
        write=values.if_lora,
        default=16,
        only=DECODER,
    ),
    flag("lora_dropout", "model.lora.dropout", read=number, write=values.if_lora, default=0.1, only=DECODER),
    flag(
        "target_modules",
        "model.lora.targets",
        read=texts,
        write=values.if_lora,
        default=["v_proj", "q_proj", "k_proj", "gate_proj", "down_proj", "o_proj", "up_proj"],
        only=DECODER,
    ),
    flag(
        "use_flash_attn",
        "runtime.attention",
        "auto when absent: flash attention where it is installed",
        yes,
        write=lambda on, given: "flash_attention_2" if on else "sdpa",
    ),
    flag("use_slow_tokenizer", note="fast tokenizers only: the exported model runs the same one"),
    flag("from_peft", note="merge the adapter into the base first"),
    flag("modules_to_save", note="heads and poolings of the model are always trained and saved"),
    flag("raw_peft", note="merge the adapter into the base first"),
    flag("additional_special_tokens", note=_BASE),
    flag("save_merged_lora_model", note=_MERGED),
    flag("only_merge_lora_model", note=_MERGED),
]
DATA = [
    flag(
        "train_data",
        "data.sources supervised.in_batch_negatives",
        "a source each, from the current folder on; in_batch_negatives: false when all names end in "
        f"{values.NO_IN_BATCH}",
        texts,
        write=values.sources,
    ),
    flag("cache_path", note="steps keep what they made by its content, in the work folder"),
    flag(
        "train_group_size",
        "supervised.negatives",
        "the positive is not counted; too few negatives stay too few, none is repeated",
        whole,
        write=lambda size, given: size - 1,
        default=8,
    ),
    flag("query_max_len", "model.query_length", read=whole, default=32),
    flag("passage_max_len", "model.document_length", read=whole, default=128),
    flag("pad_to_multiple_of", note="batches hold texts of like length, padded to the longest of them"),
    flag(
        "max_example_num_per_dataset",
        "data.sources.*.limit",
        "the first rows, not a sample",
        whole,
        write=values.elsewhere,
    ),
    flag(
        "query_instruction_for_retrieval",
        "prompts.default.query",
        "in its format; Instruct: …\\nQuery: … is `instruct`",
        write=values.prompt("query"),
    ),
    flag(
        "query_instruction_format", "prompts.default.query", "must end with the text", write=values.elsewhere
    ),
    flag(
        "knowledge_distillation",
        "supervised.distillation.of",
        "rows: their pos_scores and neg_scores",
        yes,
        write=lambda on, given: "rows" if on else None,
    ),
    flag("passage_instruction_for_retrieval", "prompts.default.document", write=values.prompt("passage")),
    flag(
        "passage_instruction_format",
        "prompts.default.document",
        "must end with the text",
        write=values.elsewhere,
    ),
    flag("shuffle_ratio", note="texts are trained on as they are"),
    flag("same_dataset_within_batch", note="always so: a batch comes from one source"),
    flag("small_threshold", note="sources smaller than a batch are pooled by task type and language"),
    flag("drop_threshold", note="no source is dropped for its size; the report counts them"),
    flag("example_query_max_len", note=_ICL),
    flag("example_passage_max_len", note=_ICL),
    flag("retrieval_use_examples", note=_ICL),
    flag("icl_suffix_str", note=_ICL),
]
TRAINING = [
    flag("negatives_cross_device", note="always so: all documents of the batch are negatives"),
    flag("temperature", "supervised.temperature", read=number, default=0.02),
    flag("fix_position_embedding", note="no weights are frozen; model.lora trains few of them"),
    flag(
        "sentence_pooling_method",
        "model.pooling",
        write=values.one_of("sentence_pooling_method", values.POOLING),
        default="cls",
    ),
    flag("normalize_embeddings", note="always so: every score is a cosine"),
    flag(
        "sub_batch_size",
        "supervised.batch_tokens",
        "times the longer of the two lengths, in tokens; gradients are those of the whole batch",
        whole,
        write=values.sub_batch,
    ),
    flag(
        "kd_loss_type",
        "supervised.distillation.loss",
        "with knowledge_distillation",
        write=values.kd_loss,
    ),
    flag("use_mrl", "supervised.matryoshka", "the losses of the dims are summed, not averaged", yes),
    flag("mrl_dims", "model.dims", "the full width is always one", wholes),
    flag(
        "unified_finetuning",
        "model.heads supervised.objective",
        "all three heads and M3's loss",
        yes,
        write=values.unified,
    ),
    flag("use_self_distill", "supervised.self_distillation", "", yes, write=values.if_unified, default=False),
    flag(
        "self_distill_start_step",
        "supervised.self_distillation_after",
        "one more, in steps of the optimizer: theirs counts passes from 0, and starts after the one named",
        read=whole,
        write=values.distilled_from,
    ),
    flag("fix_encoder", note="no weights are frozen; model.lora trains few of them"),
]
TRAINER = [
    flag("output_dir", note="--work says where runs go, and the folder given to init names the model"),
    flag("overwrite_output_dir", note="a run has a folder of its own"),
    flag("learning_rate", "supervised.learning_rate", read=number, default=5e-5),
    flag(
        "num_train_epochs",
        "supervised.steps",
        "times rows / batch, where the data is there to be counted",
        number,
        write=lambda epochs, given: values.steps_of(given),
        default=3.0,
    ),
    flag(
        "max_steps",
        "supervised.steps",
        "comes before the epochs",
        whole,
        write=lambda steps, given: steps if steps > 0 else None,
    ),
    flag(
        "per_device_train_batch_size",
        "supervised.batch",
        "times torchrun's processes (nproc_per_node, nnodes) and gradient_accumulation_steps; 2 at least",
        whole,
        write=lambda size, given: values.batch_of(given),
        default=8,
    ),
    flag(
        "gradient_accumulation_steps",
        "supervised.batch",
        "a factor of the batch: GradCache makes it one batch, with all its negatives",
        whole,
        write=values.elsewhere,
    ),
    flag("warmup_ratio", "supervised.warmup", read=number, default=0.0),
    flag("warmup_steps", "supervised.warmup", "as a share of the steps", number, write=values.warmup),
    flag(
        "lr_scheduler_type",
        "supervised.schedule",
        write=values.one_of("lr_scheduler_type", values.SCHEDULES),
        default="linear",
    ),
    flag("weight_decay", "supervised.weight_decay", read=number, default=0.0),
    flag("adam_beta2", "supervised.beta2", read=number, default=0.999),
    flag("adam_beta1", "supervised.beta1", read=number),
    flag("adam_epsilon", "supervised.epsilon", read=number),
    flag("optim", note="always AdamW"),
    flag("max_grad_norm", "supervised.clip", read=number, default=1.0),
    flag(
        "fp16",
        "runtime.precision",
        "as bf16: half precision without the range that overflows",
        yes,
        write=lambda on, given: "bf16" if on else None,
    ),
    flag("bf16", "runtime.precision", "", yes, write=lambda on, given: "bf16" if on else None),
    flag("gradient_checkpointing", note=_CHUNKS),
    flag("deepspeed", note=f"each of runtime.processes holds the whole model; {_CHUNKS}"),
    flag("fsdp", note=f"each of runtime.processes holds the whole model; {_CHUNKS}"),
    flag("logging_steps", "supervised.log_every", "", number, write=values.steps_between),
    flag("save_steps", "supervised.checkpoint_every", "", number, write=values.steps_between),
    flag("save_total_limit", note="checkpoints serve to go on with; the model itself is kept by its content"),
    flag("seed", "seed", read=whole, default=42),
    flag("dataloader_drop_last", note="always so: a rest smaller than a batch waits for the next pass"),
    flag("report_to", note="MLflow, where tracking.uri says"),
    flag("run_name", note="the folder given to init names the model, `embedline run --name` the run"),
    flag(
        "resume_from_checkpoint", note="always so: `embedline run --name NAME` goes on where it was stopped"
    ),
    flag("hub_token", note="a preset holds no secrets, and nothing is pushed to the hub"),
]
OLDER = [
    flag("normlized", note="always so: every score is a cosine"),
    flag("same_task_within_batch", note="always so: a batch comes from one source"),
    flag("use_inbatch_neg", "supervised.in_batch_negatives", "", yes),
    flag("enable_sub_batch", note="always so, in chunks of batch_tokens"),
]
REST = "a setting of transformers' Trainer that no preset needs"
PARTS = {
    "Model": MODEL,
    "Decoders and in-context learning: model": DECODERS,
    "Data": DATA,
    "Training (FlagEmbedding's own)": TRAINING,
    "Training (transformers' Trainer)": TRAINER,
    "Older releases": OLDER,
}
FLAGS: Mapping[str, Flag] = {
    row.name: row
    for row in (
        *(row for part in PARTS.values() for row in part),
        *(flag(n, note=REST) for n in values.OTHER),
    )
}


def given(said: Mapping[str, Any], *, module: str = "", devices: int = 1, rows: int | None = None) -> Given:
    """What a command says, with FlagEmbedding's defaults for what it does not say."""
    defaults = {row.name: row.default for row in FLAGS.values() if row.only in module}
    return Given({**defaults, **said}, module, devices, rows)


def read_flag(name: str, words: list[str]) -> Any:
    """The value of a flag, or its words where it has no counterpart.

    Raises:
        InputError: no such flag, or not such a value.
    """
    if name not in FLAGS:
        raise InputError("is no flag of FlagEmbedding's fine-tuning.", where=f"--{name}")
    row = FLAGS[name]
    if not row.keys:
        return words
    try:
        return row.read(words)
    except (ValueError, KeyError) as error:
        said = " ".join(words) or "nothing"
        raise InputError(f"takes {values.KINDS[row.read]}, not {said!r}.", where=f"--{name}") from error


def preset_keys(command: Given) -> dict[str, tuple[Any, str]]:
    """Values by preset key, each with the flag it comes from; a later row of the table wins."""
    found: dict[str, tuple[Any, str]] = {}
    for name, row in FLAGS.items():
        value = command[name]
        if value is None or not row.keys:
            continue
        written = row.write(value, command) if row.write else value
        parts = written if len(row.keys) > 1 else (written,)
        found |= {key: (part, name) for key, part in zip(row.keys, parts, strict=True) if part is not None}
    return found
