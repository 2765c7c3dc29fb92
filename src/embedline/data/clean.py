"""Cleaning of a dataset: rejected rows are counted by rule and source, and kept for inspection."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedline.config.data import CleanConfig
from embedline.data.consistency import Encode, SourceTask, consistent
from embedline.data.decontaminate import Protected
from embedline.data.dedup import Signatures, representatives, signatures
from embedline.data.evaluation_index import COMMON_ROWS, EvaluationIndex, Leak, Phrase
from embedline.data.funnel import Funnel
from embedline.data.row_filters import FilterResult, RowFilters, Uses
from embedline.data.tables import (
    CORPUS,
    PASSAGE_SCHEMA,
    RECORD_SCHEMA,
    RECORDS,
    Row,
    RowWriter,
    read_batches,
    read_rows,
    rows_of,
    with_rule,
)
from embedline.errors import InputError

FUNNEL, REJECTED, REJECTED_CORPUS = "funnel.json", "rejected.parquet", "rejected_corpus.parquet"

RowFilter = Callable[[Row, Counter[str]], FilterResult]


@dataclass(frozen=True)
class _Table:
    name: str
    file: str
    rejected: str
    schema: Any


_RECORDS = _Table("records", RECORDS, REJECTED, RECORD_SCHEMA)
_CORPUS = _Table("corpus", CORPUS, REJECTED_CORPUS, PASSAGE_SCHEMA)


def clean(
    dataset_folder: Path,
    evaluation_folder: Path | None,
    out_folder: Path,
    config: CleanConfig,
    teacher_encode: Encode | None = None,
    teacher_languages: Sequence[str] = ("en",),
    stages: Mapping[str, Collection[str]] | None = None,
) -> Funnel:
    """Apply the rules of `config` to the records and the corpus of a dataset.

    Row by row: tidy, empty, too short, language, evaluation text, exact duplicate (`row_filters`). Then over
    all rows: near duplicates, evaluation texts whose phrases only few rows have, and with a teacher the
    consistency filter. Writes `records.parquet`, `corpus.parquet`, the rejected rows with their `rule` and
    the evaluation text that they hold (`rejected.parquet`, `rejected_corpus.parquet`; tidied as far as the
    rule that rejected them) and `funnel.json`. Memory holds signatures, not rows.

    >>> counts = clean(Path("dataset"), None, Path("cleaned"), CleanConfig())  # doctest: +SKIP
    >>> counts.rejected("records")  # doctest: +SKIP
    Counter({'near_duplicate': 12, 'language': 3})

    Args:
        evaluation_folder: sets laid out by `evaluation_sets`; None: nothing is protected.
        teacher_encode: texts of a source, task type and side to vectors; filters records whose language is
            one of `teacher_languages`.
        stages: the training stages that use each source: rows are duplicates only within a stage.

    Raises:
        InputError: no record is left, or the rules reject more than `max_rejected`.
        StepError: rows were lost (a fault of this program).
    """
    out_folder.mkdir(parents=True, exist_ok=True)
    protected = Protected()
    if config.decontaminate and evaluation_folder is not None:
        words, overlap = config.contained_words, config.evaluation_overlap
        protected = Protected.read(evaluation_folder, contained_words=words, overlap=overlap)
    funnel = Funnel()
    teacher = _Teacher(teacher_encode, tuple(teacher_languages), config) if teacher_encode else None
    records, passages = RowFilters(config, protected, stages or {}), RowFilters(config, protected)
    index = protected.index
    _clean_table(_RECORDS, dataset_folder, out_folder, config, records.record, index, funnel, teacher)
    _clean_table(_CORPUS, dataset_folder, out_folder, config, passages.passage, index, funnel, None)
    funnel.assert_conserved()
    _require_enough_left(funnel, config)
    text = json.dumps(funnel.as_json(), ensure_ascii=False, indent=1)
    (out_folder / FUNNEL).write_text(text + "\n", encoding="utf-8")
    return funnel


def _require_enough_left(funnel: Funnel, config: CleanConfig) -> None:
    """Refuse a cleaning that leaves no record, or rejects a larger share than `max_rejected`."""
    rows_in, rows_out = funnel.rows_in("records"), funnel.rows_out("records")
    worst = funnel.rejected("records").most_common(3)
    if rows_out and rows_in - rows_out <= config.max_rejected * rows_in:
        return
    left = f"only {rows_out} records" if rows_out else "no record"
    by = ", ".join(f"{rule} {count}" for rule, count in worst)
    what = f"{left} of {rows_in} {'are' if rows_out else 'is'} left after cleaning (rejected by {by})."
    allow = ", or allow it with a larger clean.max_rejected" if rows_out else ""
    if worst and worst[0][0] == "inconsistent":
        where = "teacher.model"
        fix = (
            "The teacher ranks other positives higher: check its tokenizer, pooling and prompts first, then "
            f"clean.consistency_top_k and the pairs{allow}."
        )
    else:
        where = f"clean.max_rejected: {config.max_rejected:g}"
        fix = f"Look at the sources, loosen the rules in the `clean` section{allow}."
    raise InputError(what, where=where, fix=fix)


def _clean_table(
    table: _Table,
    dataset_folder: Path,
    out_folder: Path,
    config: CleanConfig,
    row_filter: RowFilter,
    index: EvaluationIndex | None,
    funnel: Funnel,
    teacher: _Teacher | None,
) -> None:
    with (
        tempfile.TemporaryDirectory(dir=out_folder) as scratch,
        RowWriter(out_folder / table.rejected, with_rule(table.schema)) as rejected,
    ):
        staged = Path(scratch) / table.file
        with RowWriter(staged, table.schema, compression="none") as writer:
            batches = read_batches(dataset_folder / table.file)
            found, uses, phrases = _filter(batches, table, config, row_filter, funnel, writer, rejected)
        rules = np.full(writer.count, None, dtype=object)
        if config.near_duplicates:
            rules[_repeated(found, uses, config.near_threshold)] = "near_duplicate"
        leaks = _leaks(phrases, index) if index else {}
        for row, leak in leaks.items():
            rules[row] = leak.rule
        if teacher is not None:
            rules[teacher.inconsistent(staged, rules)] = "inconsistent"
        with RowWriter(out_folder / table.file, table.schema) as writer:
            _divide(staged, rules, leaks, table, funnel, writer, rejected)


def _filter(
    batches: Iterator[Any],
    table: _Table,
    config: CleanConfig,
    row_filter: RowFilter,
    funnel: Funnel,
    writer: RowWriter,
    rejected: RowWriter,
) -> tuple[Signatures, list[Uses], dict[int, frozenset[Phrase]]]:
    """Write rows that pass to `writer`, others to `rejected`.

    Returns:
        Signatures and uses of the rows that passed, and the phrases of evaluation texts in some of them.
    """
    found: list[Signatures] = []
    uses: list[Uses] = []
    phrases: dict[int, frozenset[Phrase]] = {}
    for batch in batches:
        forms: list[tuple[str, ...]] = []
        for row in rows_of(batch):
            counts = funnel.counts(table.name, row["source"])
            counts.rows_in += 1
            result = row_filter(row, counts.changed)
            if result.rule is None:
                if result.phrases:
                    phrases[writer.count] = result.phrases
                writer.write(result.row)
                forms.append(result.forms)
                uses.append(result.uses)
            else:
                rejected.write({**result.row, "rule": result.rule, **_evaluation(result.leak)})
                counts.count(result.rule)
                funnel.count_leak(result.leak)
        if config.near_duplicates and forms:
            sides = [signatures(side, config.minhash_permutations) for side in zip(*forms, strict=True)]
            found.append(np.concatenate(sides, axis=1))
    none = np.empty((0, 1, config.minhash_permutations), dtype=np.uint32)
    return np.concatenate(found) if found else none, uses, phrases


def _leaks(phrases: Mapping[int, frozenset[Phrase]], index: EvaluationIndex) -> dict[int, Leak]:
    """Return the rows that have an evaluation text in phrases that only few rows have."""
    rows = Counter(chain.from_iterable(phrases.values()))
    common = {phrase for phrase, count in rows.items() if count > COMMON_ROWS}
    found = ((row, index.leak_in(own - common)) for row, own in phrases.items())
    return {row: leak for row, leak in found if leak}


def _evaluation(leak: Leak | None) -> dict[str, str | None]:
    source = leak.source if leak else None
    return {"evaluation_set": source and source.set, "evaluation_text": source and source.text}


def _repeated(found: Signatures, uses: Sequence[Uses], threshold: float) -> npt.NDArray[np.bool_]:
    """Mark the rows that have an earlier near duplicate in each of their uses."""
    kept = np.zeros(len(found), dtype=bool)
    combinations = frozenset(uses)
    # Uses that the same rows have are compared once.
    distinct = {
        frozenset(other for other in combinations if use in other): use
        for some in combinations
        for use in some
    }
    for use in distinct.values():
        members = np.flatnonzero([use in of_row for of_row in uses])
        first = representatives(found[members], threshold) == np.arange(len(members))
        kept[members[first]] = True
    return ~kept


def _divide(
    staged: Path,
    rules: npt.NDArray[np.object_],
    leaks: Mapping[int, Leak],
    table: _Table,
    funnel: Funnel,
    writer: RowWriter,
    rejected: RowWriter,
) -> None:
    """Write rows without a rule to `writer`, the others to `rejected`, whole batches at a time."""
    start = 0
    for batch in read_batches(staged):
        broken = rules[start : start + batch.num_rows]
        held = [_held(leaks.get(start + i), rule) for i, rule in enumerate(broken) if rule is not None]
        start += batch.num_rows
        for leak in held:
            funnel.count_leak(leak)
        tally = Counter(zip(batch["source"].to_pylist(), broken, strict=True))
        for (source, rule), count in tally.items():
            funnel.counts(table.name, source).count(rule, count)
        passes = np.array([rule is None for rule in broken], dtype=bool)
        writer.write_batch(batch.filter(pa.array(passes)))
        others = batch.filter(pa.array(~passes))
        columns = {"rule": broken[~passes].tolist()}
        columns |= {name: [_evaluation(leak)[name] for leak in held] for name in _evaluation(None)}
        for name, values in columns.items():
            others = others.append_column(name, pa.array(values, pa.string()))
        rejected.write_batch(others)


def _held(leak: Leak | None, rule: str) -> Leak | None:
    """Return the leak for which a row was rejected, if it was for one."""
    return leak if leak and leak.rule == rule else None


@dataclass(frozen=True)
class _Teacher:
    encode: Encode
    languages: tuple[str, ...]
    config: CleanConfig

    def inconsistent(self, staged: Path, rules: npt.NDArray[np.object_]) -> list[int]:
        """Return the rows, not rejected so far, of which the teacher ranks no positive high enough."""
        owners: list[int] = []
        queries: list[str] = []
        positives: list[str] = []
        source_tasks: list[SourceTask] = []
        for index, row in enumerate(read_rows(staged)):
            # A scored pair has no positive that the teacher could miss.
            if rules[index] is None and row["score"] is None and row["language"] in self.languages:
                owners += [index] * len(row["positives"])
                queries += [row["query"]] * len(row["positives"])
                positives += row["positives"]
                source_tasks += [(row["source"], row["task_type"])] * len(row["positives"])
        if not owners:
            return []
        kept = consistent(
            queries,
            positives,
            source_tasks,
            self.encode,
            self.config.consistency_top_k,
            self.config.consistency_pool,
        )
        consistent_rows = {owner for owner, keep in zip(owners, kept, strict=True) if keep}
        return sorted(set(owners) - consistent_rows)
