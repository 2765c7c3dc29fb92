import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

TEXTS = [
    "как сбросить пароль",
    "где скачать счёт за месяц",
    "how to reset a password",
    "принтер не печатает",
    "monthly invoice download",
    "экран телефона разбит",
    "обновление не ставится",
    "the printer does not print",
]


def _write_table(path, **columns):
    pq.write_table(pa.table(columns), path)


@pytest.fixture(scope="session")
def evaluation_folder(tmp_path_factory):
    """One set of each kind, in the layout that ingest leaves."""
    folder = tmp_path_factory.mktemp("evaluation")
    ranked = folder / "Questions"
    ranked.mkdir()
    ids = [f"d{i}" for i in range(len(TEXTS))]
    _write_table(ranked / "corpus.parquet", id=ids, title=["", "Счета"] + [""] * 6, text=TEXTS)
    _write_table(
        ranked / "queries.parquet", id=["q0", "q1", "q2", "unjudged"], text=[*TEXTS[:2], "пароль", "ничего"]
    )
    _write_table(
        ranked / "qrels.parquet",
        query_id=["q0", "q0", "q1", "q2", "unjudged"],
        corpus_id=["d0", "d2", "d1", "d0", "d3"],
        score=[2, 1, 1, 1, 0],
    )
    scores = {"sts": [5.0, 0.0, None, 4.0], "pairs": [1.0, 0.0, 1.0, 0.0], "bitext": [None] * 4}
    for kind, gold in scores.items():
        (folder / kind).mkdir()
        _write_table(
            folder / kind / "pairs.parquet",
            sentence1=TEXTS[:4],
            sentence2=TEXTS[4:],
            score=pa.array(gold, pa.float64()),
        )
    listed = [("Questions", "retrieval", "short-long", 3)]
    listed += [(kind, kind, "bitext" if kind == "bitext" else "sts", 4) for kind in scores]
    keys = ("name", "kind", "task_type", "count")
    sets = [dict(zip(keys, entry, strict=True)) | {"language": "ru"} for entry in listed]
    (folder / "sets.json").write_text(json.dumps(sets), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """Writes a model folder with random weights of a seed."""
    from embedline.config.model import Prompt
    from embedline.models.backbone import new_backbone
    from embedline.models.embedder import Embedder, EmbedderSpec
    from embedline.models.folder import save_embedder
    from embedline.models.prompts import PromptTable
    from embedline.models.tokenizer import train_tokenizer

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}

    def make(seed=0, **more):
        tokenizer = train_tokenizer(TEXTS, 512)
        prompts = PromptTable({"default": Prompt(query="q: ", document="d: ")})
        spec = EmbedderSpec(query_length=16, document_length=32, dims=(8,), prompts=prompts, **more)
        folder = tmp_path_factory.mktemp("model")
        save_embedder(Embedder(new_backbone("bert", sizes, tokenizer, seed), tokenizer, spec), folder)
        return folder

    return make


@pytest.fixture
def hub_copies(tmp_path):
    """A made-up copy of a hub dataset, as the task class of RUParaPhraserSTS loads it."""
    folder = tmp_path / "hub" / "merionum" / "ru_paraphraser"
    folder.mkdir(parents=True)
    lines = [
        {"text_1": a, "text_2": b, "class": score}
        for a, b, score in zip(TEXTS, TEXTS[1:] + TEXTS[:1], ["-1", "0", "1", "1"] * 2, strict=True)
    ]
    with gzip.open(folder / "test.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    files = "configs:\n- config_name: default\n  data_files:\n  - path: test.jsonl.gz\n    split: test\n"
    (folder / "README.md").write_text(f"---\n{files}---\n", encoding="utf-8")
    return Path(tmp_path / "hub")
