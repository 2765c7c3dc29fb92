"""Config sections for data: sources, evaluation sets, cleaning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Literal

from pydantic import Field, model_validator

from embedline.config.base import Section
from embedline.config.names import name_problem

TaskType = Literal[
    "short-short", "short-long", "long-short", "long-long", "sts", "bitext", "classification", "clustering"
]
# Both sides hold the same kind of text and get the query's prompt (GigaEmbeddings; mteb has no sides there).
# short-short and long-long do have sides: a title is not the text below it (Wang et al. 2024).
SYMMETRIC: frozenset[str] = frozenset({"sts", "bitext", "classification", "clustering"})
Stage = Literal["unsupervised", "supervised"]
_SPLIT = (
    "split of a hub dataset or a folder; without `configs` in its README.md, a file is of the split that it "
    "(or a folder above it) is called, such as test.jsonl, else of train"
)


def first_repeated(names: Sequence[str]) -> tuple[int, int] | None:
    """Return the index of the first repeated name and the index of its first entry; None if all differ.

    >>> first_repeated(["faq", "docs", "faq"])
    (2, 0)
    """
    first: dict[str, int] = {}
    for number, name in enumerate(names):
        if first.setdefault(name, number) != number:
            return number, first[name]
    return None


class Columns(Section):
    """Column names of a source for the fields of a record; BGE's names by default."""

    query: str = Field("query", description="column of the query text")
    positive: str = Field(
        "pos",
        description="column of the positive text, or list of texts; in CSV and TSV a list is written as "
        'JSON, ["one", "another"]',
    )
    negative: str = Field("neg", description="column of the negative texts; may be absent")
    score: str = Field("score", description="column of a similarity score; may be absent")
    positive_scores: str = Field(
        "pos_scores", description="column of a teacher's scores, one for each positive; may be absent"
    )
    negative_scores: str = Field(
        "neg_scores", description="column of a teacher's scores, one for each negative; may be absent"
    )


class Source(Section):
    """One source of records (pairs, triplets)."""

    name: str = Field("", description="name of the source in reports and batches; the file's stem when empty")
    path: str = Field(
        description="file (.jsonl, .jsonl.gz, .json, .parquet, .csv, .tsv; UTF-8) or folder of such files, "
        "below data.root or absolute; or hub:ORG/NAME"
    )
    split: str = Field("train", description=_SPLIT)
    columns: Columns = Columns()
    task_type: TaskType | None = Field(
        None, description="task type of all rows; when empty, the row's own task_type, else by text lengths"
    )
    language: str | None = Field(
        None,
        description="language of all rows (ru, en, en-ru); when empty, the row's own lang, else by script",
    )
    stages: list[Stage] = Field(
        ["unsupervised", "supervised"], description="training stages that use the source"
    )
    weight: float = Field(1.0, gt=0, description="factor of the source's share of batches")
    min_score: float | None = Field(
        None,
        description="rows with a lower score are left out, the others are "
        "positives; when empty, scores rank pairs",
    )
    limit: int | None = Field(None, gt=0, description="number of rows to read, from the first")


class CorpusSource(Section):
    """One source of passages for pretraining: JSONL, Parquet, CSV, a folder of texts, or hub:."""

    name: str = Field("", description="name of the source in reports; the file's stem when empty")
    path: str = Field(
        description="file, or folder of files and of texts (.txt, .md), below data.root or absolute; or "
        "hub:ORG/NAME"
    )
    split: str = Field("train", description=_SPLIT)
    text: str = Field("text", description="column of the text")
    title: str = Field("title", description="column of the title; may be absent")
    language: str = Field("ru", description="language of the passages")
    weight: float = Field(
        1.0,
        gt=0,
        description="factor of the source's share of pretraining, which is in proportion to its size",
    )
    limit: int | None = Field(None, gt=0, description="number of passages to read, from the first")


