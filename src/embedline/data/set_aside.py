"""Records set aside after cleaning: nothing is trained on them but the weights of a fusion."""

from __future__ import annotations

import hashlib
from itertools import chain, zip_longest
from pathlib import Path

from embedline.config.data import SYMMETRIC
from embedline.data.tables import RECORD_SCHEMA, RECORDS, Row, RowWriter, read_rows
from embedline.words import comparison_form

SET_ASIDE = "set_aside.parquet"
SHARE = 0.1  # of a source's queries, at most


def set_aside(dataset: Path, at_most: int) -> int:
    """Move the records of up to `at_most` queries to `set_aside.parquet`; return their number.

    Only records of searches are taken: a short query, documents, no score. The sources take turns, up to a
    tenth of the queries of each, in the order of the queries' hashes: what is taken does not depend on the
    order of rows. All records of a query are taken together.
    """
    chosen = _choose(dataset, at_most)
    if not chosen:
        return 0
    draft = dataset / f".{RECORDS}"
    with (
        RowWriter(draft, RECORD_SCHEMA) as kept,
        RowWriter(dataset / SET_ASIDE, RECORD_SCHEMA) as taken,
    ):
        for row in read_rows(dataset / RECORDS):
            (taken if _place(row) in chosen else kept).write(row)
    draft.replace(dataset / RECORDS)
    return taken.count


def is_search(row: Row) -> bool:
    """Return whether a record is a short query with documents that answer it."""
    symmetric = row["task_type"] in SYMMETRIC
    return row["score"] is None and not symmetric and not str(row["task_type"]).startswith("long")


def _choose(dataset: Path, at_most: int) -> set[int]:
    places: dict[str, set[int]] = {}
    for row in read_rows(dataset / RECORDS):
        if is_search(row):
            places.setdefault(row["source"], set()).add(_place(row))
    by_source = [sorted(found)[: int(len(found) * SHARE)] for _, found in sorted(places.items())]
    in_turn = dict.fromkeys(chain.from_iterable(zip_longest(*by_source)))
    return set([place for place in in_turn if place is not None][:at_most])


def _place(row: Row) -> int:
    return int.from_bytes(hashlib.sha1(comparison_form(row["query"]).encode()).digest()[:8])
