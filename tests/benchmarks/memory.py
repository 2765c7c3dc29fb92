"""How much memory a contrastive training takes: by its batch, and by the size of its data.

    python tests/benchmarks/memory.py batches 512 8192       # peak by batch, the same token budget
    python tests/benchmarks/memory.py pairs 10000 10000000   # peak above the model, pre-tokenised pairs

Each case is a process of its own. Prints a line of JSON each: peaks in MB of resident memory, and of its
anonymous part (what is neither the model's file nor the data's, which the system may drop at any time).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

# Width, layers, heads, inner width. "flat" is one layer of the bench's small model: quicker, and harder on
# the ratio, because less stands beside a large batch's vectors.
SIZES = {"tiny": (32, 2, 2, 64), "flat": (384, 1, 12, 1536), "small": (384, 6, 12, 1536)}
WORDS = 30_000  # of the vocabulary


class Peak:
    """The largest resident and anonymous memory of this process since it began, in MB."""

    def __init__(self) -> None:
        self.begin = self.now()
        self.most = dict(self.begin)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            for name, size in self.now().items():
                self.most[name] = max(self.most[name], size)
            time.sleep(0.02)

    @staticmethod
    def now() -> dict[str, float]:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        values = dict(line.split(":", 1) for line in lines)
        return {"resident": _mb(values["VmRSS"]), "anonymous": _mb(values["RssAnon"])}

    def above(self) -> dict[str, float]:
        return {name: round(most - self.begin[name]) for name, most in self.most.items()}


def _mb(value: str) -> float:
    return int(value.split()[0]) / 1024


def model(size: str) -> Any:
    """A BERT of random weights with a vocabulary of numbers."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from embedline.models.backbone import new_backbone
    from embedline.models.embedder import Embedder, EmbedderSpec

    width, layers, heads, inner = SIZES[size]
    words = Tokenizer(
        models.WordLevel({"[PAD]": 0, "[UNK]": 1} | {str(i): i for i in range(2, WORDS)}, "[UNK]")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    shape = {"hidden_size": width, "num_hidden_layers": layers}
    shape |= {"num_attention_heads": heads, "intermediate_size": inner}
    backbone = new_backbone("bert", shape, tokenizer, 0)
    return Embedder(backbone, tokenizer, EmbedderSpec("mean", query_length=64, document_length=64))


def generate(folder: Path, pairs: int) -> None:
    """Tokenised pairs as `write_tokens` leaves them: queries of 4 to 12 tokens, answers of 8 to 24."""
    import numpy as np
    import pyarrow as pa

    from embedline.training.batching.tokens import BLOCK, ROW_GROUPS, ROWS, SCHEMA

    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    with pa.OSFile(str(folder / ROWS), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        for start in range(0, pairs, BLOCK):
            count = min(BLOCK, pairs - start)
            numbers = pa.array(np.arange(start, start + count)).cast(pa.string())
            lengths = generator.integers(4, 13, count)
            ends = pa.array(np.arange(count + 1), pa.int32())
            none = pa.array(np.zeros(count + 1), pa.int32())
            short, long = (_ids(generator, lengths * times) for times in (1, 2))
            columns = {
                "id": numbers,
                "query": numbers,
                "positives": pa.ListArray.from_arrays(ends, numbers),
                "negatives": pa.ListArray.from_arrays(none, numbers[:0]),
                "query_ids": short,
                "positive_ids": pa.ListArray.from_arrays(ends, long),
                "negative_ids": pa.ListArray.from_arrays(none, long[:0]),
                "kind": pa.array(np.zeros(count), pa.int32()),
                "longest": pa.array(2 * lengths, pa.int32()),
                "tokens": pa.array(3 * lengths, pa.int32()),
            }
            rows = [columns.get(field.name, pa.nulls(count, field.type)) for field in SCHEMA]
            writer.write_batch(pa.RecordBatch.from_arrays(rows, schema=SCHEMA))
    kind = {"source": "made", "task_type": "short-long", "language": "en"}
    (folder / ROW_GROUPS).write_text(json.dumps({"kinds": [kind], "score_ranges": {}}), encoding="utf-8")


def _ids(generator: Any, lengths: Any) -> Any:
    import numpy as np
    import pyarrow as pa

    ends = np.concatenate([[0], np.cumsum(lengths)])
    ids = generator.integers(2, WORDS, int(ends[-1]), dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(ids))


def measure(pairs: int, batch: int, steps: int, size: str, folder: Path) -> dict[str, Any]:
    """Train in this process; the peaks are those above what the process held when its model was made."""
    from embedline.config.training import ContrastiveConfig, RuntimeConfig
    from embedline.models.machine import prepare
    from embedline.training.contrastive.training import train_contrastive

    prepare(RuntimeConfig(precision="fp32"), training=True)
    embedder = model(size)
    generate(folder / "tokens", pairs)
    config = ContrastiveConfig(
        batch=batch, steps=steps, batch_tokens=4096, resident_tokens=0, false_negative_margin=0.1,
        symmetric=True, checkpoint_every=10**6, log_every=max(1, steps // 2),
    )  # fmt: skip
    peak = Peak()
    began = time.monotonic()
    train_contrastive(
        embedder, (), config, weights={}, seed=0, bf16=False, checkpoints=folder, on_metrics=lambda *_: None
    )  # fmt: skip
    found = {"pairs": pairs, "batch": batch, "steps": steps, "model": size}
    found |= {"seconds": round(time.monotonic() - began)}
    return found | {"above_model_mb": peak.above(), "whole_mb": {n: round(m) for n, m in peak.most.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["batches", "pairs", "one"])
    parser.add_argument("sizes", nargs="+", type=int, help="one: pairs, batch, steps")
    parser.add_argument("--model", choices=SIZES)
    options = parser.parse_args()
    if options.what == "one":
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(*options.sizes, options.model, Path(folder))), flush=True)
        return
    for number in options.sizes:
        case = (2 * number, number, 2) if options.what == "batches" else (number, 64, 200)
        model = options.model or ("small" if options.what == "batches" else "tiny")
        command = [sys.executable, __file__, "one", *map(str, case), "--model", model]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        print(done.stdout.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
