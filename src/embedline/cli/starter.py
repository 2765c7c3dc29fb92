"""The files that `embedline init` writes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from embedline.errors import InputError

ROWS = [
    {
        "query": "How do I reset the password?",
        "pos": ["Open Settings, choose Account, press Reset password and follow the link in the letter."],
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
# A run of your own. Every key: `embedline plan` names the nearest one it knows when you mistype it.
name: {name}
description: An embedding model trained on our own questions and answers.
data:
  # Paths start at this file's folder; `-o data.root=DIR` moves them elsewhere.
  sources:
    # One JSON object a line: query, pos (texts that answer it), neg (texts that do not; may be left out).
    - path: data/pairs.jsonl
      task_type: short-long
  # Passages without questions, for pretraining and for mining hard negatives (text, title if there is one):
  # corpus:
  #   - path: data/passages.jsonl
  # Held-out questions with answers, never trained on; the gate judges by them. A folder with the corpus, the
  # queries and the relevance judgements:
  # evaluation:
  #   - path: eval/support
model:
  # A sentence-transformers folder or a hub id trains that model further; without it one is made from scratch.
  # base: intfloat/multilingual-e5-small
  settings: {{hidden_size: 256, num_hidden_layers: 4, num_attention_heads: 4, intermediate_size: 512}}
  vocabulary: 16384
  dims: [128]
# So small that three rows run through the whole line in a minute or two. With thousands of your own:
# pretrain: {{steps: 1000, batch: 64}}
# unsupervised: {{steps: 1000, batch: 256}}
# supervised: {{steps: 500, batch: 128, negatives: 4, matryoshka: true}}
pretrain: {{steps: 20, batch: 3}}
unsupervised: {{steps: 20, batch: 3}}
supervised: {{steps: 20, batch: 3, negatives: 1, matryoshka: true}}
runtime: {{precision: auto}}  # bf16 where the machine has instructions for it
# The bars a candidate must pass; `*` is the mean of all held-out retrieval sets.
# gate:
#   rules:
#     - {{set: "*", min: 0.5}}
"""


def run_name(folder: Path) -> str:
    """A name that a run may have, from its folder's."""
    return re.sub(r"[^a-z0-9._-]+", "-", folder.resolve().name.lower()).strip("-._") or "my-model"


def write_starter(folder: Path) -> list[Path]:
    """Write preset.yaml and data/pairs.jsonl; existing ones are never overwritten.

    Raises:
        InputError: one of them is there already, or the folder cannot be written to.
    """
    rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    preset = PRESET.format(name=run_name(folder))
    return write_new({folder / "preset.yaml": preset, folder / "data" / "pairs.jsonl": rows})


def write_new(files: Mapping[Path, str]) -> list[Path]:
    """Write files that are not there yet, all or none.

    Raises:
        InputError: one of them is there already, or cannot be written.
    """
    for path in files:
        if path.exists():
            raise InputError("exists already.", where=str(path), fix="Choose another folder.")
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise InputError(
                f"cannot be written ({reason}).", where=str(path), fix="Choose another folder."
            ) from error
    return list(files)
