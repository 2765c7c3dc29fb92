"""Records held out before training: their queries and positives become a retrieval set."""

from __future__ import annotations

import hashlib
from pathlib import Path

from embedline.config.data import HoldOut
from embedline.data.evaluation_reader import Retrieval, SetInfo, read_sets
from embedline.data.evaluation_sets import write_retrieval, write_sets
from embedline.data.tables import RECORD_SCHEMA, RECORDS, Row, RowWriter, read_rows
from embedline.errors import InputError
from embedline.words import comparison_form


def hold_out(dataset: Path, evaluation: Path, config: HoldOut) -> tuple[SetInfo, int]:
    """Move a share of the records of `dataset` into a new set of `evaluation`; return it and the rows moved.

    Records with the same (first) positive are moved together, selected by that text's hash: the same rows are
    held out whatever other rows there are. With `at_most`, those with the lowest hashes: as the sources grow,
    no row that was trained on is ever held out later. Records with a score stay. The set's corpus is every
    positive of the sources, also of the rows that are trained on, because a search runs over all of them.

    Raises:
        InputError: a named source has no records, or nothing is left to hold out or to train on.
    """
    rows = list(read_rows(dataset / RECORDS))
    candidates = [row for row in rows if _answered(row, config.sources)]
    missing = sorted(set(config.sources) - {row["source"] for row in candidates})
    if missing:
        raise InputError(
            f"no record comes from {missing[0]!r}.",
            where="data.hold_out.sources",
            fix="Name sources that have records.",
        )
    places = {row["id"]: _place(row) for row in candidates}
    chosen = sorted({place for place in places.values() if place < config.share})[: config.at_most]
    held = {identity for identity, place in places.items() if chosen and place <= chosen[-1]}
    if not held or len(held) == len(candidates):
        raise InputError(
            f"would hold out {len(held)} of {len(candidates)} records.",
            where="data.hold_out.share",
            fix="Choose another share, or give more rows.",
        )
    retrieval = _retrieval(candidates, held)
    folder = evaluation / config.name
    if folder.exists():
        raise InputError(f"a set called {config.name!r} exists already.", where="data.hold_out.name")
    folder.mkdir()
    info = SetInfo(config.name, "retrieval", config.language, "short-long", 0)
    info = write_retrieval(retrieval, folder, info)
    write_sets(evaluation, [*read_sets(evaluation), info])
    draft = dataset / f".{RECORDS}"
    with RowWriter(draft, RECORD_SCHEMA) as writer:
        for row in rows:
            if row["id"] not in held:
                writer.write(row)
    draft.replace(dataset / RECORDS)
    return info, len(held)


def _answered(row: Row, sources: list[str]) -> bool:
    """Return whether a record of one of `sources` (empty: of any) has a query and its answer."""
    return row["score"] is None and (not sources or row["source"] in sources)


def _place(row: Row) -> float:
    """Place a record in 0..1 by the hash of its first positive."""
    text = comparison_form(row["positives"][0])
    return int.from_bytes(hashlib.sha1(text.encode()).digest()[:8]) / 2**64


def _retrieval(rows: list[Row], held: set[str]) -> Retrieval:
    """Make the set; a query that is one of the documents has its id, and is no answer to itself."""
    documents: dict[str, str] = {}
    for row in rows:
        for text in row["positives"]:
            documents.setdefault(text, f"d{len(documents)}")
    queries: dict[str, str] = {}
    for row in rows:
        if row["id"] in held:
            queries.setdefault(row["query"], documents.get(row["query"], f"q{len(queries)}"))
    qrels: dict[str, dict[str, int]] = {}
    for row in rows:  # another row's positive of the same query is relevant, too, held out or not
        if query := queries.get(row["query"]):
            answers = {documents[text]: 1 for text in row["positives"] if text != row["query"]}
            qrels.setdefault(query, {}).update(answers)
    return Retrieval(
        {identity: ("", text) for text, identity in documents.items()},
        {identity: text for text, identity in queries.items()},
        qrels,
    )
