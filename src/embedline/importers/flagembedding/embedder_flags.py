"""FlagEmbedding's own fine-tuning flags (1.4.2) and the preset keys that replace them."""

from __future__ import annotations

from embedline.importers.flagembedding import writers
from embedline.importers.flagembedding.flag import flag
from embedline.importers.flagembedding.readers import boolean, integer, integers, number, texts

DECODER = "decoder_only"
_BASE = "config and tokenizer are those in the base model's folder"
_ICL = "training with examples inside the prompt is not supported"
_MERGED = "LoRA weights are always merged into the saved model"
MODEL = [
    flag("model_name_or_path", "model.base"),
    flag("config_name", note=_BASE),
    flag("tokenizer_name", note=_BASE),
    flag("cache_dir", note="the environment's HF_HOME sets the hub's cache"),
    flag("trust_remote_code", "model.trust_remote_code", read=boolean),
    flag("use_fast_tokenizer", note="always on: the exported model needs a fast tokenizer"),
    flag("token", note="a preset holds no secrets; the environment's HF_TOKEN is used"),
    flag(
        "colbert_dim",
        "model.multi_vector_width",
        "below 1: the width of the model",
        integer,
        write=lambda value, arguments: value if value > 0 else None,
    ),
]
DECODERS = [
    flag("peft_model_path", note="merge the adapter into the base first"),
    flag(
        "use_lora",
        "model.lora",
        "decoders: on by default",
        boolean,
        write=lambda on, arguments: {} if on else None,
        default=True,
        default_in=DECODER,
    ),
    flag(
        "lora_rank",
        "model.lora.rank",
        read=integer,
        write=writers.only_with_lora,
        default=64,
        default_in=DECODER,
    ),
    flag(
        "lora_alpha",
        "model.lora.alpha",
        "whole numbers only",
        integer,
        write=writers.only_with_lora,
        default=16,
        default_in=DECODER,
    ),
    flag(
        "lora_dropout",
        "model.lora.dropout",
        read=number,
        write=writers.only_with_lora,
        default=0.1,
        default_in=DECODER,
    ),
    flag(
        "target_modules",
        "model.lora.targets",
        read=texts,
        write=writers.only_with_lora,
        default=["v_proj", "q_proj", "k_proj", "gate_proj", "down_proj", "o_proj", "up_proj"],
        default_in=DECODER,
    ),
    flag(
        "use_flash_attn",
        "runtime.attention",
        "when absent, `auto`: flash attention where it is installed",
        boolean,
        write=lambda on, arguments: "flash_attention_2" if on else "sdpa",
    ),
    flag("use_slow_tokenizer", note="always off: the exported model needs a fast tokenizer"),
    flag("from_peft", note="merge the adapter into the base first"),
    flag("modules_to_save", note="the model's heads and pooling are always trained and saved"),
    flag("raw_peft", note="merge the adapter into the base first"),
    flag("additional_special_tokens", note=_BASE),
    flag("save_merged_lora_model", note=_MERGED),
    flag("only_merge_lora_model", note=_MERGED),
]
DATA = [
    flag(
        "train_data",
        "data.sources supervised.in_batch_negatives",
        "one source a file, relative to the current folder; in_batch_negatives: false when all names end in "
        f"{writers.NO_IN_BATCH}",
        texts,
        write=writers.sources,
    ),
    flag("cache_path", note="the work folder's store caches what the steps make"),
    flag(
        "train_group_size",
        "supervised.negatives",
        "minus 1: the positive is not counted; a row with fewer negatives is not filled up by repetition",
        integer,
        write=lambda size, arguments: size - 1,
        default=8,
    ),
    flag("query_max_len", "model.query_length", read=integer, default=32),
    flag("passage_max_len", "model.document_length", read=integer, default=128),
    flag("pad_to_multiple_of", note="batches hold texts of similar length, padded to the longest"),
    flag(
        "max_example_num_per_dataset",
        "data.sources.*.limit",
        "the first rows, not a sample",
        integer,
        write=writers.nothing,
    ),
    flag(
        "query_instruction_for_retrieval",
        "prompts.default.query",
        "in the format of --query_instruction_format",
        write=writers.prompt("query"),
    ),
    flag(
        "query_instruction_format",
        "prompts.default.query",
        "the text must stand at its end",
        write=writers.nothing,
    ),
    flag(
        "knowledge_distillation",
        "supervised.distillation.of",
        "`rows`: from the rows' pos_scores and neg_scores",
        boolean,
        write=lambda on, arguments: "rows" if on else None,
    ),
    flag("passage_instruction_for_retrieval", "prompts.default.document", write=writers.prompt("passage")),
    flag(
        "passage_instruction_format",
        "prompts.default.document",
        "the text must stand at its end",
        write=writers.nothing,
    ),
    flag("shuffle_ratio", note="the parts of a text are never shuffled"),
    flag(
        "same_dataset_within_batch",
        note="always on: a batch comes from one source. With it, the rows' `type` is read, see below",
        read=boolean,
    ),
    flag("small_threshold", note="sources smaller than a batch are pooled by task type and language"),
    flag(
        "drop_threshold", note="no source is dropped because it is small; the report counts the rows of each"
    ),
    flag("example_query_max_len", note=_ICL),
    flag("example_passage_max_len", note=_ICL),
    flag("retrieval_use_examples", note=_ICL),
    flag("icl_suffix_str", note=_ICL),
]
TRAINING = [
    flag(
        "negatives_cross_device", note="always on: all documents of the batch are negatives, on all devices"
    ),
    flag("temperature", "supervised.temperature", read=number, default=0.02),
    flag("fix_position_embedding", note="no weights are frozen; model.lora trains a small part of them"),
    flag(
        "sentence_pooling_method",
        "model.pooling",
        write=writers.one_of("sentence_pooling_method", writers.POOLINGS),
        default="cls",
    ),
    flag("normalize_embeddings", note="always on: every score is a cosine"),
    flag(
        "sub_batch_size",
        "supervised.batch_tokens",
        "times the longer of the two maximum lengths, in tokens; the gradients are those of the whole batch",
        integer,
        write=writers.chunk_tokens,
    ),
    flag(
        "kd_loss_type",
        "supervised.distillation.loss",
        "with knowledge_distillation",
        write=writers.distillation_loss,
    ),
    flag("use_mrl", "supervised.matryoshka", "the losses of the dims are summed, not averaged", boolean),
    flag("mrl_dims", "model.dims", "the full width is always trained", integers),
    flag(
        "unified_finetuning",
        "model.heads supervised.objective",
        "all three heads and M3's loss",
        boolean,
        write=writers.unified,
    ),
    flag(
        "use_self_distill",
        "supervised.self_distillation",
        "",
        boolean,
        write=writers.only_with_unified,
        default=False,
    ),
    flag(
        "self_distill_start_step",
        "supervised.self_distillation_after",
        "plus 1, in optimizer steps: FlagEmbedding counts forward passes from 0 and starts after this one",
        read=integer,
        write=writers.self_distillation_start,
    ),
    flag(
        "fix_encoder",
        "supervised.freeze_encoder",
        "with unified_finetuning",
        boolean,
        write=writers.only_with_unified,
        default=False,
    ),
]
OLDER = [
    flag("normlized", note="always on: every score is a cosine"),
    flag("same_task_within_batch", note="always on: a batch comes from one source", read=boolean),
    flag("use_inbatch_neg", "supervised.in_batch_negatives", "", boolean),
    flag("enable_sub_batch", note="always on, in chunks of batch_tokens"),
]
