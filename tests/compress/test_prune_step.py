from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from embedline.artifacts.manifest import write_manifest
from embedline.artifacts.tracker import Tracker, read_spool
from embedline.artifacts.workspace import Workspace
from embedline.config.model import Prompt
from embedline.config.schema import RunConfig
from embedline.errors import InputError
from embedline.models.backbone import new_backbone
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.folder import load_embedder, read_lineage, save_embedder
from embedline.models.prompts import PromptTable
from embedline.models.tokenizer import train_tokenizer
from embedline.retrieval.fusion import Fusion, read_fusion
from embedline.steps.context import Context, StepConfig
from embedline.steps.prune import run, sample_texts
from embedline.steps.shared.fusion import corpora
from embedline.steps.shared.training import run_spec, save_model

PRUNE = {"drop_share": 0.25, "heal_steps": 30, "heal_batch": 32, "heal_learning_rate": 2e-3}
MODEL = {"query_length": 16, "document_length": 32, "dims": [16, 32]}


@pytest.fixture
def context(make_embedder, make_texts, tmp_path):
    """A context of prune_before or prune_after, on a four-layer model and a small dataset."""
    dataset, model = tmp_path / "dataset", tmp_path / "model"
    texts = make_texts(300, 0)
    dataset.mkdir()
    record = {"negatives": [], "source": "faq", "task_type": "short-long", "language": "ru", "score": None}
    rows = [{"id": str(i), "query": texts[i], "positives": [texts[100 + i]], **record} for i in range(100)]
    pq.write_table(pa.Table.from_pylist(rows), dataset / "records.parquet")
    passages = [
        {"id": str(i), "title": "t" if i % 2 else None, "text": text, "source": "docs", "language": "ru"}
        for i, text in enumerate(texts[200:])
    ]
    pq.write_table(pa.Table.from_pylist(passages), dataset / "corpus.parquet")
    save_embedder(make_embedder(), model)

    def make(
        step: str, base: bool = True, fusion: dict[str, object] | None = None, **prune: object
    ) -> Context:
        config = RunConfig.model_validate(
            {
                "name": "t",
                "data": {"sources": [{"path": "a.jsonl"}]},
                "model": MODEL | {"base": "somewhere" if base else None},
                "prompts": {"default": {"query": "q: ", "document": "d: "}},
                "prune": PRUNE | prune,
                "fusion": fusion,
            }
        ).model_dump()
        draft = tmp_path / "draft"
        draft.mkdir()
        return Context(
            step=step,
            key="k",
            step_config=StepConfig(config=config, locations={"base": str(model)} if base else {}),
            inputs={
                "dataset": write_manifest(dataset, kind="dataset", step="clean", key="k"),
                "model": write_manifest(model, kind="model", step="train", key="k"),
            },
            workspace=Workspace(tmp_path / "work"),
            run="r",
            tracker=Tracker(tmp_path / "steps"),
            draft=draft,
        )

    return make


def test_a_model_from_scratch_has_nothing_to_prune_before_training(context):
    assert run(context("prune_before", base=False)).passed_through == {"model": None}


@pytest.mark.parametrize("when", ["never", "before"])
def test_a_step_that_is_off_passes_its_input_through(context, when):
    found = context("prune_after", when=when)
    model = found.inputs["model"].path
    embedder = load_embedder(model)
    save_embedder(embedder.with_spec(run_spec(found)), model)
    assert run(found).passed_through == {"model": found.inputs["model"]}


def test_a_model_without_the_runs_dims_and_prompts_gets_them(context):
    found = context("prune_after", when="never")
    before = load_embedder(found.inputs["model"].path)
    assert run(found).passed_through == {}
    after = load_embedder(found.draft / "model")
    assert (set(after.spec.dims), after.spec.prompts.prompt("document")) == ({16, 32}, "d: ")
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


@pytest.mark.parametrize("when", ["never", "after"])
def test_the_base_comes_unpruned_with_the_runs_own_spec(context, when):
    found = context("prune_before", when=when)
    result = run(found)
    model = load_embedder(found.draft / "model")
    assert result.passed_through == {}
    assert model.backbone.config.num_hidden_layers == 4
    assert (model.spec.query_length, model.spec.document_length, set(model.spec.dims)) == (16, 32, {16, 32})
    assert model.spec.prompts.prompt("document") == "d: "


