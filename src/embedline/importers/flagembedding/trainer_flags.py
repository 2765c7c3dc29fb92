"""FlagEmbedding's flags that come from transformers' Trainer, and the preset keys that replace them."""

from __future__ import annotations

from embedline.importers.flagembedding import writers
from embedline.importers.flagembedding.flag import flag
from embedline.importers.flagembedding.readers import boolean, integer, number

_CHUNKS = "GradCache in chunks of batch_tokens bounds the memory instead"

TRAINER = [
    flag(
        "output_dir",
        note="the folder given to `embedline init` names the model; `--work` sets where runs are kept",
    ),
    flag("overwrite_output_dir", note="every run has its own folder"),
    flag("learning_rate", "supervised.learning_rate", read=number, default=5e-5),
    flag(
        "num_train_epochs",
        "supervised.steps",
        "epochs × rows / batch, when the data files are here to be counted",
        number,
        write=lambda epochs, arguments: writers.optimizer_steps(arguments),
        default=3.0,
    ),
    flag(
        "max_steps",
        "supervised.steps",
        "overrides the epochs",
        integer,
        write=lambda steps, arguments: steps if steps > 0 else None,
    ),
    flag(
        "per_device_train_batch_size",
        "supervised.batch",
        "times torchrun's processes (nproc_per_node, nnodes) and gradient_accumulation_steps; at least 2",
        integer,
        write=lambda size, arguments: writers.total_batch(arguments),
        default=8,
    ),
    flag(
        "gradient_accumulation_steps",
        "supervised.batch",
        "multiplies the batch: GradCache computes it as one batch, with all its negatives",
        integer,
        write=writers.nothing,
    ),
    flag("warmup_ratio", "supervised.warmup", read=number, default=0.0),
    flag("warmup_steps", "supervised.warmup", "as a share of the steps", number, write=writers.warmup),
    flag(
        "lr_scheduler_type",
        "supervised.schedule",
        write=writers.one_of("lr_scheduler_type", writers.SCHEDULES),
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
        "becomes bf16, whose range does not overflow",
        boolean,
        write=lambda on, arguments: "bf16" if on else None,
    ),
    flag("bf16", "runtime.precision", "", boolean, write=lambda on, arguments: "bf16" if on else None),
    flag("gradient_checkpointing", note=_CHUNKS),
    flag("deepspeed", note=f"each of runtime.processes holds the whole model; {_CHUNKS}"),
    flag("fsdp", note=f"each of runtime.processes holds the whole model; {_CHUNKS}"),
    flag("logging_steps", "supervised.log_every", "", number, write=writers.step_interval),
    flag("save_steps", "supervised.checkpoint_every", "", number, write=writers.step_interval),
    flag("save_total_limit", note="checkpoints are only for resuming; the store keeps the trained model"),
    flag("seed", "seed", read=integer, default=42),
    flag("dataloader_drop_last", note="always on: rows that do not fill a batch are used in the next pass"),
    flag("report_to", note="always MLflow, at tracking.uri"),
    flag(
        "run_name",
        note="the folder given to `embedline init` names the model, `embedline run --name` the run",
    ),
    flag("resume_from_checkpoint", note="always on: `embedline run --name NAME` resumes a stopped run"),
    flag("hub_token", note="a preset holds no secrets, and nothing is pushed to the hub"),
]
# Arguments that change how transformers' Trainer works and not what is learnt.
_UNUSED = """
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
UNUSED = tuple(_UNUSED.split())
