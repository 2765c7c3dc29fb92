"""Comparison of fingerprints: what changed since the last training, and whether another is needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from embedline.artifacts.run_folder import read_fingerprint, read_run
from embedline.planning.fingerprint import PARTS, DataEntry, Fingerprint, ModelEntry

Entry = DataEntry | ModelEntry
_COMPLETED = ("succeeded", "refused", "not judged", "conflict")  # the run reached a verdict


@dataclass(frozen=True)
class Since:
    """An earlier fingerprint.

    Args:
        what: its owner: `version 3 of demo` or `run demo-1`.
        values: the content of fingerprint.json; `manifest` may be missing.
    """

    what: str
    values: Mapping[str, str]

    @property
    def manifest(self) -> Fingerprint | None:
        return Fingerprint.parse(self.values.get("manifest", ""))


@dataclass(frozen=True)
class Change:
    """One difference; `key` is a source's name or a config key, empty when only the part is known."""

    part: str
    key: str
    text: str


@dataclass(frozen=True)
class Comparison:
    """The difference of two fingerprints: whether a run is needed.

    Args:
        reason: one sentence.
        since: the owner of the earlier fingerprint; empty when there is none.
    """

    needed: bool
    reason: str
    train_key: str
    since: str
    changes: list[Change]

    def table(self) -> str:
        """Return the comparison as lines for a terminal."""
        lines = [f"train key {self.train_key}"]
        if self.since:
            lines.append(f"since {self.since}:" + ("" if self.changes else " nothing changed"))
        lines += [f"  {change.part:<8}{change.text}" for change in self.changes]
        return "\n".join([*lines, f"run needed: {'yes' if self.needed else 'no'}: {self.reason}"])

    def outputs(self) -> dict[str, str]:
        """Return the values for a CI service, one line each."""
        return {
            "needed": str(self.needed).lower(),
            "train_key": self.train_key,
            "reason": " ".join(self.reason.split()),
        }


def compare_fingerprints(found: Fingerprint, since: Since | None, holder: str = "") -> Comparison:
    """Compare a fingerprint with an earlier one.

    Args:
        since: of the newest registered version, else of the last run here that reached a verdict.
        holder: the registered version, of any age, that has this key.
    """
    key = found.train_key
    changes = compare(since, found) if since else []
    if holder:
        return Comparison(False, f"{holder} has this key.", key, since.what if since else "", changes)
    if since is None:
        return Comparison(True, "nothing was trained yet that says what it was made from.", key, "", [])
    if since.values["train_key"] == key:
        return Comparison(False, f"{since.what} has this key.", key, since.what, changes)
    parts = ", ".join(dict.fromkeys(change.part for change in changes))
    return Comparison(True, f"changed: {parts}.", key, since.what, changes)


def compare(since: Since, found: Fingerprint) -> list[Change]:
    """List every difference in the order of the parts; where only digests exist, only the part."""
    manifest = since.manifest
    if manifest is None:
        now = {**found.parts(), "image": found.image}
        changed = [part for part in PARTS if since.values.get(part) != now[part]]
        return [Change(part, "", "changed (how is not recorded there)") for part in changed]
    before, now = manifest.parts(), found.parts()
    changed = [part for part in PARTS if before[part] != now[part]]
    details = {
        "data": lambda: _entries("data", manifest.data, found.data),
        "code": lambda: [Change("code", "", f"{manifest.code} → {found.code}")],
        "image": lambda: [Change("image", "", f"other libraries: {manifest.image} → {found.image}")],
        "config": lambda: _config(manifest.config, found.config),
        "base": lambda: _entries("base", manifest.base, found.base),
    }
    reordered = "the same in another order"
    return [change for part in changed for change in details[part]() or [Change(part, "", reordered)]]


def last_run(workspace: Path, name: str) -> Since | None:
    """Return the newest run of a model's name in a workspace that reached a verdict."""
    newest: tuple[float, Since] | None = None
    for folder in workspace.glob("*"):
        values = read_fingerprint(folder)
        record = read_run(folder)
        if folder.is_symlink() or not values or record.status not in _COMPLETED:
            continue
        since = Since(f"run {folder.name}", values)
        started = record.started
        if since.manifest and since.manifest.config["name"] == name and (not newest or started > newest[0]):
            newest = (started, since)
    return newest[1] if newest else None


def _entries(part: str, before: tuple[Entry, ...], now: tuple[Entry, ...]) -> list[Change]:
    old, new = {_name(entry): entry for entry in before}, {_name(entry): entry for entry in now}
    changes = []
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            changes.append(Change(part, name, f"{name}: new{_facts(new[name])}"))
        elif name not in new:
            changes.append(Change(part, name, f"{name}: gone{_facts(old[name])}"))
        elif old[name] != new[name]:
            changes.append(Change(part, name, f"{name}: {_difference(old[name], new[name])}"))
    return changes


def _difference(before: Entry, now: Entry) -> str:
    differences = []
    for field in fields(before):
        one, other = getattr(before, field.name), getattr(now, field.name)
        if one != other:
            differences.append(f"{field.name} {_shown(field.name, one)} → {_shown(field.name, other)}")
    return ", ".join(differences)


def _facts(entry: Entry) -> str:
    values = asdict(entry)
    known = [f"{key} {_shown(key, values[key])}" for key in ("rows", "size") if values.get(key) is not None]
    return f" ({', '.join(known)})" if known else ""


def _shown(field: str, value: Any) -> str:
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, int) else str(value)[:12] if field == "checksum" else str(value)


def _name(entry: Entry) -> str:
    return entry.role if isinstance(entry, ModelEntry) else f"{entry.kind}.{entry.name}"


def _config(before: dict[str, Any], now: dict[str, Any]) -> list[Change]:
    old, new = _flat(before), _flat(now)
    return [
        Change("config", key, f"{key}: {old.get(key, 'not set')} → {new.get(key, 'not set')}")
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Map dotted keys to leaves; items of a list of sections are named by their names or numbers."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        value = {str(item.get("name") or number): item for number, item in enumerate(value)}
    if not isinstance(value, dict) or not value:
        return {prefix.rstrip("."): json.dumps(value, ensure_ascii=False)}
    return {
        key: leaf for name, inner in value.items() for key, leaf in _flat(inner, f"{prefix}{name}.").items()
    }
