import gzip
import json
import math
from collections import Counter

import numpy as np
import pytest

from embedline.evaluation.local import score_bm25
from embedline.evaluation.sets import EvaluationSet
from embedline.retrieval.bm25 import BM25, words

DOCUMENTS = ["сбросить пароль в системе", "пароли и пароль", "printers are printing", "счёт за месяц", ""]


def test_weights_are_the_formulas():
    model = BM25(DOCUMENTS)
    tokens = [words(d) for d in DOCUMENTS]
    mean = sum(map(len, tokens)) / len(tokens)
    query = "Пароль от системы, printer"
    expected = []
    for document in tokens:
        counts, total = Counter(document), 0.0
        for word in words(query):
            df = sum(word in other for other in tokens)
            idf = math.log(1 + (len(tokens) - df + 0.5) / (df + 0.5))
            tf = counts[word]
            total += idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * len(document) / mean))
        expected.append(total)
    scores, indices = model.search([query], 5)
    order = np.argsort(-np.array(expected), kind="stable")
    found = [i for i in order if expected[i] > 0]
    assert indices[0].tolist() == found + [-1] * (5 - len(found))
    np.testing.assert_allclose(scores[0], np.array(expected)[order])


def test_hindi_thai_and_chinese_documents_are_found_by_their_words():
    documents = [
        "वह घर जाता है",
        "दुकान बंद है",
        "ร้านปิดวันอาทิตย์",
        "รถไฟออกตอนเช้า",
        "商店星期天关门",
        "火车早上出发",
    ]
    queries = ["घर", "ร้านปิด", "商店关门", "火车"]
    assert BM25(documents).search(queries, 1)[1][:, 0].tolist() == [0, 2, 4, 5]


def test_a_words_script_chooses_its_stemmer():
    assert words("Счёта printers") == ["счет", "printer"]
    assert words("Счёта printers", stem=False) == ["счета", "printers"]


def test_a_query_of_unknown_words_finds_nothing():
    assert (BM25(DOCUMENTS).search(["зебра", ""], 3)[1] == -1).all()


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "bar"),
    [("Dyn365DescRetrieval", 0.690), ("PhpDocRetrieval_ru", 0.713), ("PhpDocRetrieval_en2ru", 0.151)],
)
def test_reaches_the_reference_bars_on_real_text(name, bar, tmp_path, real_data, write_table):
    source = real_data / "eval" / name

    def lines(stem):
        with gzip.open(source / f"{stem}.jsonl.gz", "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    corpus, queries = lines("corpus"), lines("queries")
    qrels = [line.split("\t") for line in (source / "qrels.tsv").read_text().splitlines()[1:]]
    write_table(
        tmp_path / "corpus.parquet",
        id=[d["_id"] for d in corpus],
        title=[d.get("title", "") for d in corpus],
        text=[d["text"] for d in corpus],
    )
    write_table(
        tmp_path / "queries.parquet", id=[q["_id"] for q in queries], text=[q["text"] for q in queries]
    )
    write_table(
        tmp_path / "qrels.parquet",
        query_id=[r[0] for r in qrels],
        corpus_id=[r[1] for r in qrels],
        score=[int(r[2]) for r in qrels],
    )
    scores = score_bm25(
        [EvaluationSet(name, "retrieval", "ru", "short-long", tmp_path)], digest="", resamples=0
    )
    assert scores.rows[0].value == pytest.approx(bar, abs=0.0006)
