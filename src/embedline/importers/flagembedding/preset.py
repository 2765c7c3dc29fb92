"""`embedline init --from-flagembedding`: a preset from FlagEmbedding's flags."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from embedline.config.load import validate_config
from embedline.errors import InputError
from embedline.importers.flagembedding.flags import FLAGS, SECRETS, given, preset_keys, read_flag
from embedline.importers.flagembedding.shell_script import Command, read_command
from embedline.importers.flagembedding.values import NO_IN_BATCH

# What FlagEmbedding does whatever its flags say.
FIXED: dict[str, tuple[Any, str]] = {
    "pretrain.enabled": (False, "FlagEmbedding fine-tunes only"),
    "unsupervised.enabled": (False, "FlagEmbedding fine-tunes only"),
    "mine.enabled": (False, "the negatives are those of the data; true mines them with the base"),
    "supervised.false_negative_margin": (None, "FlagEmbedding masks none; 0.1 would"),
}
NOTE = """\
# A FlagEmbedding preset, made by `embedline init --from-flagembedding`. Beside each key: what it comes from.
# Texts in other languages than clean.languages (ru, en) are left out; name yours there.
# No held-out set is named yet: data.evaluation or data.hold_out gives the gate something to judge by.
"""
_ORDER = ("data", "model", "prompts", "runtime", "pretrain", "unsupervised", "mine", "supervised")


@dataclass
class Preset:
    """A preset's text, and what could not be said in it."""

    text: str
    left_out: dict[str, str] = field(default_factory=dict)


def preset_from(said: str, name: str) -> Preset:
    """The preset that trains as the command `said` does (a command line, or a file that holds one).

    Relative paths of the command start at the current folder.

    Raises:
        InputError: a flag that FlagEmbedding does not have, a value that no key takes, or nothing to train.
    """
    command = read_command(said)
    values = _values(command)
    files = _files(values["train_data"])
    values["train_data"] = [str(path) for path in files]
    base = Path(values["model_name_or_path"]).expanduser()
    if base.is_dir():
        values["model_name_or_path"] = str(base.resolve())
    meant = given(
        values,
        module=command.module,
        devices=command.devices,
        rows=_rows(files, values.get("max_example_num_per_dataset")),
    )
    keys = {key: (value, _origin(flag, command)) for key, (value, flag) in preset_keys(meant).items()}
    keys |= FIXED | {"data.root": (str(Path.cwd()), "where relative paths start")}
    notes = [f"--{flag} {_shown(flag, command)}".rstrip() for flag in command.flags if not FLAGS[flag].keys]
    left_out = dict(
        zip(notes, (FLAGS[flag].note for flag in command.flags if not FLAGS[flag].keys), strict=True)
    )
    if "supervised.steps" not in keys:
        left_out["--num_train_epochs"] = (
            "the data is not there to count: supervised.steps is epochs × rows / batch"
        )
    marked = [path.name for path in files if NO_IN_BATCH in str(path)]
    if marked and "supervised.in_batch_negatives" not in keys:
        left_out[NO_IN_BATCH] = (
            f"{', '.join(marked)}: in_batch_negatives holds for a whole stage, not for a source"
        )
    text = _yaml(name, keys, left_out)
    validate_config(yaml.safe_load(text), where=f"the preset of {command.where}")
    return Preset(text, left_out)


def _values(command: Command) -> dict[str, Any]:
    for name in list(command.flags):
        positive = name.removeprefix("no_")
        if (
            name not in FLAGS and positive != name and positive in FLAGS
        ):  # HfArgumentParser's way to say false
            command.flags[positive] = ["False"]
            del command.flags[name]
    for name, words in command.flags.items():
        unknown = [word for word in words if "$" in word]
        if unknown and FLAGS.get(name) and FLAGS[name].keys:
            raise InputError(
                f"nothing says what {unknown[0]} is.", where=f"--{name}", fix="Put its value in."
            )
    values = {name: read_flag(name, words) for name, words in command.flags.items()}
    for name in ("model_name_or_path", "train_data"):
        if name not in values:
            raise InputError(f"--{name} is missing.", where=command.where)
    return values


def _files(paths: list[str]) -> list[Path]:
    """A folder of FlagEmbedding is a dataset a file."""
    files: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(path.expanduser().glob("*.jsonl")) if path.expanduser().is_dir() else []
        files += inside or [path]
    return files


def _rows(files: list[Path], limit: int | None) -> int | None:
    """Rows of all files, at most `limit` of each; None when one is not there to be counted."""
    total = 0
    for path in files:
        if not path.expanduser().is_file():
            return None
        with path.expanduser().open("rb") as lines:
            rows = sum(bool(line.strip()) for line in lines)
        total += rows if limit is None else min(rows, limit)
    return total


def _origin(flag: str, command: Command) -> str:
    said = f"FlagEmbedding's --{flag} when absent"
    if flag in command.flags:
        said = f"--{flag} {_shown(flag, command)}".rstrip()
    if flag == "per_device_train_batch_size" and command.devices > 1:
        said += f", {command.devices} processes"
    return said


def _shown(flag: str, command: Command) -> str:
    if flag in SECRETS:
        return "…"
    shown = " ".join(shlex.quote(word) for word in command.flags[flag]).replace("\n", "\\n")
    return shown if len(shown) <= 60 else f"{shown[:59]}…"


def _yaml(name: str, keys: dict[str, tuple[Any, str]], left_out: dict[str, str]) -> str:
    lines = [NOTE.rstrip()]
    if left_out:
        lines += ["# Without a counterpart:", *(f"#   {flag}: {reason}" for flag, reason in left_out.items())]
    lines.append(f"name: {_flow(name)}")
    lines += [f"{key}: {_flow(value)}  # {origin}" for key, (value, origin) in keys.items() if "." not in key]
    for section in _ORDER:
        mine = {key.split(".", 1)[1]: found for key, found in keys.items() if key.startswith(f"{section}.")}
        if mine:
            lines += [f"{section}:", *_lines(mine, "  ")]
    return "\n".join(lines) + "\n"


def _lines(keys: dict[str, tuple[Any, str]], indent: str) -> list[str]:
    lines: list[str] = []
    for key, (value, origin) in keys.items():
        head, _, rest = key.partition(".")
        inner = {k.split(".", 1)[1]: v for k, v in keys.items() if k.startswith(f"{head}.")}
        if rest and next(k for k in keys if k == head or k.startswith(f"{head}.")) != key:
            continue  # its section is written already
        if inner:
            lines += [f"{indent}{head}:", *_lines(inner, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{indent}{key}:  # {origin}", *(f"{indent}  - {_flow(item)}" for item in value)]
        else:
            lines.append(f"{indent}{key}: {_flow(value)}  # {origin}")
    return lines


def _flow(value: Any) -> str:
    """A value on one line, as YAML reads it back."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and value.isascii() and value.replace("_", "").replace("-", "").isalpha():
        plain = str(value)
        return plain if yaml.safe_load(plain) == plain else f'"{plain}"'
    style = '"' if isinstance(value, str) else None
    said = yaml.safe_dump(value, default_style=style, allow_unicode=True, width=10**9)
    return said.removesuffix("\n").removesuffix("\n...")
