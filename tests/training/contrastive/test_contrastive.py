from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from embedline.config.model import HybridWeights, LoraConfig
from embedline.config.training import ContrastiveConfig
from embedline.errors import InputError
from embedline.models.lora import add_lora, merge_lora
from embedline.training.batching.batches import Draw
from embedline.training.batching.pairs import ContrastiveBatch, ContrastiveBatches, tokenised
from embedline.training.batching.records import Record, SourceRecords
from embedline.training.batching.rows import pool_small, split_by_source
from embedline.training.contrastive import step as contrastive_step
from embedline.training.contrastive.gradcache import GradCache
from embedline.training.contrastive.known_positives import KnownPositives
from embedline.training.contrastive.step import ContrastiveStep
from embedline.training.contrastive.step import distinct as distinct_texts
from embedline.training.contrastive.training import train_contrastive


def config(**values: Any) -> ContrastiveConfig:
    base = {"batch": 4, "steps": 4, "batch_tokens": 64, "log_every": 2, "checkpoint_every": 2}
    return ContrastiveConfig(**(base | values))


@pytest.fixture
def sources(record, texts: list[str]) -> dict[str, SourceRecords]:
    rows = [
        record(
            f"вопрос {i} {texts[i]}", [texts[(i + 1) % 8], texts[(i + 2) % 8]], [texts[(i + 4) % 8]] * (i % 3)
        )
        for i in range(8)
    ]
    return {"faq": SourceRecords("faq", rows[:6]), "wiki": SourceRecords("wiki", rows[2:])}


def named(sources: dict[str, SourceRecords]) -> list[Record]:
    """The rows of all sources; each says which it is of."""
    return [
        replace(row, source=row.source or source.name) for source in sources.values() for row in source.rows
    ]


def fit(
    embedder: Any, sources: Any, values: ContrastiveConfig, folder: Path
) -> tuple[dict[str, float], list]:
    logged: list[tuple[int, dict[str, float]]] = []
    mixture = train_contrastive(
        embedder,
        named(sources),
        values,
        weights={},
        seed=3,
        bf16=False,
        checkpoints=folder,
        on_metrics=lambda metrics, step: logged.append((step, metrics)),
    )
    return {name: share.drawn for name, (_, share) in mixture.groups.items()}, logged


def a_batch(embedder: Any, sources: Any, rows: list[int], epoch: int = 0, **values: Any) -> ContrastiveBatch:
    """Of the first source."""
    with tempfile.TemporaryDirectory() as folder:
        store = tokenised(embedder, named(sources), config(**values), Path(folder) / "tokens")
        parts = split_by_source(store.columns(), {})
        return ContrastiveBatches(store, parts, [Draw(next(iter(parts)), np.array(rows), epoch)])[0]


TEXT = st.sampled_from(["a", "b", "c", "d"])


@given(
    rows=st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3)), min_size=1, max_size=6),
    data=st.data(),
)
def test_known_positives_equal_brute_force(rows: list[tuple[str, list[str]]], data: st.DataObject) -> None:
    """Of texts of which some are the same tokens, as cut or in lower case they are."""
    queries, answers = [query for query, _ in rows], [texts for _, texts in rows]
    documents = data.draw(st.lists(TEXT, min_size=1, max_size=8))
    tokens_of = data.draw(st.fixed_dictionaries(dict.fromkeys("abcd", st.integers(0, 3))))
    tokens = [tokens_of[text] for text in documents]
    texts_alone = KnownPositives(queries, answers, documents)
    for known, same in (
        (texts_alone, lambda one, other: one == other),
        (
            KnownPositives(queries, answers, documents, tokens=tokens),
            lambda one, other: (
                # Texts that are in no document have no tokens here.
                one == other or ({one, other} <= set(documents) and tokens_of[one] == tokens_of[other])
            ),
        ),
    ):
        expected = [
            [any(same(text, d) for q, texts in rows if q == query for text in (q, *texts)) for d in documents]
            for query in queries
        ]
        assert known[:].tolist() == expected
        cut = data.draw(st.integers(0, len(rows)))
        assert [*known[:cut].tolist(), *known[cut:].tolist()] == expected
        assert known.everything == all(all(row) for row in expected)


