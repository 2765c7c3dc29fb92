"""One training on one set of pairs, timed step by step: the process that bench_train.py starts per contender.

Every step trains on the same pairs (an epoch is one batch), so that all contenders do the same work: the
same model folder, tokenizer, texts and lengths. Prints one JSON line: the seconds of each step.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LENGTH = 256
TEMPERATURE = 0.02

Pairs = list[tuple[str, str]]


Split = dict[str, float]


def embedline(folder: Path, pairs: Pairs, options: argparse.Namespace) -> tuple[list[float], Split]:
    """The stage as a run trains it: GradCache, batches by length, the engine with its optimizer.

    Its curves are computed and written to a tracker at every step.
    """
    from embedline.artifacts.tracker import Tracker
    from embedline.config.training import ContrastiveConfig, RuntimeConfig
    from embedline.models.embedder import EmbedderSpec
    from embedline.models.folder import load_embedder
    from embedline.models.machine import attention, prepare
    from embedline.training.batching.records import Record
    from embedline.training.contrastive.training import train_contrastive

    heads = ("dense", "lexical", "multi_vector") if options.objective == "unified" else ("dense",)
    runtime = RuntimeConfig(precision=options.precision)
    prepare(runtime, training=True)
    spec = EmbedderSpec(pooling="mean", query_length=LENGTH, document_length=LENGTH, heads=heads)
    embedder = load_embedder(folder, attention=attention(runtime)).with_spec(spec)
    rows = [Record(str(i), q, [d], [], "short-long", "ru", source="pairs") for i, (q, d) in enumerate(pairs)]
    config = ContrastiveConfig(
        objective=options.objective,
        steps=options.steps,
        batch=len(pairs),
        temperature=TEMPERATURE,
        false_negative_margin=None,
        batch_tokens=options.batch_tokens,
        log_every=1,
        checkpoint_every=10_000,
        weight_decay=0.0,
        prompts=False,
    )
    logged: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as checkpoints:
        tracker = Tracker(Path(checkpoints) / "tracked")

        def on_metrics(values: dict[str, float], step: int) -> None:
            tracker.metrics(values, step)
            logged.append(values)

        train_contrastive(
            embedder,
            rows,
            config,
            weights={},
            seed=0,
            bf16=options.precision == "bf16",
            checkpoints=Path(checkpoints),
            on_metrics=on_metrics,
        )
    warm = logged[1:] or logged
    return [values["step_seconds"] for values in warm], _split(warm)


def _split(logged: list[dict[str, float]]) -> Split:
    """Share of a step's seconds by phase, of the steps that are timed."""
    whole = sum(values["step_seconds"] for values in logged)
    phases = ("data", "forward", "backward", "optimizer", "logging")
    return {phase: sum(values[f"{phase}_seconds"] for values in logged) / whole for phase in phases}


def sentence_transformers(folder: Path, pairs: Pairs, options: argparse.Namespace) -> list[float]:
    """sentence-transformers' trainer with its cached multiple negatives ranking loss."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    words = Transformer(str(folder), max_seq_length=LENGTH)
    model = SentenceTransformer(modules=[words, Pooling(words.get_embedding_dimension(), "mean")])
    budget = {"mini_batch_num_tokens": options.mini_batch_tokens} if options.mini_batch_tokens else {}
    loss = CachedMultipleNegativesRankingLoss(
        model, scale=1 / TEMPERATURE, mini_batch_size=options.mini_batch, **budget
    )
    data = Dataset.from_dict({"anchor": [q for q, _ in pairs], "positive": [d for _, d in pairs]})
    with tempfile.TemporaryDirectory() as out:
        arguments = Arguments(per_device_train_batch_size=len(pairs), **_trainer(out, options))
        clock = _Clock(options.enough)
        trainer = SentenceTransformerTrainer(
            model, arguments, train_dataset=data, loss=loss, callbacks=[clock.callback()]
        )
        trainer.train()
    return clock.warm()


def flagembedding(folder: Path, pairs: Pairs, options: argparse.Namespace) -> list[float]:
    """FlagEmbedding's embedder fine-tuning, with sub-batches where the options give a size."""
    from FlagEmbedding.abc.finetune.embedder import (
        AbsEmbedderDataArguments,
        AbsEmbedderModelArguments,
        AbsEmbedderTrainingArguments,
    )
    from FlagEmbedding.finetune.embedder.encoder_only.base import EncoderOnlyEmbedderRunner

    with tempfile.TemporaryDirectory() as out:
        data = Path(out) / "data" / "pairs.jsonl"
        data.parent.mkdir()
        rows = [{"query": q, "pos": [d], "neg": [pairs[i - 1][1]]} for i, (q, d) in enumerate(pairs)]
        data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        runner = EncoderOnlyEmbedderRunner(
            model_args=AbsEmbedderModelArguments(model_name_or_path=str(folder)),
            data_args=AbsEmbedderDataArguments(
                train_data=[str(data)], train_group_size=1, query_max_len=LENGTH, passage_max_len=LENGTH
            ),
            training_args=AbsEmbedderTrainingArguments(
                temperature=TEMPERATURE,
                sentence_pooling_method="mean",
                sub_batch_size=options.mini_batch or None,
                gradient_checkpointing=options.gradient_checkpointing,
                per_device_train_batch_size=len(pairs),
                **_trainer(str(Path(out) / "model"), options),
            ),
        )
        clock = _Clock(options.enough)
        runner.trainer.add_callback(clock.callback())
        runner.trainer.train()
    return clock.warm()


def _trainer(out: str, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "output_dir": out,
        "max_steps": options.steps,
        "learning_rate": 2e-4,
        "bf16": options.precision == "bf16",
        "use_cpu": options.device == "cpu",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_drop_last": False,
        "dataloader_pin_memory": False,
        "logging_steps": 10_000,
    }


class _Clock:
    """Seconds of each step; the training ends when `enough` of them have gone by."""

    def __init__(self, enough: float) -> None:
        self.seconds: list[float] = []
        self.enough = enough

    def callback(self) -> Any:
        from transformers import TrainerCallback

        clock = self

        class Steps(TrainerCallback):  # type: ignore[misc]
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                self.began = time.perf_counter()

            def on_step_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
                clock.seconds.append(time.perf_counter() - self.began)
                control.should_training_stop |= sum(clock.seconds) >= clock.enough

        return Steps()

    def warm(self) -> list[float]:
        """Without the first step, which warms up; where there was time for no other, that one."""
        return self.seconds[1:] or self.seconds


CONTENDERS: dict[
    str, Callable[[Path, Pairs, argparse.Namespace], list[float] | tuple[list[float], Split]]
] = {
    "embedline": embedline,
    "sentence-transformers": sentence_transformers,
    "FlagEmbedding": flagembedding,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--enough", type=float, default=90, help="seconds after which a peer's steps end")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--objective", choices=["infonce", "unified"], default="infonce")
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--mini-batch", type=int, default=32)
    parser.add_argument("--mini-batch-tokens", type=int, default=0)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    options = parser.parse_args()
    pairs = [tuple(pair) for pair in json.loads(options.pairs.read_text(encoding="utf-8"))]
    import resource

    found = CONTENDERS[options.contender](options.model, pairs, options)
    seconds, split = found if isinstance(found, tuple) else (found, {})
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    json.dump({"seconds": seconds, "peak_mb": peak_mb, "split": split}, sys.stdout)


if __name__ == "__main__":
    main()
