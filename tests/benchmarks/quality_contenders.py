"""One training by one library until its quality has risen: the process that bench_quality.py starts.

All train the same base on the same pairs, in batches of one source, with InfoNCE at the same temperature, the
same optimizer and schedule. Each draws its own batches. The clock runs from the call of the training, so that
it counts the reading and tokenising of the pairs, and stands still while the model is evaluated. Prints one
JSON line: the curve.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

TEMPERATURE, WARMUP = 0.02, 0.1

Pairs = dict[str, list[tuple[str, str]]]  # of each source


class ReachedError(Exception):
    """The training has what it was measured for."""


class Evaluation:
    """The mean nDCG@10 of an embedder over some retrieval sets, with the same lengths for all."""

    def __init__(self, folders: list[Path], limit: int | None) -> None:
        from embedline.evaluation.sets import read_retrieval

        self.sets = [read_retrieval(folder, ignore_identical_ids=False) for folder in folders]
        if limit:
            self.sets = [replace(each, queries=each.queries[:limit]) for each in self.sets]
            self.sets = [replace(each, relevant=each.relevant[:limit]) for each in self.sets]

    def mean(self, embedder: Any) -> float:
        """Return the mean over the sets; documents that several sets share are encoded once."""
        from embedline.vectors.search import exact_search

        known: dict[tuple[str, ...], np.ndarray] = {}
        values = []
        for each in self.sets:
            documents = tuple(each.documents)
            if documents not in known:
                known[documents] = embedder.encode_side(each.documents, "document")
            queries = embedder.encode_side(each.queries, "query")
            _, ranking = exact_search(queries, known[documents], each.depth)
            values.append(float(each.metrics(ranking)["ndcg@10"].mean()))
        return sum(values) / len(values)


@dataclass
class Curve:
    """The quality of a training by its time.

    Args:
        evaluation: None to measure the steps' times alone.
        every: steps between two evaluations.
        gain: nDCG@10 above the base's at which the training ends.
        limit: seconds of training after which it ends.

    Attributes:
        points: seconds of training, steps, mean nDCG@10; the first is the base.
        steps: seconds of training after each step.
    """

    evaluation: Evaluation | None
    every: int
    gain: float
    limit: float

    def __post_init__(self) -> None:
        self.points: list[tuple[float, int, float]] = []
        self.steps: list[float] = []
        self._spent, self._since = 0.0, 0.0

    def start(self, embedder: Any) -> None:
        if self.evaluation is not None:
            self.points.append((0.0, 0, self.evaluation.mean(embedder)))
        self._since = time.perf_counter()

    def step(self, number: int, embedder: Any) -> None:
        """Count a step; stop when the gain is reached or the time is spent.

        Raises:
            ReachedError: the training is to end.
        """
        self._spent += time.perf_counter() - self._since
        self.steps.append(self._spent)
        late = self._spent >= self.limit
        if self.evaluation is not None and (number % self.every == 0 or late):
            self.points.append((self._spent, number, self.evaluation.mean(embedder)))
            if self.points[-1][2] >= self.points[0][2] + self.gain:
                raise ReachedError
        if late:
            raise ReachedError
        self._since = time.perf_counter()

    def callback(self, embedder: Any) -> Any:
        """Return a callback of the trainer in transformers."""
        from transformers import TrainerCallback

        curve = self

        class Steps(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
                curve.step(state.global_step, embedder)

        return Steps()


def embedline(options: argparse.Namespace, pairs: Pairs, curve: Curve) -> None:
    """The stage as a run trains it; its precision is the one of the product on this machine."""
    from embedline.config.training import ContrastiveConfig
    from embedline.training.batching.records import Record
    from embedline.training.contrastive.training import train_contrastive

    embedder = _base(options)
    rows = [
        Record(f"{source}-{i}", query, [document], [], "short-long", "ru", source=source)
        for source, given in pairs.items()
        for i, (query, document) in enumerate(given)
    ]
    config = ContrastiveConfig(
        steps=options.steps,
        batch=options.batch,
        learning_rate=options.learning_rate,
        warmup=WARMUP,
        weight_decay=0.0,
        temperature=TEMPERATURE,
        batch_tokens=options.chunk,
        checkpoint_every=10_000,
        log_every=1,
    )
    with tempfile.TemporaryDirectory() as checkpoints:
        curve.start(embedder)
        train_contrastive(
            embedder,
            rows,
            config,
            weights={},
            seed=options.seed,
            bf16=options.bf16,
            checkpoints=Path(checkpoints),
            on_metrics=lambda _, step: curve.step(step, embedder),
        )


def sentence_transformers(options: argparse.Namespace, pairs: Pairs, curve: Curve) -> None:
    """sentence-transformers' trainer with its cached loss, its sampler for batches of one source each."""
    from datasets import Dataset, DatasetDict
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    model = SentenceTransformer(str(options.model), device="cpu")
    model.max_seq_length = options.length
    embedder = _around(model[0].model, options)
    prompts = embedder.spec.prompts
    loss = CachedMultipleNegativesRankingLoss(
        model, scale=1 / TEMPERATURE, mini_batch_size=min(options.chunk, options.batch)
    )
    data = DatasetDict(
        {
            source: Dataset.from_dict({"anchor": [q for q, _ in given], "positive": [d for _, d in given]})
            for source, given in pairs.items()
        }
    )
    with tempfile.TemporaryDirectory() as out:
        arguments = Arguments(
            prompts={"anchor": prompts.prompt("query"), "positive": prompts.prompt("document")},
            batch_sampler="no_duplicates",
            dataloader_drop_last=True,
            **_arguments(out, options),
        )
        trainer = SentenceTransformerTrainer(
            model, arguments, train_dataset=data, loss=loss, callbacks=[curve.callback(embedder)]
        )
        curve.start(embedder)
        trainer.train()