@given(texts=st.lists(TEXT, min_size=1, max_size=8), data=st.data())
def test_equal_texts_stay_equal_when_prompts_change_their_tokens(
    texts: list[str], data: st.DataObject
) -> None:
    tokens = data.draw(st.lists(st.integers(0, 9), min_size=len(texts), max_size=len(texts)))
    [known] = KnownPositives(["q"], [["a"]], texts, tokens=tokens)[:].tolist()
    assert all(known[i] for i, text in enumerate(texts) if text == "a")


def test_documents_equal_to_a_positive_are_no_negatives(make_embedder, record) -> None:
    """Through the whole step: neither cut texts nor chains of pairs push apart what is the same."""
    long = "слово " * 30  # cut, the endings are gone
    rows = [
        record("как войти", [f"{long} раз"]),
        record("где почта", [f"{long} два"]),  # the same tokens as the first one's
        record("сброс", ["как войти"]),  # the first query
        record("где почта", ["в меню"]),  # the second query again
    ]
    embedder = make_embedder()
    settings = config(prompts=False, false_negative_margin=None)
    batch = a_batch(embedder, {"faq": SourceRecords("faq", rows)}, [0, 1, 2, 3], **settings.model_dump())
    step = ContrastiveStep(GradCache(embedder, batch_tokens=64), settings)
    _, place = distinct_texts(batch.ids, 4)
    assert step._rules(batch, place).known_positives_NM[:].tolist() == [
        [True, True, True, False],
        [True, True, False, True],
        [False, False, True, False],
        [True, True, False, True],
    ]


def test_prompts_of_the_table_precede_the_texts(make_embedder, sources) -> None:
    embedder = make_embedder()
    batch = a_batch(embedder, sources, [0, 1], negatives=2)
    decoded = [embedder.tokenizer.decode(row, skip_special_tokens=True) for row in batch.ids]

    def words(text: str, length: int) -> str:
        row = embedder.tokenizer(text, truncation=True, max_length=length)["input_ids"]
        return embedder.tokenizer.decode(row, skip_special_tokens=True)

    faq = sources["faq"].rows
    assert decoded[:2] == [words("Instruct: answer\nQuery: " + row.query, 16) for row in faq[:2]]
    assert decoded[2:4] == [words(row.positives[0], 24) for row in faq[:2]]  # faq has no document prompt
    plain = a_batch(embedder, sources, [0], prompts=False)
    assert plain.ids[0] == embedder.tokenize([faq[0].query], max_length=16)[0]


def test_a_source_without_its_own_prompt_uses_the_default(make_embedder, sources) -> None:
    embedder = make_embedder()
    renamed = {"faq": SourceRecords("other", sources["faq"].rows)}
    batch = a_batch(embedder, renamed, [0])
    row = renamed["faq"].rows[0]
    assert batch.ids == [
        *embedder.tokenize([row.query], prompt="search_query: ", max_length=16),
        *embedder.tokenize([row.positives[0]], prompt="search_document: ", max_length=24),
    ]


def test_each_pass_uses_the_next_positive(make_embedder, sources) -> None:
    row = sources["faq"].rows[0]
    seen = [a_batch(make_embedder(), sources, [0], epoch).document_texts[0] for epoch in range(4)]
    assert seen == [row.positives[i % 2] for i in range(4)]


def test_negatives_stay_with_their_queries(make_embedder, sources) -> None:
    batch = a_batch(make_embedder(), sources, [0, 1, 2], negatives=1)  # rows with 0, 1 and 2 negatives
    assert batch.query_index == [0, 1, 2, 1, 2]
    rows = sources["faq"].rows
    assert batch.document_texts[3:] == [rows[1].negatives[0], rows[2].negatives[0]]
    assert len(batch.ids) == 3 + 5


