"""The files that `embedline init` writes: a first preset and its data."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from embedline.data.demo import write_demo
from embedline.errors import InputError, os_reason

EXAMPLES = {"questions_ru": 1200, "questions_en": 800}  # rows taken from files of the demo data

PRESET = """\
# The configuration of a run. All settings are documented in SETTINGS.md; `embedline plan` checks this file.
name: {name}
description: An embedding model trained on our own questions and answers.
data:
  # Paths are relative to this file's folder; `-o data.root=DIR` sets another folder.
  sources:
    # One JSON object a line: query, pos (texts that answer it), neg (texts that do not; optional).
    - path: data/pairs.jsonl
      task_type: short-long
  # Passages without questions, for pretraining and for mining hard negatives (keys: text, title):
  # corpus:
  #   - path: data/passages.jsonl
  # A share of the rows is not trained on: their questions score the model for the gate.
  hold_out: {{share: 0.1, at_most: 1000, language: en-ru}}
  # Better: real questions of users with the passages that answer them, a folder with corpus.jsonl,
  # queries.jsonl and qrels.tsv:
  # evaluation:
  #   - path: eval/support
model:
  # A sentence-transformers folder or a hub id to train further; without it a model is trained from scratch.
  # base: intfloat/multilingual-e5-small
  settings: {{hidden_size: 128, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 256,
             initializer_range: 0.1}}  # about 1/sqrt(hidden_size)
  vocabulary: 4096
  query_length: 32
  document_length: 64
  dims: [64]
# Small sizes: the example rows run through the whole line in about two minutes. For thousands of rows, from
# scratch: hidden_size 256, 4 layers, vocabulary 16384, longer texts, and
# pretrain: {{steps: 1000, batch: 64}}
# unsupervised: {{steps: 1000, batch: 256}}
# supervised: {{steps: 500, batch: 128, negatives: 4, matryoshka: true}}
pretrain: {{steps: 60, batch: 16, learning_rate: 2.0e-3}}
unsupervised: {{steps: 200, batch: 64, learning_rate: 3.0e-3, temperature: 0.05}}
supervised:
  {{steps: 100, batch: 32, learning_rate: 2.0e-3, temperature: 0.05, negatives: 1, matryoshka: true}}
runtime: {{precision: fp32}}  # on a GPU: bf16
# Without rules the gate refuses a model below its base or its untrained form, or one that gives all texts
# alike vectors. Minimum scores of your own; `*` is the mean of all held-out retrieval sets:
# gate:
#   rules:
#     - {{set: "*", min: 0.5}}
"""


def run_name(folder: Path) -> str:
    """Make a valid preset name from a folder's name."""
    return re.sub(r"[^a-z0-9._-]+", "-", folder.resolve().name.lower()).strip("-._") or "my-model"


def write_starter(folder: Path) -> list[Path]:
    """Write preset.yaml and data/pairs.jsonl; existing files are never overwritten.

    Raises:
        InputError: a file exists already, or the folder cannot be written to.
    """
    rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _examples())
    preset = PRESET.format(name=run_name(folder))
    return write_new({folder / "preset.yaml": preset, folder / "data" / "pairs.jsonl": rows})


def _examples() -> Iterator[dict[str, object]]:
    """Yield questions with their answers, from all over the generated demo data."""
    with tempfile.TemporaryDirectory() as folder:
        write_demo(Path(folder))
        for name, count in EXAMPLES.items():
            lines = (Path(folder) / "train" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
            for line in lines[:count]:
                row = json.loads(line)
                yield {"query": row["query"], "pos": row["pos"]}


def write_new(files: Mapping[Path, str]) -> list[Path]:
    """Write new files, by path; none when one of them exists already.

    Raises:
        InputError: a file exists already, or cannot be written.
    """
    for path in files:
        if path.exists():
            raise InputError("exists already.", where=str(path), fix="Choose another folder.")
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"cannot be written ({os_reason(error)}).", where=str(path), fix="Choose another folder."
            ) from error
    return list(files)
