"""The demo world is the same for a seed, holds together, and cannot be solved by shared words."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
import snowballstemmer

from embedline.data.demo import write_demo

SUPPORT_QA = ("SupportQA_ru", "SupportQA_en", "SupportQA_en2ru")
RETRIEVAL = (*SUPPORT_QA, "SupportLong")
TASK_TYPES = {"short-long", "short-short", "sts", "bitext", "long-long"}
STEMMERS = {"ru": snowballstemmer.stemmer("russian"), "en": snowballstemmer.stemmer("english")}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("demo")
    write_demo(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def normalised(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).lower().replace("ё", "е")
    return " ".join(re.findall(r"\w+", text))


def qrels(folder: Path) -> dict[str, str]:
    header, *lines = (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()
    assert header == "query-id\tcorpus-id\tscore"
    return {query: document for query, document, _ in (line.split("\t") for line in lines)}


def eval_queries(demo: Path) -> set[str]:
    return {
        normalised(query["text"])
        for name in RETRIEVAL
        for query in rows(demo / "eval" / name / "queries.jsonl")
    }


def stems(text: str) -> list[str]:
    words = normalised(text).split()
    return [STEMMERS["ru" if re.search("[а-я]", word) else "en"].stemWord(word) for word in words]


def bm25_ndcg_at_10(folder: Path, k1: float = 1.2, b: float = 0.75) -> float:
    """Mean nDCG@10 of stemmed BM25; each query has one relevant document."""
    documents = rows(folder / "corpus.jsonl")
    counts = [Counter(stems(f"{document['title']} {document['text']}")) for document in documents]
    lengths = [count.total() for count in counts]
    mean_length = sum(lengths) / len(lengths)
    postings: dict[str, list[int]] = {}
    for index, count in enumerate(counts):
        for stem in count:
            postings.setdefault(stem, []).append(index)
    position = {document["_id"]: index for index, document in enumerate(documents)}
    relevant = qrels(folder)
    gains = []
    for query in rows(folder / "queries.jsonl"):
        scores: defaultdict[int, float] = defaultdict(float)
        for stem in stems(query["text"]):
            found = postings.get(stem, [])
            idf = math.log(1 + (len(counts) - len(found) + 0.5) / (len(found) + 0.5))
            for index in found:
                frequency = counts[index][stem]
                norm = k1 * (1 - b + b * lengths[index] / mean_length)
                scores[index] += idf * frequency * (k1 + 1) / (frequency + norm)
        best = sorted(scores, key=lambda index: (-scores[index], index))[:10]
        target = position[relevant[query["_id"]]]
        gains.append(1 / math.log2(best.index(target) + 2) if target in best else 0.0)
    return sum(gains) / len(gains)


def test_the_same_seed_writes_the_same_bytes_in_another_process(demo: Path, tmp_path: Path) -> None:
    code = "import pathlib, sys, embedline.data.demo as demo; demo.write_demo(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)
    assert contents(tmp_path) == contents(demo)


def test_another_seed_writes_another_world(demo: Path, tmp_path: Path) -> None:
    write_demo(tmp_path, seed=1)
    ours, theirs = contents(demo), contents(tmp_path)
    assert ours.keys() == theirs.keys()
    assert all(ours[name] != theirs[name] for name in ours)


def test_counts_are_the_lines_of_each_file(demo: Path, tmp_path: Path) -> None:
    counts = write_demo(tmp_path)
    assert counts == {
        name: content.count(b"\n") for name, content in contents(tmp_path).items() if name != "planted.json"
    }


def test_sizes_fit_a_laptop(demo: Path) -> None:
    train = {path.stem: len(rows(path)) for path in (demo / "train").glob("*.jsonl") if path.stem != "noisy"}
    assert 4000 <= sum(count for name, count in train.items() if name.startswith("questions")) <= 6500
    assert 6000 <= sum(count for name, count in train.items() if not name.startswith("questions")) <= 10500
    lengths = [len(row["text"]) for row in rows(demo / "corpus" / "support.jsonl")]
    assert 3000 <= len(lengths) <= 6000
    assert 10 <= sum(3000 <= length <= 6500 for length in lengths) <= 60
    assert all(length <= 800 or length >= 3000 for length in lengths)
    for name in SUPPORT_QA:
        assert 150 <= len(rows(demo / "eval" / name / "queries.jsonl")) <= 250
        assert 600 <= len(rows(demo / "eval" / name / "corpus.jsonl")) <= 1200
    assert len(rows(demo / "eval" / "SupportLong" / "queries.jsonl")) >= 30


def test_training_rows_have_the_bge_form(demo: Path) -> None:
    for path in (demo / "train").glob("*.jsonl"):
        if path.stem == "noisy":
            continue
        for row in rows(path):
            assert set(row) == {"query", "pos", "source", "task_type", "lang"}
            assert row["source"] == path.stem
            assert row["task_type"] in TASK_TYPES
            assert row["lang"] in {"ru", "en", "en-ru"}
            assert row["query"]
            assert all(row["pos"])


@pytest.mark.parametrize("name", RETRIEVAL)
def test_every_judged_query_and_document_exists(demo: Path, name: str) -> None:
    folder = demo / "eval" / name
    relevant = qrels(folder)
    documents = [row["_id"] for row in rows(folder / "corpus.jsonl")]
    assert set(relevant) == {row["_id"] for row in rows(folder / "queries.jsonl")}
    assert set(relevant.values()) <= set(documents)
    assert len(set(documents)) == len(documents)


def test_no_evaluation_query_is_trained_on_except_the_planted_leaks(demo: Path) -> None:
    asked = eval_queries(demo)
    planted = json.loads((demo / "planted.json").read_text(encoding="utf-8"))
    leaked = {entry["line"] for entry in planted["leaked_queries"]}
    malformed = {entry["line"] for entry in planted["malformed"]}
    for path in (demo / "train").glob("*.jsonl"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if path.stem == "noisy" and number in malformed:
                continue
            row = json.loads(line)
            texts = {normalised(text) for text in (row["query"], *row["pos"])}
            assert bool(texts & asked) == (path.stem == "noisy" and number in leaked), line


def test_the_manifest_points_at_what_was_planted(demo: Path) -> None:
    lines = (demo / "train" / "noisy.jsonl").read_text(encoding="utf-8").splitlines()
    planted = json.loads((demo / "planted.json").read_text(encoding="utf-8"))
    assert set(planted) == {
        "exact_duplicates", "html", "leaked_queries", "malformed", "mismatched", "near_duplicates",
        "too_short", "wrong_language",
    }  # fmt: skip
    assert len(planted["malformed"]) == 3
    for entry in planted["exact_duplicates"]:
        assert lines.count(lines[entry["line"] - 1]) >= 2
    for entry in planted["near_duplicates"]:
        copy, origin = json.loads(lines[entry["line"] - 1])["query"].split(), entry["origin"].split()
        assert copy != origin
        assert sum(ours != theirs for ours, theirs in zip(copy, origin, strict=True)) <= 3
    bad = sum(len(entries) for entries in planted.values())
    assert len(lines) - bad >= 300


def test_held_out_facts_share_entity_and_attribute_with_trained_ones(demo: Path) -> None:
    text_of = {row["id"]: row["text"] for row in rows(demo / "corpus" / "support.jsonl")}
    key_of = {text: key for key, text in text_of.items()}
    trained = {
        tuple(key_of[positive].split("-")[1:])
        for name in ("questions_ru", "questions_en", "questions_x")
        for row in rows(demo / "train" / f"{name}.jsonl")
        for positive in row["pos"]
    }
    entities, attributes = {entity for entity, _ in trained}, {attribute for _, attribute in trained}
    for name in SUPPORT_QA:
        for document in qrels(demo / "eval" / name).values():
            _, entity, attribute = document.split("-")
            assert (entity, attribute) not in trained
            assert entity in entities
            assert attribute in attributes


@pytest.mark.parametrize("name", SUPPORT_QA)
def test_shared_words_do_not_decide(demo: Path, name: str) -> None:
    assert 0.02 < bm25_ndcg_at_10(demo / "eval" / name) < 0.5


def test_sts_scores_are_graded(demo: Path) -> None:
    pairs = rows(demo / "eval" / "SupportSTS" / "test.jsonl")
    assert {pair["score"] for pair in pairs} == {0.0, 1.0, 2.0, 3.0, 5.0}
    assert len(pairs) >= 150
