"""The preset that an importer returns, and its text: YAML with the origin of each value beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

_SECTIONS = ("data", "model", "prompts", "runtime", "pretrain", "unsupervised", "mine", "supervised")


class KeyValue(NamedTuple):
    """The value of a preset key, and the setting of the other tool that it comes from."""

    value: Any
    origin: str


@dataclass(frozen=True)
class ImportedPreset:
    """A preset made from another tool's settings.

    Args:
        text: the preset's YAML.
        left_out: settings that have no preset key, each with the reason.
    """

    text: str
    left_out: dict[str, str] = field(default_factory=dict)


def preset_yaml(header: str, name: str, keys: Mapping[str, KeyValue], left_out: Mapping[str, str]) -> str:
    """Write a preset as YAML: dotted keys become sections, each value with its origin as a comment.

    Args:
        header: comment lines at the top.
        name: the preset's `name`.
        keys: values by dotted preset key.
        left_out: settings without a preset key, listed in a comment.
    """
    lines = [header.rstrip()]
    if left_out:
        lines += [
            "# Without a counterpart:",
            *(f"#   {setting}: {reason}" for setting, reason in left_out.items()),
        ]
    lines.append(f"name: {_one_line(name)}")
    lines += [
        f"{key}: {_one_line(value)}  # {origin}" for key, (value, origin) in keys.items() if "." not in key
    ]
    for section in _SECTIONS:
        inside = _below(keys, section)
        if inside:
            lines += [f"{section}:", *_lines(inside, "  ")]
    return "\n".join(lines) + "\n"


def _below(keys: Mapping[str, KeyValue], section: str) -> dict[str, KeyValue]:
    """Return the keys of a section, without the section's name."""
    return {key.split(".", 1)[1]: value for key, value in keys.items() if key.startswith(f"{section}.")}


def _lines(keys: Mapping[str, KeyValue], indent: str) -> list[str]:
    lines: list[str] = []
    for key, (value, origin) in keys.items():
        head, _, rest = key.partition(".")
        inside = _below(keys, head)
        if rest and next(k for k in keys if k == head or k.startswith(f"{head}.")) != key:
            continue  # its section is written already
        if inside:
            lines += [f"{indent}{_key(head)}:", *_lines(inside, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{indent}{key}:  # {origin}", *(f"{indent}  - {_one_line(item)}" for item in value)]
        else:
            lines.append(f"{indent}{key}: {_one_line(value)}  # {origin}")
    return lines


def _key(name: str) -> str:
    """Write a name that may be a file's, as YAML reads it back."""
    return name if yaml.safe_load(name) == name else f'"{name}"'


def _one_line(value: Any) -> str:
    """Write a value on one line, as YAML reads it back."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_one_line(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_one_line, value)) + "]"
    if isinstance(value, str) and value.isascii() and value.replace("_", "").replace("-", "").isalpha():
        plain = str(value)
        return plain if yaml.safe_load(plain) == plain else f'"{plain}"'
    style = '"' if isinstance(value, str) else None
    dumped = yaml.safe_dump(value, default_style=style, allow_unicode=True, width=10**9)
    return dumped.removesuffix("\n").removesuffix("\n...")
