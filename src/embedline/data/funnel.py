"""What cleaning did: rows in, rows rejected by each rule, rows out, by table and source."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from embedline.artifacts.markdown import cell
from embedline.errors import StepError


@dataclass
class Stage:
    """One source of one table; rows_in = rows_out + the sum of `rejected`.

    Args:
        changed: what was altered in rows that stayed or went (`texts_cut`, `positives_removed`,
            `negatives_removed`); no part of the balance.
    """

    rows_in: int = 0
    rows_out: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)

    def count(self, rule: str | None, rows: int = 1) -> None:
        """Rows that leave: rejected by a rule, or out at the other end when there is none."""
        if rule is None:
            self.rows_out += rows
        else:
            self.rejected[rule] += rows


@dataclass
class Funnel:
    """Stages by table (`records`, `corpus`) and source."""

    tables: dict[str, dict[str, Stage]] = field(default_factory=dict)

    def stage(self, table: str, source: str) -> Stage:
        return self.tables.setdefault(table, {}).setdefault(source, Stage())

    def rows_in(self, table: str) -> int:
        return sum(stage.rows_in for stage in self.tables.get(table, {}).values())

    def rows_out(self, table: str) -> int:
        return sum(stage.rows_out for stage in self.tables.get(table, {}).values())

    def rejected(self, table: str) -> Counter[str]:
        """Rows rejected by each rule over all sources."""
        found: Counter[str] = Counter()
        for stage in self.tables.get(table, {}).values():
            found.update(stage.rejected)
        return found

    def assert_conserved(self) -> None:
        """
        Raises:
            StepError: a row came in and is neither out nor rejected (a fault of this program).
        """
        for table, sources in self.tables.items():
            for source, stage in sources.items():
                if stage.rows_in != stage.rows_out + stage.rejected.total():
                    raise StepError("rows were lost while cleaning.", where=f"{table} of {source!r}")

    def as_json(self) -> dict[str, Any]:
        return {
            table: {
                source: vars(stage) | {"rejected": dict(stage.rejected), "changed": dict(+stage.changed)}
                for source, stage in sources.items()
            }
            for table, sources in self.tables.items()
        }

    def metrics(self) -> dict[str, float]:
        """`records.in`, `records.out`, `records.rejected.<rule>`, the same of the corpus."""
        found: dict[str, float] = {}
        for table in self.tables:
            found |= {f"{table}.in": self.rows_in(table), f"{table}.out": self.rows_out(table)}
            found |= {f"{table}.rejected.{rule}": count for rule, count in self.rejected(table).items()}
        return found

    def markdown(self) -> str:
        """A table of each kind: a line a source, a column a rule that rejected anything."""
        parts = []
        for table, sources in self.tables.items():
            rules = list(self.rejected(table))
            lines = [
                f"| {table} | in | {''.join(f'{rule} | ' for rule in rules)}out |",
                f"|---|{'---:|' * (len(rules) + 2)}",
            ]
            total = Stage(self.rows_in(table), self.rows_out(table), self.rejected(table))
            named = [(cell(name), stage) for name, stage in sources.items()]
            for name, stage in [*named, ("**total**", total)]:
                counts = "".join(f"{stage.rejected[rule]} | " for rule in rules)
                lines.append(f"| {name} | {stage.rows_in} | {counts}{stage.rows_out} |")
            parts.append("\n".join(lines))
        return "\n\n".join(parts)
