"""Ingestion of sources into one dataset: records, corpus, and a quarantine for malformed rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

from embedline.config.data import CorpusSource, Source
from embedline.data.lines import Line, shorten
from embedline.data.records import (
    Ids,
    MalformedRowError,
    passage_columns,
    passage_of,
    record_columns,
    record_of,
    with_lists,
)
from embedline.data.sources import read_source, source_name
from embedline.data.tables import CORPUS, PASSAGE_SCHEMA, QUARANTINE, RECORD_SCHEMA, RECORDS, Row, RowWriter
from embedline.data.tally import Tally
from embedline.errors import InputError, StepError
from embedline.markdown import cell, table

MAX_MALFORMED_SHARE = 0.5
MAX_COLUMNS = 50  # counted by name; rows that use keys as values have any number
_NOTE_CHARS = 2000


@dataclass
class IngestCounts:
    """Rows of one source; read = accepted + quarantined + left_out.

    Args:
        columns: number of rows that have a value in each column that is read.
        ignored_columns: the same for the columns that are not read.
        tally: the files that they were read from.
    """

    source: str
    table: str
    path: str
    read: int = 0
    accepted: int = 0
    quarantined: int = 0
    left_out: int = 0
    columns: dict[str, int] = field(default_factory=dict)
    ignored_columns: dict[str, int] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)

    def count_columns(self, values: dict[str, Any], known: frozenset[str]) -> None:
        """Count the columns of one row; an empty value is none."""
        for name, value in values.items():
            if value is not None and value != "" and value != []:
                counts = self.columns if name in known else self.ignored_columns
                counted = name if name in counts or len(counts) < MAX_COLUMNS else "others"
                counts[counted] = counts.get(counted, 0) + 1


@dataclass
class IngestReport:
    """Counts by source, in the order of the configuration."""

    sources: list[IngestCounts] = field(default_factory=list)

    def total(self, count: str, table: str | None = None) -> int:
        """Sum one count (`read`, `accepted`, …) over the sources of a table, or over all."""
        return sum(getattr(s, count) for s in self.sources if table in {None, s.table})

    def as_json(self) -> list[dict[str, Any]]:
        return [{**asdict(source), "tally": source.tally.as_json()} for source in self.sources]

    def markdown(self) -> str:
        """Return the counts as a Markdown table, one row a source, and a line for each note on a source.

        Each column of a source stands with its number of values.
        """
        head = ["source", "table", "read", "accepted", "quarantined", "left out"]
        head += ["columns", "columns not read"]
        rows = [
            (
                *(s.source, s.table, s.read, s.accepted, s.quarantined, s.left_out),
                *(_listed(s.columns), _listed(s.ignored_columns)),
            )
            for s in self.sources
        ]
        notes = [f"{source.source}: {note}" for source in self.sources for note in source.tally.notes()]
        lines = "".join(f"- {cell(note, chars=_NOTE_CHARS)}\n" for note in notes)
        return f"{table(head, rows, align='llrrrrll')}\n\n{lines}".rstrip()


def _listed(columns: dict[str, int]) -> str:
    return ", ".join(f"{name} ({rows})" for name, rows in columns.items())


def ingest(
    sources: Sequence[Source], corpus: Sequence[CorpusSource], root: Path, out_folder: Path
) -> IngestReport:
    """Read every source into `records.parquet`, `corpus.parquet` and `quarantine.jsonl` below `out_folder`.

    Args:
        root: folder that relative paths start from.

    Raises:
        InputError: a source does not exist, cannot be read, is empty, or more than half of it is malformed.
        StepError: rows were lost (a fault of this program).

    >>> report = ingest([Source(path="faq.jsonl")], [], Path("data"), Path("dataset"))  # doctest: +SKIP
    >>> report.total("accepted")  # doctest: +SKIP
    1200
    """
    out_folder.mkdir(parents=True, exist_ok=True)
    report = IngestReport()
    with ExitStack() as open_files:
        quarantine = open_files.enter_context((out_folder / QUARANTINE).open("w", encoding="utf-8"))
        records = open_files.enter_context(RowWriter(out_folder / RECORDS, RECORD_SCHEMA))
        passages = open_files.enter_context(RowWriter(out_folder / CORPUS, PASSAGE_SCHEMA))
        record_ids, passage_ids = Ids(), Ids()
        for source in sources:
            name = source_name(source.name, source.path)
            counts = IngestCounts(name, "records", source.path)
            lines = read_source(source.path, root, source.split, tally=counts.tally)
            report.sources.append(counts)
            _read_into(
                islice(lines, source.limit),
                counts,
                lambda line, s=source, n=name: _record(line, s, n, record_ids),  # type: ignore[misc]
                record_columns(source),
                records,
                quarantine,
                source.min_score,
            )
        for passage_source in corpus:
            name = source_name(passage_source.name, passage_source.path)
            counts = IngestCounts(name, "corpus", passage_source.path)
            lines = read_source(
                passage_source.path, root, passage_source.split, texts=True, tally=counts.tally
            )
            report.sources.append(counts)
            _read_into(
                islice(lines, passage_source.limit),
                counts,
                lambda line, s=passage_source, n=name: passage_of(line.values, s, n, passage_ids),  # type: ignore[misc]
                passage_columns(passage_source),
                passages,
                quarantine,
            )
    _assert_conserved(report, records.count, passages.count)
    return report


def _read_into(
    lines: Iterator[Line],
    counts: IngestCounts,
    convert: Callable[[Line], Row],
    known: frozenset[str],
    writer: RowWriter,
    quarantine: IO[str],
    min_score: float | None = None,
) -> None:
    first: Line | None = None
    for line in lines:
        counts.read += 1
        try:
            if line.values is None:
                raise MalformedRowError(line.reason)
            counts.count_columns(line.values, known)
            row = convert(line)
        except MalformedRowError as error:
            excerpt = line.excerpt
            if line.values is not None:
                excerpt = shorten(json.dumps(line.values, ensure_ascii=False, default=str))
            bad = Line(line.file, line.line, None, str(error), excerpt)
            first = first or bad
            counts.quarantined += 1
            quarantine.write(_quarantined(bad, counts.source))
            continue
        if min_score is not None and row["score"] is not None and row["score"] < min_score:
            counts.left_out += 1  # a low-scored pair is no positive, but not malformed either
        else:
            counts.accepted += 1
            # Rows selected by their score are positives from here on, not pairs to be ranked.
            writer.write(row if min_score is None else {**row, "score": None})
    _check_source(counts, first)


def _record(line: Line, source: Source, name: str, ids: Ids) -> Row:
    assert line.values is not None
    values = with_lists(line.values, source.columns) if line.only_text else line.values
    return record_of(values, source, name, ids)


def _quarantined(line: Line, source: str) -> str:
    entry = {
        "source": source,
        "file": line.file,
        "line": line.line,
        "reason": line.reason,
        "excerpt": line.excerpt,
    }
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _check_source(counts: IngestCounts, first: Line | None) -> None:
    where = f"source {counts.source!r} ({counts.path})"
    if counts.read == 0:
        raise InputError("is empty.", where=where, fix="Remove it from the preset, or give it rows.")
    if first is not None and counts.quarantined > MAX_MALFORMED_SHARE * counts.read:
        raise InputError(
            f"{counts.quarantined} of {counts.read} rows are malformed; the first: {first.reason} "
            f"({first.file}:{first.line}).",
            where=where,
            fix="Correct the file, or name its columns under `columns` (records) or `text` (corpus).",
        )


def _assert_conserved(report: IngestReport, records: int, passages: int) -> None:
    for counts in report.sources:
        if counts.read != counts.accepted + counts.quarantined + counts.left_out:
            raise StepError("rows were lost while reading.", where=f"source {counts.source!r}")
    if (records, passages) != (report.total("accepted", "records"), report.total("accepted", "corpus")):
        raise StepError("fewer rows were written than accepted.")