@pytest.mark.parametrize("step", ["prune_before", "prune_after"])
def test_a_pruned_model_is_smaller_and_healing_brings_it_back(context, step):
    found = context(step, when=step.removeprefix("prune_"))
    result = run(found)
    model = load_embedder(found.draft / "model")
    m = result.metrics
    assert (m["layers_before"], m["layers_after"], model.backbone.config.num_hidden_layers) == (4, 3, 3)
    assert sum(p.numel() for p in model.parameters()) == m["parameters"] < m["parameters_before"]
    assert m["healed_cosine"] > m["unhealed_cosine"]
    assert m["healed_loss"] < m["unhealed_loss"]
    assert "held-out" in result.summary
    assert any(line["key"] == "cosine" for line in read_spool(found.tracker.path))
    kept = result.metadata["model"]["kept_layers"]
    assert kept[0] == 0
    assert read_lineage(found.draft / "model")[-1].items() >= {"step": step, "kept_layers": kept}.items()


@pytest.mark.parametrize("when", ["never", "after"])
def test_the_candidates_fusion_is_fitted_on_the_records_set_aside(context, when):
    found = context("prune_after", when=when, heal_steps=0, fusion={"queries": 60, "documents": 200})
    dataset = found.artifact("dataset").path
    rows = pq.read_table(dataset / "records.parquet")
    pq.write_table(rows.slice(0, 60), dataset / "set_aside.parquet")
    pq.write_table(rows.slice(60), dataset / "records.parquet")
    result = run(found)
    fusion = read_fusion(found.draft / "model")
    assert fusion is not None
    assert fusion.legs == ("dense", "bm25")
    assert set(fusion.scores) == {"dense", "bm25", "default", "fitted"}
    assert result.metrics["fusion_default"] == fusion.scores["default"] > 0
    assert "records set aside" in result.summary


def test_without_records_set_aside_a_fusion_has_default_weights(context):
    found = context("prune_after", when="never", fusion={"method": "rrf", "legs": ["dense", "bm25"]})
    assert "default" in run(found).summary
    assert read_fusion(found.draft / "model") == Fusion("rrf", ("dense", "bm25"))


def test_the_corpora_of_a_fit_hold_the_answers_and_other_positives_by_script(context):
    dataset = context("prune_after").artifact("dataset").path
    record = {"negatives": [], "source": "faq", "task_type": "short-long", "language": "ru", "score": None}
    held = [
        {"id": "a", "query": "кот", "positives": ["кот спит", "the cat sleeps"], **record},
        {"id": "b", "query": "dog", "positives": ["the dog runs"], **record},
        {"id": "c", "query": "кот", "positives": ["кот ест"], **record},
        {"id": "d", "query": "pair", "positives": ["пара"], **record, "task_type": "bitext"},
    ]
    others = [
        {"id": str(i), "query": f"q{i}", "positives": [f"{word} {i}"], **record, "source": source}
        for i, (word, source) in enumerate([("слово", "faq"), ("word", "faq")] * 20 + [("чужое", "wiki")] * 9)
    ]
    pq.write_table(pa.Table.from_pylist(held), dataset / "set_aside.parquet")
    pq.write_table(pa.Table.from_pylist(others), dataset / "records.parquet")
    russian, english = corpora(dataset, 24)
    assert russian.documents[:2] == ["кот спит", "кот ест"]
    assert english.documents[:2] == ["the cat sleeps", "the dog runs"]
    assert russian.relevant == {"кот": {0, 1}}
    assert english.relevant == {"кот": {0}, "dog": {1}}
    rest = {*russian.documents[2:], *english.documents[2:]}
    assert len(rest) == 20
    assert all(text.startswith(("слово", "word")) for text in rest)


def save_with_unused_tokens(folder: Path) -> Embedder:
    """Replace the input model by one whose tokenizer knows words that the dataset does not have."""
    tokenizer = train_tokenizer(["imprimante", "contraseña", "κωδικός", "пароль", "printer"] * 3, 320)
    sizes = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 96}
    backbone = new_backbone("modernbert", sizes | {"initializer_range": 0.15}, tokenizer, 3)
    embedder = Embedder(backbone, tokenizer, EmbedderSpec(document_length=32)).eval()
    save_embedder(embedder, folder)
    return embedder


