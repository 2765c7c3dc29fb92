"""Mining a small corpus: against the whole similarity matrix."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedline.config.training import MineConfig
from embedline.mining import mine as mining
from embedline.mining.mine import MinedSource, _KnownPositives, mine_negatives
from embedline.retrieval.bm25 import BM25
from embedline.steps.mine import _encoder
from embedline.training.batching.records import Record, SourceRecords

DIM = 6


def vector(text: str) -> np.ndarray:
    """A made-up text encoder: near for texts with the same first word."""

    def direction(word: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "little")
        return np.random.default_rng(seed).normal(size=DIM)

    raw = 2 * direction(text.split()[0]) + direction(text)
    return (raw / np.linalg.norm(raw)).astype(np.float32)


def encode(texts: list[str], source: str, task_type: str, side: str) -> np.ndarray:
    return np.stack([vector(text) for text in texts])


def source(name: str, count: int, *, task_type: str = "short-long", language: str = "ru") -> SourceRecords:
    """Every third row repeats the query before it with another answer; some rows bring negatives."""
    rows = []
    for i in range(count):
        query = f"t{i % 5} q{i - (i % 3 == 2)} {name}"
        positives = [f"t{i % 5} p{i} {name}"] + [f"t{i % 5} p{i}b {name}"] * (i % 4 == 0)
        negatives = [f"t{(i + 1) % 5} n{i} {name}"] * (i % 2)
        rows.append(Record(f"{name}{i}", query, positives, negatives, task_type, language))
    return SourceRecords(name, rows)


def settings(**values: Any) -> MineConfig:
    return MineConfig(**({"negatives": 3, "depth": 10, "margin": 0.9} | values))


def known_answers(sources: dict[str, SourceRecords], row: Record) -> set[str]:
    """The query itself, and what any source answers to it."""
    rows = [other for each in sources.values() for other in each.rows if other.query == row.query]
    return {row.query} | {text for other in rows for text in other.positives}


def brute_force(
    sources: dict[str, SourceRecords], config: MineConfig
) -> dict[str, list[list[tuple[str, int]]]]:
    """Texts and ranks of the negatives, one query at a time over everything of its kind and language."""
    result: dict[str, list[list[tuple[str, int]]]] = {}
    for name, each in sources.items():
        result[name] = []
        kind = (each.task_type, each.rows[0].language)
        pool = list(
            dict.fromkeys(
                text
                for other in sources.values()
                if (other.task_type, other.rows[0].language) == kind
                for row in other.rows
                for text in (*row.positives, *row.negatives)
            )
        )
        for row in each.rows:
            query = vector(row.query)
            known = known_answers(sources, row) & set(pool)
            ranked = sorted(pool, key=lambda text: -float(vector(text) @ query))[: config.depth + len(known)]
            bar = config.margin * min(float(vector(text) @ query) for text in row.positives)
            others = [(text, rank) for rank, text in enumerate(ranked) if text not in known]
            fit = [
                (text, rank)
                for text, rank in others[config.skip_top :]
                if bar > 0 and float(vector(text) @ query) < bar
            ]
            result[name].append(fit[: config.negatives])
    return result


def found(mined: MinedSource) -> list[list[tuple[str, int]]]:
    return [[(mined.pool[pick.index], pick.rank) for pick in picks] for picks in mined.negatives]


@pytest.mark.parametrize(
    "config",
    [settings(), settings(skip_top=2, margin=1.0), settings(depth=1), settings(depth=500, negatives=50)],
    ids=["plain", "skip", "shallow", "deep"],
)
def test_equals_brute_force_over_the_whole_matrix(config: MineConfig) -> None:
    sources = {
        "a": source("a", 20),
        "b": source("b", 15),
        "c": source("c", 12, language="en"),
        "d": source("d", 9, task_type="sts"),
    }
    mined = mine_negatives(sources, encode, config, seed=0)
    assert {name: found(each) for name, each in mined.items()} == brute_force(sources, config)
    assert any(picks for each in mined.values() for picks in each.negatives)


def test_counts_add_up_to_the_candidates() -> None:
    sources = {"a": source("a", 20)}
    counts = mine_negatives(sources, encode, settings(skip_top=1), seed=0)["a"].counts["model"]
    parts = [value for name, value in vars(counts).items() if name not in ("candidates", "repeated")]
    assert counts.candidates == sum(parts)
    assert min(parts) > 0
    assert counts.skipped_top == 20


def test_a_known_positive_is_never_taken_even_from_another_row() -> None:
    sources = {"a": source("a", 30)}
    mined = mine_negatives(sources, encode, settings(margin=1.0, depth=100, negatives=50), seed=0)["a"]
    for row, picks in zip(sources["a"].rows, mined.negatives, strict=True):
        known = {t for other in sources["a"].rows if other.query == row.query for t in other.positives}
        assert not known & {mined.pool[pick.index] for pick in picks}


def test_a_positive_of_another_source_for_the_query_is_no_negative() -> None:
    """Headings repeat: `Обзор` stands over many texts, of many products."""

    def row(name: str, query: str, text: str, kind: str = "short-long") -> Record:
        return Record(name, query, [text], [], kind, "ru")

    sources = {
        "a": SourceRecords("a", [row("a0", "t0 Обзор", "t0 one"), row("a1", "t0 другое", "t0 two")]),
        "b": SourceRecords("b", [row("b0", "t0  обзор", "t0 three"), row("b1", "t0 ещё", "t0 four")]),
        "c": SourceRecords("c", [row("c0", "t0 обзор", "t0 four", "long-long")]),
    }
    mined = mine_negatives(sources, encode, settings(margin=1.0, depth=50, negatives=50), seed=0)
    assert {text for text, _ in found(mined["a"])[0]} <= {"t0 two"}
    assert {text for text, _ in found(mined["b"])[0]} <= {"t0 two"}
    others = {text for picks in found(mined["a"]) + found(mined["b"]) for text, _ in picks}
    assert {"t0 two", "t0 three"} <= others  # of other queries they are negatives


def test_a_query_is_never_its_own_negative() -> None:
    """A paraphrase read both ways: each text is a question and an answer."""

    def opposite(texts: list[str], source: str, task_type: str, side: str) -> np.ndarray:
        return encode([f"{side} {text}" for text in texts], source, task_type, side)

    pairs = [(f"t{i % 3} q{i}", f"t{i % 3} p{i}") for i in range(12)]
    rows = [Record(f"{a}{b}", a, [b], [], "short-short", "ru") for x in pairs for a, b in (x, x[::-1])]
    sources = {"a": SourceRecords("a", rows)}
    mined = mine_negatives(sources, opposite, settings(margin=1.0, depth=50, negatives=50), seed=0)["a"]
    assert any(mined.negatives)
    for row, picks in zip(rows, mined.negatives, strict=True):
        assert row.query not in {mined.pool[pick.index] for pick in picks}


def test_a_query_in_another_case_is_never_its_own_negative() -> None:
    def uncased(texts: list[str], source: str, task_type: str, side: str) -> np.ndarray:
        return encode([text.lower() for text in texts], source, task_type, side)

    pairs = [(f"T0 вопрос {i}", f"t0 ответ {i}") for i in range(6)]
    rows = [Record(a, a, [b], [], "short-short", "ru") for a, b in pairs]
    rows += [Record(b, b, [f"t0  {a[3:]}"], [], "short-short", "ru") for a, b in pairs]  # read back, retyped
    sources = {"a": SourceRecords("a", rows)}
    mined = mine_negatives(sources, uncased, settings(margin=1.0, depth=50, negatives=50), seed=0)["a"]
    for row, picks in zip(rows, mined.negatives, strict=True):
        plain = {" ".join(mined.pool[pick.index].lower().split()) for pick in picks}
        assert row.query.lower() not in plain
    assert any(mined.negatives)


def test_a_row_with_many_positives_does_not_deepen_other_searches() -> None:
    rows = source("a", 12).rows
    many = Record("many", "t0 many", [f"t0 m{i}" for i in range(40)], [], "short-long", "ru")
    sources = {"a": SourceRecords("a", [*rows, many])}
    mined = mine_negatives(sources, encode, settings(depth=4, negatives=50, margin=1.0), seed=0)
    assert {"a": found(mined["a"])} == brute_force(sources, settings(depth=4, negatives=50, margin=1.0))


def test_random_sampling_repeats_for_a_seed_and_stays_within_the_rule() -> None:
    sources = {"a": source("a", 30)}
    config = settings(sampling="random", depth=40)
    one, same, other = (found(mine_negatives(sources, encode, config, seed=s)["a"]) for s in (1, 1, 2))
    assert one == same != other
    qualified = brute_force(sources, config.model_copy(update={"negatives": 50}))["a"]
    for picks, all_that_fit in zip(one, qualified, strict=True):
        assert set(picks) <= set(all_that_fit)
        assert len(picks) == min(3, len(all_that_fit))


@pytest.mark.parametrize("sampling", ["top", "random"])
def test_blocks_of_queries_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch, sampling: str) -> None:
    sources = {"a": source("a", 20), "b": source("b", 9)}
    config = settings(sampling=sampling, depth=20)
    whole = mine_negatives(sources, encode, config, seed=3)
    monkeypatch.setattr(mining, "QUERIES", 4)
    longest = 0

    def listening(texts: list[str], source: str, task_type: str, side: str) -> np.ndarray:
        nonlocal longest
        longest = max(longest, len(texts) if side == "query" else 0)
        return encode(texts, source, task_type, side)

    blocks = mine_negatives(sources, listening, config, seed=3)
    assert {name: found(each) for name, each in blocks.items()} == {
        name: found(each) for name, each in whole.items()
    }
    assert longest == 4


def test_a_killed_step_does_not_embed_again_what_it_had(tmp_path: Path) -> None:
    class Model:
        asked = 0

        def encode_side(self, texts: list[str], side: str, **about: object) -> np.ndarray:
            self.asked += len(texts)
            return encode(list(texts), str(about["name"]), str(about["task_type"]), side)

    sources = {"a": source("a", 20)}
    results = []
    for _ in range(2):
        model: Any = Model()
        encoder = _encoder(model, False, None, tmp_path)
        results.append(found(mine_negatives(sources, encoder, settings(), seed=0)["a"]))
    assert results[0] == results[1] == brute_force(sources, settings())["a"]
    assert model.asked == 0


def test_sides_and_sources_reach_the_encoder() -> None:
    asked: list[tuple[str, str, str]] = []

    def listening(texts: list[str], source: str, task_type: str, side: str) -> np.ndarray:
        asked.append((source, task_type, side))
        return encode(texts, source, task_type, side)

    mine_negatives({"a": source("a", 4), "b": source("b", 4)}, listening, settings(), seed=0)
    assert asked == [
        ("a", "short-long", "document"),
        ("a", "short-long", "query"),
        ("b", "short-long", "query"),
    ]


def test_queries_that_differ_in_code_do_not_share_their_positives():
    """`git branch -d` and `-D` are other queries: the positive of one may be a negative of the other."""

    def source(*pairs):
        rows = [Record(str(i), q, [p], [], "short-long", "ru") for i, (q, p) in enumerate(pairs)]
        return {"s": SourceRecords("s", rows)}

    pool = {"one": 0, "two": 1}
    apart = _KnownPositives(source(("git branch -d", "one"), ("git branch -D", "two")))
    same = _KnownPositives(source(("Как удалить ветку?", "one"), ("как удалить ветку", "two")))
    assert apart.indices(Record("0", "git branch -d", ["one"], [], "short-long", "ru"), pool, {}) == {0}
    assert same.indices(Record("0", "Как удалить ветку?", ["one"], [], "short-long", "ru"), pool, {}) == {
        0,
        1,
    }


def test_bm25_finds_texts_that_share_words_which_the_model_ranks_low() -> None:
    """The model ranks by the first word only; the other words are BM25's."""
    rows = [
        Record("0", "alpha printer driver", ["alpha answer"], [], "short-long", "en"),
        *(Record(f"m{i}", f"alpha q{i}", [f"alpha near{i}"], [], "short-long", "en") for i in range(9)),
        *(
            Record(f"w{i}", f"beta q{i}", [f"beta printer driver {i}"], [], "short-long", "en")
            for i in range(3)
        ),
    ]
    sources = {"a": SourceRecords("a", rows)}
    config = settings(negatives=4, depth=5, margin=1.0, strategies={"model": 1, "bm25": 1})
    mined = mine_negatives(sources, encode, config, seed=0)["a"]
    picks = mined.negatives[0]
    by_words = [mined.pool[pick.index] for pick in picks if pick.strategy == "bm25"]
    assert len(by_words) >= 2
    assert all(text.startswith("beta printer driver") for text in by_words)
    without = mine_negatives(sources, encode, config.model_copy(update={"strategies": {"model": 1}}), seed=0)
    assert not any("printer" in without["a"].pool[pick.index] for pick in without["a"].negatives[0])
    for pick in picks:
        assert pick.score == pytest.approx(float(vector(mined.pool[pick.index]) @ vector(rows[0].query)))
        assert pick.score < pick.positive_score