def test_long_queries_get_the_length_of_documents(make_embedder, record) -> None:
    long = {"faq": SourceRecords("faq", [record("слово " * 50, ["ответ"], task_type="long-short")])}
    assert len(a_batch(make_embedder(), long, [0]).ids[0]) == 24
    short = {"faq": SourceRecords("faq", [record("слово " * 50, ["ответ"])])}
    assert len(a_batch(make_embedder(), short, [0]).ids[0]) == 16


def test_a_batch_can_be_saved_as_json(make_embedder, sources) -> None:
    batch = a_batch(make_embedder(), sources, [0, 1], negatives=1)
    assert json.loads(json.dumps(asdict(batch))) == asdict(batch)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"symmetric": True, "matryoshka": True, "matryoshka_weights": [0.5, 0.25]},
        {"negatives": 2, "in_batch_negatives": False, "false_negative_margin": None},
        {"negatives": 1, "resident_tokens": 80, "matryoshka": True},
    ],
    ids=["pairs", "symmetric-matryoshka", "own-negatives", "triplets"],
)
def test_training_lowers_the_loss(
    make_embedder, record, texts: list[str], tmp_path: Path, values: dict[str, Any]
) -> None:
    rows = [record(f"{text} {i}", [f"{i} {text}"], [f"{i} не {text}"]) for i, text in enumerate(texts)]
    sources = {"faq": SourceRecords("faq", rows[:4]), "wiki": SourceRecords("wiki", rows[4:])}
    settings = config(steps=24, learning_rate=3e-3, log_every=4, checkpoint_every=100, **values)
    shares, logged = fit(make_embedder("modernbert"), sources, settings, tmp_path)
    assert logged[-1][1]["loss"] < 0.7 * logged[0][1]["loss"]
    assert sum(shares.values()) == pytest.approx(1)