class EvaluationSet(Section):
    """One held-out set: corpus, queries and qrels as in BEIR; sentence pairs; or labelled texts to classify.

    For a classification set, classifiers are trained on the folder's `train` file.
    """

    name: str = Field("", description="name of the set in scores; the folder's name when empty")
    path: str = Field(description="folder of the set, below data.root or absolute")
    kind: Literal["retrieval", "sts", "pairs", "bitext", "classification", "multilabel"] = Field(
        "retrieval",
        description="retrieval: corpus, queries, qrels; sts: pairs with a score; "
        "pairs: pairs with a label 0 or 1 "
        "(null is left out); bitext: translations; classification: text and "
        "label; multilabel: text and labels",
    )
    split: str = Field(
        "test",
        description="stem of the file to score (test, dev, validation); for retrieval, of its qrels file",
    )
    language: str = Field("ru", description="language of the texts: ru, en, en-ru")
    task_type: TaskType | None = Field(
        None, description="task type that selects the prompts; by the kind when empty (retrieval: short-long)"
    )
    ignore_identical_ids: bool | None = Field(
        None,
        description="retrieval: leave the document that has the query's id out of the query's results, as "
        "BEIR does (ArguAna, Quora); when empty, on if most queries with a document's id have its text, too",
    )
    missing_documents: Literal["refuse", "not_found"] = Field(
        "refuse",
        description="retrieval: refuse a set whose corpus lacks a relevant document, or count the document "
        "as not found (the official ArguAna)",
    )

    @model_validator(mode="after")
    def _rules_of_retrieval(self) -> EvaluationSet:
        if self.kind != "retrieval":
            for name in ("ignore_identical_ids", "missing_documents"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is for retrieval sets; this one is of kind {self.kind}")
        return self


class HoldOut(Section):
    """A retrieval set (query → positive) made of records that are taken out before training.

    Records with a score (pairs of similar texts) are never taken: their second text is no answer.
    """

    name: str = Field("held_out", description="name of the set in scores")
    sources: list[str] = Field(
        [], description="names of the sources that records are taken from; all sources when empty"
    )
    share: float = Field(
        0.1, gt=0, lt=1, description="share of the sources' distinct positives that is taken out"
    )
    at_most: int | None = Field(
        None, ge=1, description="distinct positives that are taken out at most; null: no limit"
    )
    language: str = Field("ru", description="language of the texts: ru, en, en-ru")


def _require_name(item: Source | CorpusSource | EvaluationSet, where: str) -> None:
    """Refuse a name that no folder or server takes; without a name the path's last part is one."""
    name = item.name or PurePath(item.path).name or item.path
    if problem := name_problem(name):
        raise ValueError(f"{where}.name: {name[:50]!r} {problem}; give it another name")


class DataConfig(Section):
    """Sources, passages and evaluation sets of a run."""

    root: str = Field(
        "", description="folder that relative paths start from; demo: for data of the shipped generator"
    )
    sources: list[Source] = Field(min_length=1, description="sources of records, in the order of reports")
    corpus: list[CorpusSource] = Field(
        [], description="sources of passages for pretraining; when empty, the records' positives are used"
    )
    evaluation: list[EvaluationSet] = Field(
        [], description="held-out sets, scored by evaluate and protected by clean"
    )

    hold_out: HoldOut | None = Field(
        None,
        description="retrieval set made of records that are taken out of the sources; scored and protected "
        "like those of data.evaluation",
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> DataConfig:
        sets = [item.name or PurePath(item.path).name for item in self.evaluation]  # one folder each
        for group in ("sources", "corpus", "evaluation"):
            for number, item in enumerate(getattr(self, group)):
                _require_name(item, f"{group}.{number}")
        if self.hold_out is not None and (problem := name_problem(self.hold_out.name)):
            raise ValueError(f"hold_out.name: {self.hold_out.name[:50]!r} {problem}")
        for names in (
            *([item.name or item.path for item in group] for group in (self.sources, self.corpus)),
            sets,
        ):
            if repeated := first_repeated(names):
                name = names[repeated[0]]
                raise ValueError(f"two entries are called {name!r}; give them different names")
        return self


class CleanConfig(Section):
    """Rules that reject rows. Every rule counts the rows that it rejects."""

    min_query_chars: int = Field(3, ge=1, description="characters; records with a shorter query are dropped")
    min_positive_chars: int = Field(
        10, ge=1, description="characters; shorter positives and passages are dropped"
    )
    max_chars: int = Field(20_000, ge=100, description="characters; longer texts are cut, not dropped")
    languages: list[str] = Field(["ru", "en"], description="languages a text may be written in")
    exact_duplicates: bool = Field(
        True,
        description="drop rows that repeat an earlier one of their stage, apart from case, ё and "
        "punctuation; code is compared as it stands",
    )
    near_duplicates: bool = Field(True, description="drop near duplicates, found by MinHash")
    near_threshold: float = Field(
        0.9,
        gt=0,
        le=1,
        description="estimated Jaccard similarity of word 5-grams of near duplicates, at least",
    )
    minhash_permutations: int = Field(
        64, ge=16, description="hashes in a MinHash signature; more of them estimate the similarity better"
    )
    decontaminate: bool = Field(
        True,
        description="drop rows that hold an evaluation query, sentence or answer: whole, inside a longer "
        "text, or nearly",
    )
    contained_words: int = Field(
        8,
        ge=3,
        description="words from which on an evaluation text counts wherever it stands inside a longer text; "
        "shorter queries and answers, of 3 words or more, count where at most 10 rows hold them",
    )
    evaluation_overlap: float = Field(
        0.4,
        gt=0,
        le=1,
        description="share of an evaluation text's words, in runs of 3 words that no other evaluation text "
        "and at most 10 rows have, from which on a row holds nearly that text; answers of 12 words or more, "
        "queries and sentences of 20 or more",
    )
    consistency_top_k: int = Field(
        2, ge=1, description="keep a pair whose positive the teacher ranks among this many best (Nomic: 2)"
    )
    consistency_pool: int = Field(
        100_000, ge=100, description="positives in the pool that the teacher ranks for a query (Nomic: 1M)"
    )
    max_rejected: float = Field(
        0.5, ge=0, le=1, description="share of the records that the rules may reject; more stops the run"
    )
