"""Sections about data: sources, evaluation sets, cleaning."""

from __future__ import annotations

from pathlib import PurePath
from typing import Literal

from pydantic import Field, model_validator

from embedline.config.base import Section

TaskType = Literal[
    "short-short", "short-long", "long-short", "long-long", "sts", "bitext", "classification", "clustering"
]
# Texts of one nature on both sides, so both get the query's prompt (GigaEmbeddings; mteb has no sides there).
# short-short and long-long do have sides: a title is not the text it stands over (Wang et al. 2024).
SYMMETRIC: frozenset[str] = frozenset({"sts", "bitext", "classification", "clustering"})
Stage = Literal["unsupervised", "supervised"]


class Columns(Section):
    """The names that a source uses for a record's fields; BGE's own by default."""

    query: str = Field("query", description="column of the query text")
    positive: str = Field("pos", description="column of the positive text, or list of texts")
    negative: str = Field("neg", description="column of the negative texts; may be absent")
    score: str = Field("score", description="column of a similarity score; may be absent")
    positive_scores: str = Field(
        "pos_scores", description="column of a teacher's scores of the positives, one each; may be absent"
    )
    negative_scores: str = Field("neg_scores", description="the same of the negatives; may be absent")


class Source(Section):
    """One source of records (pairs, triplets)."""

    name: str = Field("", description="name in reports and batches; the file's stem when empty")
    path: str = Field(
        description="file (.jsonl, .jsonl.gz, .parquet, .csv) or folder below data.root, an absolute path, "
        "or hub:ORG/NAME"
    )
    split: str = Field("train", description="split of a hub dataset")
    columns: Columns = Columns()
    task_type: TaskType | None = Field(None, description="overrides the rows' own task_type")
    language: str | None = Field(None, description="overrides the rows' own lang (ru, en, en-ru)")
    stages: list[Stage] = Field(["unsupervised", "supervised"], description="training stages that use it")
    weight: float = Field(1.0, gt=0, description="multiplies the source's share of batches")
    min_score: float | None = Field(
        None,
        description="rows scored below it are left out, the others are positives; else scores rank pairs",
    )
    limit: int | None = Field(None, gt=0, description="take only the first rows")


class CorpusSource(Section):
    """One source of passages (pretraining, mining). JSONL, Parquet, CSV, a folder of texts, or hub:."""

    name: str = Field("", description="name in reports; the file's stem when empty")
    path: str = Field(description="as in sources")
    split: str = Field("train", description="split of a hub dataset")
    text: str = Field("text", description="column of the text")
    title: str = Field("title", description="column of the title; may be absent")
    language: str = Field("ru", description="language of the passages")
    weight: float = Field(1.0, gt=0, description="share in pretraining relative to its size")
    limit: int | None = Field(None, gt=0, description="take only the first passages")


class EvaluationSet(Section):
    """One held-out set: corpus, queries and qrels as in BEIR; sentence pairs; or labelled texts to classify.

    Of a classification, the folder's `train` is what classifiers learn from.
    """

    name: str = Field("", description="name in scores; the folder's name when empty")
    path: str = Field(description="folder below data.root, or an absolute path")
    kind: Literal["retrieval", "sts", "pairs", "bitext", "classification", "multilabel"] = Field(
        "retrieval",
        description="sts: pairs with a score; pairs: with a label 0 or 1 (null is left out); classification: "
        "text and label; multilabel: text and labels",
    )
    split: str = Field(
        "test", description="file stem (test, dev, validation); of retrieval, that of its qrels"
    )
    language: str = Field("ru", description="of its texts: ru, en, en-ru")
    task_type: TaskType | None = Field(None, description="chooses the prompts; short-long for retrieval")


class HoldOut(Section):
    """Records set aside before training as a retrieval set of their own: query → positive."""

    name: str = Field("held_out", description="name of the set in scores")
    sources: list[str] = Field(min_length=1, description="names of the sources it is taken from")
    share: float = Field(0.1, gt=0, lt=1, description="share of their distinct positives")
    language: str = Field("ru", description="of its texts: ru, en, en-ru")


class DataConfig(Section):
    """Where the text comes from."""

    root: str = Field("", description="folder that relative paths start from; demo: is the shipped generator")
    sources: list[Source] = Field(min_length=1)
    corpus: list[CorpusSource] = Field(
        [], description="passages for pretraining; without any, the records' positives are"
    )
    evaluation: list[EvaluationSet] = Field([], description="sets scored by evaluate and protected by clean")

    hold_out: HoldOut | None = Field(None, description="a retrieval set taken from the sources themselves")

    @model_validator(mode="after")
    def _names_are_unique(self) -> DataConfig:
        sets = [item.name or PurePath(item.path).name for item in self.evaluation]  # one folder each
        for names in (
            *([item.name or item.path for item in group] for group in (self.sources, self.corpus)),
            sets,
        ):
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"two entries are called {name!r}; give them different names")
        return self


class CleanConfig(Section):
    """What is thrown away, and why. Every rule counts what it removes."""

    min_query_chars: int = Field(3, ge=1, description="shorter queries are dropped")
    min_positive_chars: int = Field(10, ge=1, description="shorter positives and passages are dropped")
    max_chars: int = Field(20_000, ge=100, description="longer texts are cut, not dropped")
    languages: list[str] = Field(["ru", "en"], description="languages a text may be written in")
    exact_duplicates: bool = Field(
        True, description="drop what the same stage has seen before, but for case, ё and punctuation"
    )
    near_duplicates: bool = Field(True, description="drop near duplicates, found by MinHash")
    near_threshold: float = Field(0.9, gt=0, le=1, description="estimated Jaccard similarity of word 5-grams")
    minhash_permutations: int = Field(
        64, ge=16, description="hashes a signature: more estimate the similarity better"
    )
    decontaminate: bool = Field(True, description="drop rows that hold an evaluation query or answer")
    consistency_top_k: int = Field(
        2, ge=1, description="keep a pair when its positive ranks this high for the teacher (Nomic: 2)"
    )
    consistency_pool: int = Field(
        100_000, ge=100, description="positives a pair competes against (Nomic: 1M)"
    )
