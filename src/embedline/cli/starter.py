"""The files that `embedline init` writes: a first preset and its data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from embedline.cli.shared import os_reason
from embedline.errors import InputError

ROWS = [
    {
        "query": "How do I reset the password?",
        "pos": ["Open Settings, choose Account, press Reset password and follow the link in the email."],
    },
    {
        "query": "Как выгрузить отчёт в таблицу?",
        "pos": ["На странице отчёта нажмите «Экспорт» и выберите формат CSV или XLSX."],
        "neg": ["Отчёты строятся каждую ночь по данным за прошедшие сутки."],
    },
    {
        "query": "printer shows a paper jam",
        "pos": [
            "Switch the device off, open the rear cover and pull the sheet out in the direction of the arrow."
        ],
    },
]

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
  # Held-out questions with answers: not trained on, scored for the gate. A folder with corpus.jsonl,
  # queries.jsonl and qrels.tsv:
  # evaluation:
  #   - path: eval/support
model:
  # A sentence-transformers folder or a hub id to train further; without it a model is trained from scratch.
  # base: intfloat/multilingual-e5-small
  settings: {{hidden_size: 256, num_hidden_layers: 4, num_attention_heads: 4, intermediate_size: 512}}
  vocabulary: 16384
  dims: [128]
# Tiny sizes: the three example rows run through the whole line in a minute or two. For thousands of rows:
# pretrain: {{steps: 1000, batch: 64}}
# unsupervised: {{steps: 1000, batch: 256}}
# supervised: {{steps: 500, batch: 128, negatives: 4, matryoshka: true}}
pretrain: {{steps: 20, batch: 3}}
unsupervised: {{steps: 20, batch: 3}}
supervised: {{steps: 20, batch: 3, negatives: 1, matryoshka: true}}
runtime: {{precision: auto}}  # bf16 if the machine has instructions for it, else fp32
# Minimum scores that the trained model must reach; `*` is the mean of all held-out retrieval sets.
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
    rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    preset = PRESET.format(name=run_name(folder))
    return write_new({folder / "preset.yaml": preset, folder / "data" / "pairs.jsonl": rows})


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