def flagembedding(options: argparse.Namespace, pairs: Pairs, curve: Curve) -> None:
    """FlagEmbedding's embedder fine-tuning, with its batches of one source each; 0 is no sub-batches."""
    from FlagEmbedding.abc.finetune.embedder import (
        AbsEmbedderDataArguments,
        AbsEmbedderModelArguments,
        AbsEmbedderTrainingArguments,
    )
    from FlagEmbedding.finetune.embedder.encoder_only.base import EncoderOnlyEmbedderRunner

    prompts = _base(options).spec.prompts
    with tempfile.TemporaryDirectory() as out:
        for source, given in pairs.items():
            rows = [{"query": q, "pos": [d], "neg": [given[i - 1][1]]} for i, (q, d) in enumerate(given)]
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (Path(out) / f"{source}.jsonl").write_text(lines, encoding="utf-8")
        runner = EncoderOnlyEmbedderRunner(
            model_args=AbsEmbedderModelArguments(model_name_or_path=str(options.model)),
            data_args=AbsEmbedderDataArguments(
                train_data=[str(path) for path in Path(out).glob("*.jsonl")],
                cache_path=str(Path(out) / "cache"),
                train_group_size=1,
                query_max_len=options.length,
                passage_max_len=options.length,
                query_instruction_for_retrieval=prompts.prompt("query"),
                passage_instruction_for_retrieval=prompts.prompt("document"),
                same_dataset_within_batch=True,
            ),
            training_args=AbsEmbedderTrainingArguments(
                temperature=TEMPERATURE,
                sentence_pooling_method="mean",
                sub_batch_size=options.chunk or None,
                **_arguments(str(Path(out) / "model"), options),
            ),
        )
        embedder = _around(runner.model.model, options)
        runner.trainer.add_callback(curve.callback(embedder))
        curve.start(embedder)
        runner.trainer.train()


def _arguments(out: str, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "output_dir": out,
        "max_steps": options.steps,
        "per_device_train_batch_size": options.batch,
        "learning_rate": options.learning_rate,
        "warmup_steps": round(WARMUP * options.steps),
        "adam_beta2": 0.98,
        "bf16": options.bf16,
        "use_cpu": True,
        "seed": options.seed,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "logging_steps": 10_000,
    }


def _base(options: argparse.Namespace) -> Any:
    """Return the base as an embedder that cuts both sides at the same length, on this machine's kernels."""
    from embedline.config.training import RuntimeConfig
    from embedline.models.folder import load_embedder
    from embedline.models.machine import attention

    embedder = load_embedder(options.model, attention=attention(RuntimeConfig(precision=options.precision)))
    lengths = {"query_length": options.length, "document_length": options.length}
    return embedder.with_spec(replace(embedder.spec, **lengths))


def _around(backbone: Any, options: argparse.Namespace) -> Any:
    """Return an embedder of another library's backbone, for the evaluation."""
    return _base(options).with_backbone(backbone)


CONTENDERS: dict[str, Callable[[argparse.Namespace, Pairs, Curve], None]] = {
    "embedline": embedline,
    "sentence-transformers": sentence_transformers,
    "FlagEmbedding": flagembedding,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--sets", type=Path, nargs="*", default=[], help="folders; none: time steps alone")
    parser.add_argument("--queries", type=int, help="evaluate the first so many of each set")
    parser.add_argument("--chunk", type=int, required=True, help="tokens (embedline) or texts of a chunk")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--every", type=int, required=True, help="steps between two evaluations")
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--gain", type=float, required=True)
    parser.add_argument("--limit", type=float, required=True, help="seconds of training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    from embedline.config.training import RuntimeConfig
    from embedline.models.machine import prepare

    ours = options.contender == "embedline"  # the allocator's setting is a part of our training
    options.bf16 = prepare(RuntimeConfig(precision=options.precision), training=ours)
    evaluation = Evaluation(options.sets, options.queries) if options.sets else None
    curve = Curve(evaluation, options.every, options.gain, options.limit)
    pairs: Pairs = json.loads(options.pairs.read_text(encoding="utf-8"))
    with suppress(ReachedError):
        CONTENDERS[options.contender](options, pairs, curve)
    json.dump({"points": curve.points, "steps": curve.steps, "bf16": options.bf16}, sys.stdout)


if __name__ == "__main__":
    main()