@pytest.mark.parametrize("step", ["prune_before", "prune_after"])
def test_unused_tokens_go_without_a_change_of_the_vectors(context, make_texts, step):
    now = step.removeprefix("prune_")
    found = context(step, vocabulary={"when": now})
    before = save_with_unused_tokens(found.inputs["model"].path)
    result = run(found)
    after = load_embedder(found.draft / "model")
    texts = ["q: " + text for text in make_texts(300, 0)[:100]]
    np.testing.assert_allclose(after.encode(texts), before.encode(texts), atol=1e-5)
    m = result.metrics
    assert m["tokens"] == len(after.tokenizer) < m["tokens_before"] == len(before.tokenizer)
    assert m["parameters"] < m["parameters_before"]
    assert m["held_back_tokens_kept"] == 1
    assert "tokens kept" in result.summary
    assert after.backbone.config.num_hidden_layers == 4
    assert read_lineage(found.draft / "model")[-1].items() >= {"step": step, "tokens": m["tokens"]}.items()


def test_tokens_and_layers_go_in_one_step(context):
    found = context("prune_after", when="after", heal_steps=0, method="last", vocabulary={"when": "after"})
    before = save_with_unused_tokens(found.inputs["model"].path)
    m = run(found).metrics
    after = load_embedder(found.draft / "model")
    assert m["parameters_before"] == sum(p.numel() for p in before.parameters())
    assert m["parameters"] == sum(p.numel() for p in after.parameters())
    assert (after.backbone.config.num_hidden_layers, len(after.tokenizer)) == (3, m["tokens"])
    lineage = read_lineage(found.draft / "model")[-1]
    assert {"kept_layers", "tokens"} <= lineage.keys()


def test_without_healing_steps_the_model_is_only_pruned(context):
    result = run(context("prune_after", when="after", heal_steps=0, method="last"))
    assert result.metrics["healed_cosine"] == result.metrics["unhealed_cosine"] < 1


@pytest.mark.parametrize(
    ("change", "key"),
    [({"document_length": 600}, "model.document_length"), ({"dims": [128]}, "model.dims")],
)
def test_what_the_base_cannot_do_is_refused_with_its_key(context, make_embedder, change, key, tmp_path):
    found = context("prune_before")
    base = tmp_path / "bert"
    save_embedder(make_embedder("bert"), base)
    config = found.step_config.config | {"model": found.step_config.config["model"] | change}
    step_config = StepConfig(config=config, locations={"base": str(base)})
    with pytest.raises(InputError, match=key):
        run(Context(**{**vars(found), "step_config": step_config}))


def test_sampled_texts_are_reproducible_distinct_and_have_prompts(context):
    dataset = Path(context("prune_after").inputs["dataset"].path)
    table = PromptTable(
        {"default": Prompt(query="q: ", document="d: "), "faq": Prompt(query="faq: ", document="")}
    )
    texts = sample_texts(dataset, table, 90, seed=1)
    assert texts == sample_texts(dataset, table, 90, seed=1)
    assert texts != sample_texts(dataset, table, 90, seed=2)
    assert len(set(texts)) == len(texts) == 90
    queries, passages = (sum(t.startswith(p) for t in texts) for p in ("faq: ", "d: "))
    np.testing.assert_allclose(
        [queries, passages], 30, atol=2
    )  # the other third: positives, without a prompt
    assert len(sample_texts(dataset, table, 10_000, seed=1)) <= 300


def test_a_pruned_model_that_loads_as_another_is_refused_before_it_is_published(context, monkeypatch):
    def forgetful(context: Context, embedder: Embedder, **lineage: object) -> None:
        save_model(context, embedder, **lineage)
        file = context.output("model") / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"norm_eps": 1e4}))

    monkeypatch.setattr("embedline.steps.prune.save_model", forgetful)
    with pytest.raises(InputError, match="modernbert would be another model after it is saved") as error:
        run(context("prune_after", when="after", heal_steps=0))
    assert error.value.where == "prune.when"