def test_killed_and_resumed_equals_uninterrupted(
    make_embedder, sources, tmp_path: Path, dies_at_its_fourth_call
) -> None:
    """All of it: dropout replayed by GradCache, batches drawn again, optimizer and schedule restored."""
    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    settings = config(steps=6, resident_tokens=40)
    whole = make_embedder(**dropout)
    fit(whole, sources, settings, tmp_path / "whole")

    calls = dies_at_its_fourth_call(contrastive_step.ContrastiveStep)
    with pytest.raises(KeyboardInterrupt):
        fit(make_embedder(**dropout), sources, settings, tmp_path / "killed")
    resumed = make_embedder(**dropout)
    fit(resumed, sources, settings, tmp_path / "killed")
    assert len(calls) == 4 + 4  # steps 0 to 2 and the fatal one; 2 to 5 again
    for (name, one), other in zip(resumed.named_parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_no_records_are_an_error(make_embedder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no records are left"):
        fit(make_embedder(), {}, config(), tmp_path)


def test_rows_without_negatives_are_dropped_without_in_batch_negatives(
    make_embedder, record, sources, tmp_path: Path
) -> None:
    bare = {"faq": SourceRecords("faq", [record(f"q{i}", [f"p{i}"]) for i in range(8)])}
    only = config(negatives=1, in_batch_negatives=False)
    with pytest.raises(InputError, match="in_batch_negatives: false"):
        fit(make_embedder(), bare, only, tmp_path / "bare")
    shares, logged = fit(make_embedder(), {**bare, "wiki": sources["wiki"]}, only, tmp_path)
    assert shares == {"wiki": 1.0}
    assert all(metrics["loss"] > 0 for _, metrics in logged)


def test_a_batch_without_any_negative_is_an_error(make_embedder, record, tmp_path: Path) -> None:
    same = {"faq": SourceRecords("faq", [record(f"вопрос {i}", ["да"]) for i in range(8)])}
    with pytest.raises(InputError, match="from faq holds no negative"):
        fit(make_embedder(), same, config(), tmp_path)


def test_equal_tokens_of_different_texts_blame_the_tokenizer(
    make_embedder, record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vocabulary that knows none of the words: every text is one unknown token."""
    words = {"[UNK]": 0, "[PAD]": 1, "[CLS]": 2, "[SEP]": 3}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    broken = PreTrainedTokenizerFast(tokenizer_object=model, unk_token="[UNK]", pad_token="[PAD]")
    broken.name_or_path = "models/broken"
    embedder = make_embedder()
    monkeypatch.setattr(embedder, "tokenizer", broken)
    rows = {"faq": SourceRecords("faq", [record(f"вопрос {i}", [f"ответ {i}"]) for i in range(8)])}
    with pytest.raises(InputError) as raised:
        fit(embedder, rows, config(prompts=False), tmp_path)
    said = str(raised.value)
    assert said.startswith(
        "the tokenizer of models/broken: 4 different documents of a batch from faq have the same"
    )
    assert "makes '[UNK]' of 'ответ" in said
    assert "data.sources" not in said


def test_texts_cut_to_equal_beginnings_blame_the_length(make_embedder, record, tmp_path: Path) -> None:
    letterhead = "Утверждено приказом по предприятию, хранить вместе с паспортом изделия. "
    rows = [record(f"вопрос {i}", [f"{letterhead}Ответ {i}"]) for i in range(8)]
    with pytest.raises(InputError, match=r"^training: 4 different documents .* cut to 24 .*document_length"):
        fit(make_embedder(), {"faq": SourceRecords("faq", rows)}, config(), tmp_path)


def test_a_small_batch_without_negatives_has_no_loss_and_no_error(
    make_embedder, record, texts: list[str], tmp_path: Path
) -> None:
    """Two rows in a bucket of their own that are each other's answers, beside rows that fill batches."""
    turned = [record("да", ["слово " * 40]), record("слово " * 40, ["да"], task_type="long-short")]
    rows = [record(f"{i}", [f"да {i}"]) for i in range(8)]
    buckets = [{"tokens": 14, "batch": 4}, {"tokens": 24, "batch": 4}]
    settings = config(
        buckets=buckets, steps=9, size_exponent=0.0, prompts=False, log_every=1, false_negative_margin=None
    )
    pairs = [replace(row, task_type="short-long") for row in turned]
    shares, logged = fit(make_embedder(), {"faq": SourceRecords("faq", [*rows, *pairs])}, settings, tmp_path)
    small = next(name for name in shares if name.startswith("small"))
    losses = [values[f"loss.{small}"] for _, values in logged if f"loss.{small}" in values]
    assert losses
    assert max(losses) == 0


ROWS_OF_IDS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=2), min_size=1, max_size=8)


@given(ids=ROWS_OF_IDS, data=st.data())
def test_distinct_texts_give_back_all_texts(ids: list[list[int]], data: st.DataObject) -> None:
    queries = data.draw(st.integers(0, len(ids)))
    found, place = distinct_texts(ids, queries)
    assert [found[i] for i in place] == ids
    assert len(found) == sum(len({tuple(row) for row in side}) for side in (ids[:queries], ids[queries:]))
    assert list(dict.fromkeys(place.tolist())) == list(range(len(found)))


@pytest.mark.parametrize(
    "heads", [("dense",), ("dense", "lexical", "multi_vector")], ids=["dense", "all heads"]
)
def test_equal_texts_are_encoded_once_and_learn_the_same(
    make_embedder, record, texts: list[str], monkeypatch: pytest.MonkeyPatch, heads: tuple[str, ...]
) -> None:
    rows = [record(texts[i], [texts[i + 4]], [texts[0]]) for i in range(1, 4)]
    rows.append(record(texts[0], [texts[4]], [texts[0]]))  # a query that is a document too stays two texts
    sources = {"faq": SourceRecords("faq", rows)}
    embedder = make_embedder(heads=heads)
    settings = config(negatives=1, prompts=False, objective="unified" if len(heads) > 1 else "infonce")
    batch = a_batch(embedder, sources, [0, 1, 2, 3], **settings.model_dump())
    encoded: list[int] = []
    embedder.backbone.register_forward_hook(lambda module, given, states: encoded.append(len(states[0])))

    def learnt() -> tuple[float, list[torch.Tensor]]:
        embedder.zero_grad()
        step = ContrastiveStep(GradCache(embedder, batch_tokens=64, resident_tokens=10_000), settings)
        value, _ = step(embedder, batch)
        return float(value), [p.grad.clone() for p in embedder.parameters() if p.grad is not None]

    value, gradients = learnt()
    assert sum(encoded) == len({*map(tuple, batch.ids[:4])}) + len({*map(tuple, batch.ids[4:])}) == 9
    encoded.clear()
    all_of_them = lambda ids, queries: (ids, torch.arange(len(ids)))  # noqa: E731
    monkeypatch.setattr(contrastive_step, "distinct", all_of_them)
    plain, expected = learnt()
    assert sum(encoded) == 4 + 4 + 4
    assert value == pytest.approx(plain, abs=1e-5)
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_empty_texts_do_no_harm(make_embedder, record, tmp_path: Path) -> None:
    rows = [record("" if i == 0 else f"q{i}", ["" if i == 1 else f"ответ {i}"]) for i in range(6)]
    _, logged = fit(make_embedder(), {"faq": SourceRecords("faq", rows)}, config(prompts=False), tmp_path)
    assert all(metrics["loss"] > 0 for _, metrics in logged)


ALL_HEADS = ("dense", "lexical", "multi_vector")


def distinct(record, texts: list[str], count: int = 8) -> dict[str, SourceRecords]:
    rows = [record(f"{text} {i}", [f"{i} {text}"], [f"{i} не {text}"]) for i, text in enumerate(texts)]
    return {"faq": SourceRecords("faq", rows[:count])}


def judged(record, texts: list[str]) -> SourceRecords:
    """Pairs whose score is how near their numbers are."""
    return SourceRecords(
        "sts",
        [
            record(text, [f"{text} да да" if i % 2 else "нет"], [], "sts", i % 2 + i / 100)
            for i, text in enumerate(texts)
        ],
    )


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"self_distillation": False, "symmetric": True},
        {"matryoshka": True, "resident_tokens": 100},
        {"negatives": 1, "in_batch_negatives": False, "learnable_temperature": True},
    ],
    ids=["distilled", "joint", "matryoshka", "own-negatives"],
)
def test_the_unified_objective_trains_every_head(
    make_embedder, record, texts: list[str], tmp_path: Path, values: dict[str, Any]
) -> None:
    embedder = make_embedder("modernbert", heads=ALL_HEADS)
    before = {name: head.state_dict() for name, head in embedder.heads.items()}
    before = {f"{n}.{k}": v.clone() for n, state in before.items() for k, v in state.items()}
    settings = config(
        objective="unified", steps=24, learning_rate=3e-3, log_every=4, checkpoint_every=100, **values
    )
    _, logged = fit(embedder, distinct(record, texts), settings, tmp_path)
    for name in ("loss", "dense_loss", "multi_vector_loss"):
        assert logged[-1][1][name] < logged[0][1][name], name
    assert "lexical_loss" in logged[0][1]
    for name, head in embedder.heads.items():
        for key, weights in head.state_dict().items():
            assert not torch.equal(weights, before[f"{name}.{key}"]), name


