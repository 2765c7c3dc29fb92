"""One training step as a component runs it: `one_step.py WORKSPACE RUN STEP`; see `prepare`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

WORDS = ["почта", "принтер", "пароль", "отпуск", "сервер", "экран", "кабель", "договор"]
TEXTS = [f"{a} и {b} номер {i}" for i, (a, b) in enumerate(zip(WORDS * 8, WORDS[::-1] * 8, strict=True))]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
OUTPUTS = ("model",)
INPUTS = {
    "pretrain": ("model", "dataset"),
    "train_unsupervised": ("model", "dataset"),
    "train_supervised": ("model", "triplets"),
}
DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}


def prepare(workspace: Path, **sections: Any) -> None:
    """A workspace with a model, a dataset and triplets, and the slice of all steps."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from embedline.artifacts.manifest import write_manifest
    from embedline.config.schema import RunConfig
    from embedline.models.backbone import new_backbone
    from embedline.models.embedder import Embedder
    from embedline.models.folder import save_embedder, spec_from_config
    from embedline.models.prompts import PromptTable
    from embedline.models.tokenizer import train_tokenizer
    from embedline.steps.context import StepConfig

    config = RunConfig.model_validate(
        {
            "name": "t",
            "data": {"sources": [{"path": "faq.jsonl"}]},
            "model": {
                "architecture": "bert",
                "settings": SIZES,
                "vocabulary": 320,
                "heads": ["dense", "lexical", "multi_vector"],
                "query_length": 16,
                "document_length": 24,
            },
            **sections,
        }
    )
    references = workspace / "references"
    references.mkdir(parents=True)

    def keep(name: str, kind: str, folder: Path) -> None:
        artifact = write_manifest(folder, kind=kind, step="test", key=name)
        path = str(folder.relative_to(workspace))
        value = {"kind": kind, "path": path, "digest": artifact.digest}
        (references / f"{name}.json").write_text(json.dumps(value))

    tokenizer = train_tokenizer(TEXTS, 320)
    backbone = new_backbone("bert", SIZES | DROPOUT, tokenizer, 1)
    model = workspace / "given" / "model"
    model.mkdir(parents=True)
    save_embedder(Embedder(backbone, tokenizer, spec_from_config(config.model, PromptTable({}))), model)
    keep("model", "model", model)
    for name in ("dataset", "triplets"):
        folder = workspace / "given" / name
        folder.mkdir()
        negatives = [[TEXTS[i - 5], TEXTS[i - 9]] if name == "triplets" else [] for i in range(len(TEXTS))]
        rows = [
            {
                "id": str(i),
                "source": "faq",
                "query": f"где {text}",
                "positives": [f"ответ {text}"],
                "negatives": negatives[i],
                "task_type": "short-long",
                "language": "ru",
                "score": None,
            }
            for i, text in enumerate(TEXTS)
        ]
        kinds = {
            "negatives": pa.list_(pa.string()),
            "score": pa.float64(),
            "positives": pa.list_(pa.string()),
        }
        schema = pa.schema([(key, kinds.get(key, pa.string())) for key in rows[0]])
        pq.write_table(pa.Table.from_pylist(rows, schema), folder / "records.parquet")
        passages = [
            {"id": str(i), "title": "", "text": text, "source": "docs", "language": "ru"}
            for i, text in enumerate(TEXTS)
        ]
        pq.write_table(pa.Table.from_pylist(passages), folder / "corpus.parquet")
        keep(name, name, folder)
    values = config.model_dump(mode="json")
    values |= {"data.sources": values["data"]["sources"], "data.corpus": []}
    (workspace / "slice.json").write_text(StepConfig(config=values).model_dump_json())


def run(workspace: Path, run_name: str, step: str) -> None:
    from embedline.execution.kfp_component import run_component

    made = workspace / "made" / run_name
    made.mkdir(parents=True, exist_ok=True)
    run_component(
        step,
        (workspace / "slice.json").read_text(),
        str(workspace),
        run_name,
        inputs={
            name: SimpleNamespace(path=workspace / "references" / f"{name}.json") for name in INPUTS[step]
        },
        outputs={name: SimpleNamespace(path=made / f"{step}.json", metadata={}) for name in OUTPUTS},
        metrics=SimpleNamespace(log_metric=lambda name, value: None),
        summary=SimpleNamespace(path=made / f"{step}.md"),
    )


if __name__ == "__main__":
    run(Path(sys.argv[1]), *sys.argv[2:4])