@pytest.mark.parametrize("sampling", ["top", "random"])
def test_strategies_hold_all_rules_of_mining(monkeypatch: pytest.MonkeyPatch, sampling: str) -> None:
    sources = {"a": source("a", 30), "b": source("b", 11)}
    config = settings(depth=8, sampling=sampling, strategies={"bm25": 0.4, "model": 0.6})
    whole = mine_negatives(sources, encode, config, seed=0)
    monkeypatch.setattr(mining, "QUERIES", 4)
    blocks = mine_negatives(sources, encode, config, seed=0)
    assert [found(each) for each in blocks.values()] == [found(each) for each in whole.values()]
    for name, mined in whole.items():
        taken = [pick for picks in mined.negatives for pick in picks]
        assert {pick.strategy for pick in taken} == {"model", "bm25"}
        assert {n: sum(p.strategy == n for p in taken) for n in mined.counts} == {
            n: counts.taken for n, counts in mined.counts.items()
        }
        for row, picks in zip(sources[name].rows, mined.negatives, strict=True):
            texts = [mined.pool[pick.index] for pick in picks]
            assert len(set(texts)) == len(texts)
            assert not known_answers(sources, row) & set(texts)
            bar = config.margin * min(float(vector(text) @ vector(row.query)) for text in row.positives)
            assert all(float(vector(text) @ vector(row.query)) < bar for text in texts)


def test_bm25_alone_takes_the_order_of_bm25() -> None:
    sources = {"a": source("a", 12)}
    config = settings(margin=1.0, depth=50, negatives=50, strategies={"bm25": 1})
    mined = mine_negatives(sources, encode, config, seed=0)["a"]
    for row, picks in zip(sources["a"].rows, mined.negatives, strict=True):
        _, indices = BM25(mined.pool).search([row.query], len(mined.pool))
        rank = {int(i): r for r, i in enumerate(indices[0]) if i >= 0}
        assert [pick.rank for pick in picks] == [rank[pick.index] for pick in picks]
        assert [pick.rank for pick in picks] == sorted(pick.rank for pick in picks)
