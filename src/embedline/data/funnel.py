"""Counts of a cleaning: rows in, rows rejected by each rule, rows out, by table and source."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from embedline.data.evaluation_index import Leak
from embedline.errors import StepError
from embedline.markdown import cell
from embedline.markdown import table as markdown_table

LISTED_LEAKS = 20


@dataclass
class SourceCounts:
    """Rows of one source of one table; rows_in = rows_out + the sum of `rejected`.

    Args:
        changed: alterations inside rows, kept or rejected (`texts_cut`, `positives_removed`,
            `negatives_removed`); no part of the balance.
    """

    rows_in: int = 0
    rows_out: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)

    def count(self, rule: str | None, rows: int = 1) -> None:
        """Count rows as rejected by a rule, or as passed when there is none."""
        if rule is None:
            self.rows_out += rows
        else:
            self.rejected[rule] += rows


@dataclass
class Funnel:
    """Counts by table (`records`, `corpus`) and source, and the evaluation texts of rejected rows."""

    tables: dict[str, dict[str, SourceCounts]] = field(default_factory=dict)
    leaks: Counter[Leak] = field(default_factory=Counter)

    def counts(self, table: str, source: str) -> SourceCounts:
        return self.tables.setdefault(table, {}).setdefault(source, SourceCounts())

    def count_leak(self, leak: Leak | None) -> None:
        """Count a row that was rejected for an evaluation text."""
        if leak:
            self.leaks[leak] += 1

    def rows_in(self, table: str) -> int:
        return sum(counts.rows_in for counts in self.tables.get(table, {}).values())

    def rows_out(self, table: str) -> int:
        return sum(counts.rows_out for counts in self.tables.get(table, {}).values())

    def rejected(self, table: str) -> Counter[str]:
        """Count the rows that each rule rejected, over all sources."""
        found: Counter[str] = Counter()
        for counts in self.tables.get(table, {}).values():
            found.update(counts.rejected)
        return found

    def assert_conserved(self) -> None:
        """Check that every row that came in is out or rejected.

        Raises:
            StepError: rows are missing (a fault of this program).
        """
        for table, sources in self.tables.items():
            for source, counts in sources.items():
                if counts.rows_in != counts.rows_out + counts.rejected.total():
                    raise StepError("rows were lost while cleaning.", where=f"{table} of {source!r}")

    def as_json(self) -> dict[str, Any]:
        """Return the counts as JSON values, by table and source."""
        return {
            table: {
                source: vars(counts) | {"rejected": dict(counts.rejected), "changed": dict(+counts.changed)}
                for source, counts in sources.items()
            }
            for table, sources in self.tables.items()
        }

    def metrics(self) -> dict[str, float]:
        """Return `records.in`, `records.out`, `records.rejected.<rule>`, and the same of the corpus."""
        found: dict[str, float] = {}
        for table in self.tables:
            found |= {f"{table}.in": self.rows_in(table), f"{table}.out": self.rows_out(table)}
            found |= {f"{table}.rejected.{rule}": count for rule, count in self.rejected(table).items()}
        return found

    def markdown(self) -> str:
        """Return one table a kind of row: a line a source, a column a rule that rejected anything.

        Then the evaluation texts that most rows were rejected for; the rejected rows name all of them.
        """
        parts = []
        for kind, sources in self.tables.items():
            rules = list(self.rejected(kind))
            total = SourceCounts(self.rows_in(kind), self.rows_out(kind), self.rejected(kind))
            named = [(cell(name), counts) for name, counts in sources.items()]
            rows = [
                [name, counts.rows_in, *(counts.rejected[rule] for rule in rules), counts.rows_out]
                for name, counts in [*named, ("**total**", total)]
            ]
            head = [kind, "in", *rules, "out"]
            parts.append(markdown_table(head, rows, align="l" + "r" * (len(head) - 1), escape=False))
        return "\n\n".join([*parts, *self._leaks_markdown()])

    def _leaks_markdown(self) -> list[str]:
        if not self.leaks:
            return []
        most = sorted(self.leaks.items(), key=lambda item: (-item[1], item[0]))[:LISTED_LEAKS]
        rows = [[leak.rule, leak.source.set, shortened(leak.source.text), count] for leak, count in most]
        title = f"Evaluation texts in rejected rows, {len(rows)} of {len(self.leaks)}:"
        return [title, markdown_table(["rule", "set", "evaluation text", "rows"], rows, align="lllr")]


def shortened(text: str, characters: int = 120) -> str:
    """Return a text in one line, cut at `characters`."""
    line = " ".join(text.split())
    return line if len(line) <= characters else f"{line[:characters].rstrip()}…"
