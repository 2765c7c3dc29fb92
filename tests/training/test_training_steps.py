"""The training steps one after the other: what each hands to the next."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoModel

from embedline.artifacts.manifest import write_manifest
from embedline.artifacts.tracker import Tracker
from embedline.artifacts.workspace import Workspace
from embedline.config.schema import RunConfig
from embedline.errors import EmbedlineError, InputError
from embedline.models.demo_decoder import write_demo_decoder
from embedline.models.embedder import Embedder
from embedline.models.folder import load_embedder, read_lineage
from embedline.steps import clean, mine, pretrain, prune, train_supervised, train_unsupervised
from embedline.steps.context import Context, StepConfig, StepResult

WORDS = ["почта", "принтер", "пароль", "отпуск", "сервер", "экран", "кабель", "договор"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
STAGE = {"steps": 4, "batch": 8, "batch_tokens": 128, "objective": "unified", "self_distillation_after": 2}
RUN: dict[str, Any] = {
    "name": "t",
    "data": {
        "sources": [
            {"path": "faq.jsonl"},
            {"path": "sts.jsonl"},
            {"path": "pos.jsonl", "min_score": 4.0},
        ]
    },
    "model": {
        "architecture": "modernbert",
        "settings": SIZES,
        "vocabulary": 320,
        "heads": ["dense", "lexical", "multi_vector"],
        "pooling": "latent",
        "latent": {"latents": 4, "heads": 2},
        "lora": {"rank": 2, "alpha": 4},
        "query_length": 16,
        "document_length": 24,
    },
    "pretrain": {"objective": "mlm", "steps": 3, "batch": 8, "length": 24},
    "unsupervised": STAGE,
    "mine": {"negatives": 2, "depth": 10, "margin": 1.0},
    "supervised": STAGE
    | {"negatives": 2, "buckets": [{"tokens": 10, "batch": 4}, {"tokens": 24, "batch": 4}]},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "dataset"
    folder.mkdir()
    texts = [f"{a} и {b} номер {i}" for i, (a, b) in enumerate(zip(WORDS * 6, WORDS[::-1] * 6, strict=True))]

    def rows(source: str, task: str, score: Callable[[int], float | None]) -> list[dict[str, Any]]:
        kind = {"source": source, "task_type": task, "language": "ru", "negatives": []}
        return [
            {"id": f"{source}{i}", "query": f"{source} {text}", "positives": [f"ответ {text}"]}
            | kind
            | {"score": score(i)}
            for i, text in enumerate(texts)
        ]

    records = [
        *rows("faq", "short-long", lambda i: None),
        *rows("sts", "sts", lambda i: float(i % 5)),
        *rows("pos", "sts", lambda i: None),
    ]
    kinds = {"negatives": pa.list_(pa.string()), "score": pa.float64(), "positives": pa.list_(pa.string())}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in records[0]])
    pq.write_table(pa.Table.from_pylist(records, schema), folder / "records.parquet")
    passages = [
        {"id": str(i), "title": "", "text": t, "source": "docs", "language": "ru"}
        for i, t in enumerate(texts)
    ]
    pq.write_table(pa.Table.from_pylist(passages), folder / "corpus.parquet")
    return folder


class Line:
    """Runs steps, each with the outputs of those before."""

    def __init__(self, folder: Path, dataset: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.made: dict[str, Any] = {
            "dataset": write_manifest(dataset, kind="dataset", step="clean", key="k"),
            "model": None,
        }

    def run(self, step: str, go: Callable[[Context], StepResult], output: str, **over: Any) -> StepResult:
        locations = over.pop("locations", {})
        config = RunConfig.model_validate(RUN | over).model_dump()
        config |= {"data.sources": config["data"]["sources"], "data.corpus": config["data"]["corpus"]}
        draft = self.folder / step
        draft.mkdir()
        result = go(
            Context(
                step=step,
                key="k",
                step_config=StepConfig(config=config, locations=locations),
                inputs=dict(self.made),
                workspace=Workspace(self.folder / "work"),
                run="r",
                tracker=Tracker(self.folder / "tracked"),
                draft=draft,
            )
        )
        self.made[output] = write_manifest(draft / output, kind=output, step=step, key="k")
        return result


def test_the_stages_hand_on_a_model_with_all_its_parts(tmp_path: Path, dataset: Path) -> None:
    line = Line(tmp_path, dataset)
    line.run("pretrain", pretrain.run, "model")
    result = line.run("train_unsupervised", train_unsupervised.run, "model")
    assert "sts" in result.summary
    line.run("mine", mine.run, "triplets")
    rows = pq.read_table(line.made["triplets"].path / "records.parquet").to_pylist()
    before = {row["id"]: row for row in pq.read_table(dataset / "records.parquet").to_pylist()}
    assert {row["id"] for row in rows} == set(before)
    for row in rows:
        if row["source"] == "sts":  # scored records pass through, whatever mining does
            assert {name: row[name] for name in before[row["id"]]} == before[row["id"]]
        else:
            assert row["score"] is None
            assert not set(row["negatives"]) & set(row["positives"])
    assert any(row["negatives"] for row in rows if row["source"] == "faq")
    mined = pq.read_table(line.made["triplets"].path / "mining.parquet").to_pylist()
    assert not any(row["id"].startswith("sts") for row in mined)

    result = line.run("train_supervised", train_supervised.run, "model")
    assert "tokens |" in result.summary
    model = load_embedder(line.made["model"].path)
    assert model.spec.heads == ("dense", "lexical", "multi_vector")
    assert model.latent_attention is not None
    assert not any("lora" in name for name in model.state_dict())
    steps = [entry["step"] for entry in read_lineage(line.made["model"].path)]
    assert steps == ["pretrain", "train_unsupervised", "train_supervised"]


def test_a_stage_learns_from_the_runs_teacher(tmp_path: Path, dataset: Path) -> None:
    line = Line(tmp_path, dataset)
    line.run("pretrain", pretrain.run, "model")
    teacher = line.made["model"].path
    line.run(
        "train_unsupervised",
        train_unsupervised.run,
        "model",
        teacher={"model": str(teacher), "languages": ["ru"]},
        unsupervised=STAGE | {"log_every": 1, "distillation": {"of": "vectors"}},
        locations={"teacher": str(teacher)},
    )
    spooled = "".join(file.read_text() for file in (tmp_path / "tracked").rglob("*") if file.is_file())
    assert "distillation_loss" in spooled


def test_texts_longer_than_the_positions_are_refused_with_their_setting(
    tmp_path: Path, dataset: Path
) -> None:
    short = RUN["model"] | {"settings": SIZES | {"max_position_embeddings": 20}, "pooling": "mean"}
    with pytest.raises(InputError, match=r"model\.document_length"):
        Line(tmp_path, dataset).run("pretrain", pretrain.run, "model", model=short)


def test_pretraining_goes_on_from_the_bases_own_head(tmp_path: Path, dataset: Path) -> None:
    base = tmp_path / "base"
    write_demo_decoder(base, texts=WORDS)
    bare = tmp_path / "bare"
    shutil.copytree(base, bare)
    AutoModel.from_pretrained(base).save_pretrained(bare)
    config = json.loads((bare / "config.json").read_text())
    (bare / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    for folder, with_head in ((base, True), (bare, False)):
        over = {
            "model": RUN["model"] | {"base": str(folder), "lora": None, "settings": {}},
            "pretrain": RUN["pretrain"] | {"objective": "mntp"},
            "locations": {"base": str(folder)},
        }
        line = Line(tmp_path / f"line-{folder.name}", dataset)
        line.run("prune_before", prune.run, "model", **over)
        result = line.run("pretrain", pretrain.run, "model", **over)
        assert ("from the base's own head" in result.summary) is with_head
        last = read_lineage(line.made["model"].path)[-1]
        assert ("head" in last["objective"]) is with_head


def test_the_teacher_has_its_own_prompts_and_lengths(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(tmp_path, dataset)
    line.run("pretrain", pretrain.run, "model")
    folder = line.made["model"].path
    encoded: list[tuple[str, int]] = []
    tokenize = Embedder.tokenize

    def watched(self: Embedder, texts: Any, *, prompt: str = "", max_length: int) -> list[list[int]]:
        encoded.append((prompt, max_length))
        return tokenize(self, texts, prompt=prompt, max_length=max_length)

    monkeypatch.setattr(Embedder, "tokenize", watched)
    prompts = {"default": {"query": "query: ", "document": "passage: "}, "sts": {"query": "alike: "}}
    config = RunConfig.model_validate(RUN | {"teacher": {"model": "t", "prompts": prompts}}).model_dump()
    teacher = clean._teacher(
        Context(
            step="clean",
            key="k",
            step_config=StepConfig(config=config, locations={"teacher": str(folder)}),
            inputs={},
            workspace=Workspace(tmp_path / "work"),
            run="r",
            tracker=Tracker(tmp_path / "tracked"),
            draft=tmp_path,
        )
    )
    for source, task_type, side in (
        ("faq", "short-long", "query"),
        ("faq", "short-long", "document"),
        ("sts", "sts", "query"),
        ("sts", "sts", "document"),
    ):
        assert teacher(["почта"], source, task_type, side).shape == (1, 32)  # type: ignore[arg-type]
    assert encoded == [("query: ", 16), ("passage: ", 24), ("alike: ", 24), ("alike: ", 24)]


def test_a_record_alone_in_its_length_is_counted(tmp_path: Path, dataset: Path) -> None:
    folder = shutil.copytree(dataset, tmp_path / "dataset")
    rows = pq.read_table(folder / "records.parquet")
    one = rows.to_pylist()[0] | {"id": "long", "positives": ["и ещё " * 30], "task_type": "long-long"}
    table = pa.concat_tables([rows, pa.Table.from_pylist([one], rows.schema)])
    pq.write_table(table, folder / "records.parquet")
    line = Line(tmp_path / "line", folder)
    line.run("pretrain", pretrain.run, "model", pretrain={"enabled": False})
    stage = STAGE | {"buckets": [{"tokens": 16, "batch": 4}, {"tokens": 24, "batch": 4}]}
    result = line.run("train_unsupervised", train_unsupervised.run, "model", unsupervised=stage)
    assert result.metrics["records_alone"] == 1
    assert "1 records were not drawn: each is the only one of its task type" in result.summary


@pytest.mark.parametrize(
    ("over", "named"),
    [
        ({"unsupervised": STAGE | {"batch": 500}}, r"^unsupervised\.batch: "),
        ({"unsupervised": STAGE | {"buckets": [{"tokens": 24, "batch": 500}]}}, r"^unsupervised\.buckets: "),
        ({"unsupervised": STAGE | {"task_shares": {"sts": 1}}}, r"^unsupervised\.task_shares: "),
        ({"unsupervised": STAGE | {"learning_rate": 1e30, "max_bad_steps": 0}}, r"^unsupervised: "),
    ],
)
def test_what_a_stage_cannot_do_names_its_section(
    tmp_path: Path, dataset: Path, over: dict[str, Any], named: str
) -> None:
    line = Line(tmp_path, dataset)
    line.run("pretrain", pretrain.run, "model", pretrain={"enabled": False})
    with pytest.raises(EmbedlineError, match=named):
        line.run("train_unsupervised", train_unsupervised.run, "model", **over)