def test_scores_of_the_other_heads_are_computed_once_for_all_dims(
    make_embedder, record, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("lexical_scores", "multi_vector_scores"):
        real = getattr(contrastive_step, name)
        monkeypatch.setattr(
            contrastive_step, name, lambda *a, real=real, name=name: (calls.append(name), real(*a))[1]
        )
    embedder = make_embedder(heads=ALL_HEADS)
    settings = config(objective="unified", matryoshka=True)
    batch = a_batch(embedder, distinct(record, texts), [0, 1, 2, 3], **settings.model_dump())
    ContrastiveStep(GradCache(embedder, batch_tokens=64), settings)(embedder, batch)
    assert calls == ["lexical_scores", "multi_vector_scores"]


@pytest.mark.parametrize("objective", ["infonce", "unified", "cosent"])
def test_each_dim_has_the_weight_of_the_stage(
    make_embedder, record, texts: list[str], objective: str
) -> None:
    embedder = make_embedder(heads=ALL_HEADS)  # its dims are 16 and 8
    scored = objective == "cosent"
    rows = {"sts": judged(record, texts)} if scored else distinct(record, texts)
    stage = {"objective": "infonce" if scored else objective, "self_distillation": False}

    def loss(*weights: float) -> float:
        settings = config(**stage, matryoshka=bool(weights), matryoshka_weights=list(weights))
        batch = a_batch(embedder, rows, [0, 1, 2, 3], **settings.model_dump())
        return float(ContrastiveStep(GradCache(embedder, batch_tokens=64), settings)(embedder, batch)[0])

    full = loss()
    of_16, of_8 = loss(1.0, 0.0) - full, loss(0.0, 1.0) - full
    assert of_16 != pytest.approx(of_8, rel=1e-3)
    assert loss(3.0, 0.5) == pytest.approx(full + 3 * of_16 + 0.5 * of_8, rel=1e-4)


@pytest.mark.parametrize("alone", ["dense", "multi_vector"])
def test_the_unified_objective_uses_the_models_hybrid_weights(
    make_embedder, record, texts: list[str], alone: str
) -> None:
    """Where one head has all the weight, its loss is that of the sum."""
    weights = HybridWeights(**{"dense": 0.0, "lexical": 0.0, "multi_vector": 0.0, alone: 1.0})
    embedder = make_embedder(heads=ALL_HEADS)
    embedder.spec = replace(embedder.spec, hybrid=weights)
    settings = config(objective="unified", self_distillation=False)
    batch = a_batch(embedder, distinct(record, texts), [0, 1, 2, 3], **settings.model_dump())
    loss, logged = ContrastiveStep(GradCache(embedder, batch_tokens=64), settings)(embedder, batch)
    each = logged["dense_loss"] + 0.1 * logged["lexical_loss"] + logged["multi_vector_loss"]
    assert float(loss) == pytest.approx(float(each + logged[f"{alone}_loss"]) / 4, rel=1e-5)


def test_self_distillation_starts_at_its_step_after_a_resume_too(
    make_embedder, record, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distilled: list[bool] = []
    real = contrastive_step.unified_loss

    def spy(*args: Any, distill: bool, **kwargs: Any) -> Any:
        distilled.append(distill)
        if len(distilled) == 5:
            raise KeyboardInterrupt
        return real(*args, distill=distill, **kwargs)

    monkeypatch.setattr(contrastive_step, "unified_loss", spy)
    settings = config(objective="unified", self_distillation_after=3, steps=8)
    with pytest.raises(KeyboardInterrupt):
        fit(make_embedder(heads=ALL_HEADS), distinct(record, texts), settings, tmp_path)
    fit(make_embedder(heads=ALL_HEADS), distinct(record, texts), settings, tmp_path)
    assert distilled == [False, False, False, True, True] + [True] * 4  # killed in step 4, resumed at it


@pytest.mark.parametrize("objective", ["infonce", "unified"])
def test_scored_pairs_are_ranked_and_are_no_positives(
    make_embedder, record, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a scored pair was taken for a positive")

    for name in ("info_nce", "unified_loss", "contrastive_loss"):
        monkeypatch.setattr(contrastive_step, name, refuse)
    embedder = make_embedder("modernbert", heads=ALL_HEADS)
    settings = config(
        objective=objective, steps=24, batch=8, learning_rate=3e-3, log_every=4, matryoshka=True
    )
    source = judged(record, texts)
    _, logged = fit(embedder, {"sts": source}, settings, tmp_path)
    assert logged[-1][1]["cosent_loss"] < 0.7 * logged[0][1]["cosent_loss"]
    queries = embedder.encode([row.query for row in source.rows], prompt="search_query: ")
    others = embedder.encode([row.positives[0] for row in source.rows], prompt="search_query: ")
    cosines = (queries * others).sum(1)
    assert cosines[1::2].mean() > cosines[::2].mean()


def test_a_source_with_and_without_scores_is_trained_as_two(
    make_embedder, record, texts: list[str], tmp_path: Path
) -> None:
    rows = [*judged(record, texts).rows, *distinct(record, texts)["faq"].rows]
    shares, logged = fit(
        make_embedder(), {"mixed": SourceRecords("mixed", rows)}, config(steps=12, log_every=12), tmp_path
    )
    assert shares.keys() == {"mixed", "mixed (scored)"}
    assert all(shares.values())
    cosent = logged[0][1]["cosent_loss"]
    assert 0 < cosent < 100  # the mean over the steps that had it


def test_the_temperature_is_trained_and_survives_a_kill(
    make_embedder, record, texts: list[str], tmp_path: Path, dies_at_its_fourth_call
) -> None:
    settings = config(learnable_temperature=True, temperature=0.05, steps=6, learning_rate=1e-2, log_every=1)
    sources = distinct(record, texts)
    whole = make_embedder()
    _, logged = fit(whole, sources, settings, tmp_path / "whole")
    found = [metrics["temperature"] for _, metrics in logged]
    assert found[0] == pytest.approx(0.05)
    assert len(set(found)) >= 5  # the first step warms up
    assert min(found) >= 0.01
    assert "temperature" not in " ".join(whole.state_dict())

    dies_at_its_fourth_call(contrastive_step.ContrastiveStep)
    with pytest.raises(KeyboardInterrupt):
        fit(make_embedder(), sources, settings, tmp_path / "killed")
    resumed = make_embedder()
    _, again = fit(resumed, sources, settings, tmp_path / "killed")
    assert [metrics["temperature"] for _, metrics in again] == found
    for (name, one), other in zip(resumed.named_parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_the_temperature_stays_above_a_hundredth_or_its_start() -> None:
    for start, floor in ((0.05, 0.01), (0.005, 0.005)):
        temperature = contrastive_step.Temperature(start)
        assert temperature().item() == pytest.approx(start)
        temperature.log_scale.data.fill_(50.0)
        assert temperature().item() == pytest.approx(floor)


def test_the_temperature_comes_back_from_its_bound() -> None:
    """Driven against it for many steps, it rises at once when the gradient turns."""
    temperature = contrastive_step.Temperature(0.011)
    optimizer = torch.optim.AdamW(temperature.parameters(), lr=0.05, weight_decay=0.0)
    for sign, steps in ((1.0, 50), (-1.0, 20)):
        for _ in range(steps):
            optimizer.zero_grad()
            (sign * temperature()).backward()
            optimizer.step()
    assert temperature().item() > 0.011


def test_weight_decay_leaves_the_temperature_alone(make_embedder, record, texts: list[str], tmp_path) -> None:
    """With no gradient through it (one step at a learning rate near 0), decay alone would move it."""
    settings = config(
        learnable_temperature=True, steps=3, learning_rate=1e-9, weight_decay=1e8, log_every=1, warmup=0.0
    )
    _, logged = fit(make_embedder(), distinct(record, texts), settings, tmp_path)
    assert logged[-1][1]["temperature"] == pytest.approx(0.02, rel=1e-5)


def test_rows_of_a_pool_keep_the_prompts_of_their_sources(make_embedder, record, tmp_path: Path) -> None:
    embedder = make_embedder()
    rows = [record("вопрос", ["ответ"]), record("вопрос", ["ответ"])]
    rows = [replace(row, source=name) for row, name in zip(rows, ("faq", "wiki"), strict=True)]
    store = tokenised(embedder, rows, config(), tmp_path / "tokens")
    pools = pool_small(split_by_source(store.columns(), {}), 4)
    batch = ContrastiveBatches(store, pools, [Draw(*pools, np.arange(2), 0)])[0]
    faq, wiki = batch.ids[:2]
    assert faq == embedder.tokenize(["вопрос"], prompt="Instruct: answer\nQuery: ", max_length=16)[0]
    assert wiki == embedder.tokenize(["вопрос"], prompt="search_query: ", max_length=16)[0]


@pytest.mark.parametrize("values", [{}, {"learnable_temperature": True}], ids=["plain", "temperature"])
def test_adapters_are_trained_resumed_and_merged(
    make_embedder, record, texts: list[str], tmp_path: Path, dies_at_its_fourth_call, values: Any
) -> None:
    def adapted() -> Any:
        embedder = make_embedder("modernbert")
        torch.manual_seed(0)
        add_lora(embedder.backbone, LoraConfig(rank=4, alpha=8))
        return embedder

    settings = config(steps=6, learning_rate=1e-2, **values)
    sources = distinct(record, texts)
    whole = adapted()
    fit(whole, sources, settings, tmp_path / "whole")
    dies_at_its_fourth_call(contrastive_step.ContrastiveStep)
    with pytest.raises(KeyboardInterrupt):
        fit(adapted(), sources, settings, tmp_path / "killed")
    resumed = adapted()
    fit(resumed, sources, settings, tmp_path / "killed")
    base = make_embedder("modernbert")
    with torch.no_grad():
        tuned = resumed.encode(texts)
        for each in (whole, resumed):
            merge_lora(each.backbone)
        merged = resumed.encode(texts)
    assert np.allclose(tuned, merged, atol=1e-5)
    assert not np.allclose(merged, base.encode(texts), atol=1e-3)
    assert resumed.backbone.state_dict().keys() == base.backbone.state_dict().keys()
    for (name, one), other in zip(resumed.named_parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("objective", ["infonce", "unified"])
def test_the_teacher_scores_of_rows_are_learnt(
    make_embedder, record, texts: list[str], tmp_path: Path, objective: str
) -> None:
    """A teacher that prefers the negatives: the labels alone never make the model do so."""
    rows = [
        replace(record(text, [f"{i} да"], [f"{i} нет"]), positive_scores=[0.0], negative_scores=[6.0])
        for i, text in enumerate(texts)
    ]
    rows[0] = replace(rows[0], positive_scores=None)  # a row that brings no scores is trained as before
    sources = {"faq": SourceRecords("faq", rows)}
    preferred: dict[bool, float] = {}
    for taught in (True, False):
        embedder = make_embedder("modernbert", heads=ALL_HEADS if objective == "unified" else ("dense",))
        values = {"distillation": {"of": "rows", "weight": 10.0}} if taught else {}
        settings = config(
            objective=objective, steps=30, negatives=1, learning_rate=5e-3, checkpoint_every=100, **values
        )
        fit(embedder, sources, settings, tmp_path / str(taught))
        query, yes, no = (
            embedder.encode([pick(row) for row in rows[1:]], max_length=24)
            for pick in (lambda r: r.query, lambda r: r.positives[0], lambda r: r.negatives[0])
        )
        preferred[taught] = float((query * (no - yes)).sum(1).mean())
    assert preferred[True] > 0 > preferred[False]


def test_rows_without_teacher_scores_are_refused(
    make_embedder, record, texts: list[str], tmp_path: Path
) -> None:
    settings = config(steps=2, negatives=1, distillation={"of": "rows"})
    with pytest.raises(InputError, match="pos_scores and neg_scores"):
        fit(make_embedder("bert"), distinct(record, texts), settings, tmp_path)
