"""Cleaning on real text: what its README promises is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedline.config.data import CleanConfig, CorpusSource, EvaluationSet, Source
from embedline.data.clean import clean
from embedline.data.evaluation_reader import read_retrieval
from embedline.data.evaluation_sets import lay_out
from embedline.data.ingest import ingest
from embedline.data.tables import read_rows
from embedline.words import comparison_form

SETS = ("PhpDocRetrieval_ru", "PhpDocRetrieval_en2ru")


@pytest.mark.real
def test_php_queries_inside_the_corpus_are_found_and_little_else_is_rejected(
    real_data: Path, tmp_path: Path
) -> None:
    sources = [Source(path=f"train/php_{name}.jsonl.gz") for name in ("ru_purpose_desc", "x_purpose_desc")]  # type: ignore[call-arg]
    corpus = [CorpusSource(path=f"corpus/php_{lang}.jsonl.gz", language=lang) for lang in ("ru", "en")]  # type: ignore[call-arg]
    sets = [EvaluationSet(path=f"eval/{name}") for name in SETS]  # type: ignore[call-arg]
    report = ingest(sources, corpus, real_data, tmp_path / "dataset")
    assert report.total("quarantined") == 0
    lay_out(sets, real_data, tmp_path / "evaluation")
    funnel = clean(tmp_path / "dataset", tmp_path / "evaluation", tmp_path / "clean", CleanConfig())

    queries = [
        comparison_form(query)
        for name in SETS
        for query in read_retrieval(tmp_path / "evaluation" / name).queries.values()
    ]
    before = [
        f" {comparison_form(row['text'])} " for row in read_rows(tmp_path / "dataset" / "corpus.parquet")
    ]
    verbatim = [query for query in queries if any(f" {query} " in text for text in before)]
    assert 0.05 <= len(verbatim) / len(queries) <= 0.10  # what the data's README says

    after = [f" {comparison_form(row['text'])} " for row in read_rows(tmp_path / "clean" / "corpus.parquet")]
    long_queries = {query for query in verbatim if len(query.split()) >= CleanConfig().contained_words}
    assert long_queries
    assert not [query for query in long_queries if any(f" {query} " in text for text in after)]
    expected = sum(any(f" {query} " in text for query in long_queries) for text in before)
    rejected = funnel.rejected("corpus")["evaluation_query_inside"]
    holding = sum(any(f" {query} " in text for query in verbatim) for text in before)
    assert expected <= rejected <= holding  # shorter queries count where few passages hold them
    assert funnel.rows_out("corpus") >= 0.98 * funnel.rows_in("corpus")
    assert funnel.rows_out("records") >= 0.98 * funnel.rows_in("records")


@pytest.mark.real
def test_few_ordinary_rows_are_taken_for_nearly_evaluation_text(real_data: Path, tmp_path: Path) -> None:
    names = ("dyn365_ru_ht_title_body", "vsdocs_ru_ht_title_body", "php_faq", "tico19_en-ru_bitext")
    sources = [Source(path=f"train/{name}.jsonl.gz") for name in names]  # type: ignore[call-arg]
    sets = [EvaluationSet(path=f"eval/{name}") for name in (*SETS, "Dyn365DescRetrieval")]  # type: ignore[call-arg]
    ingest(sources, [], real_data, tmp_path / "dataset")
    lay_out(sets, real_data, tmp_path / "evaluation")
    config = CleanConfig(near_duplicates=False)  # type: ignore[call-arg]
    funnel = clean(tmp_path / "dataset", tmp_path / "evaluation", tmp_path / "clean", config)
    nearly = sum(count for rule, count in funnel.rejected("records").items() if rule.endswith("_near"))
    assert nearly <= funnel.rows_in("records") / 1000
