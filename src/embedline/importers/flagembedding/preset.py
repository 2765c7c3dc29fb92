"""Presets from FlagEmbedding commands: `embedline init --from-flagembedding`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import yaml

from embedline.config.load import validate_config
from embedline.errors import InputError
from embedline.importers.flagembedding.flags import FLAGS, SECRETS, preset_keys, read_flag, with_defaults
from embedline.importers.flagembedding.shell_script import Command, read_command
from embedline.importers.flagembedding.writers import NO_IN_BATCH
from embedline.importers.preset import ImportedPreset, KeyValue, preset_yaml

# What FlagEmbedding does whatever its flags are.
FIXED = {
    "pretrain.enabled": KeyValue(False, "FlagEmbedding fine-tunes only"),
    "unsupervised.enabled": KeyValue(False, "FlagEmbedding fine-tunes only"),
    "mine.enabled": KeyValue(False, "the data brings its own negatives; true mines them with the base"),
    "supervised.false_negative_margin": KeyValue(None, "FlagEmbedding masks no false negatives; 0.1 would"),
}
HEADER = """\
# Made from a FlagEmbedding command by `embedline init --from-flagembedding`. The comment beside each key
# names the flag that it comes from.
# Rows in languages outside clean.languages (ru, en) are removed: add yours there.
# No held-out set is named yet: the gate needs data.evaluation or data.hold_out to judge the model.
"""


def preset_from(command_line: str, name: str) -> ImportedPreset:
    """Make the preset that trains as a FlagEmbedding command does.

    Args:
        command_line: the command, or the path of a script that holds one. The script is read, never run.
            Relative paths in it start at the current folder.
        name: the name of the preset.

    Raises:
        InputError: a flag that FlagEmbedding does not have, a value that no key takes, or nothing to train.

    Example:
        >>> preset = preset_from("--model_name_or_path BAAI/bge-m3 --train_data a.jsonl", "my-model")
        >>> Path("preset.yaml").write_text(preset.text)
    """
    command = read_command(command_line)
    values = _values(command)
    files = _files(values["train_data"])
    values["train_data"] = [str(path) for path in files]
    base = Path(values["model_name_or_path"]).expanduser()
    if base.is_dir():
        values["model_name_or_path"] = str(base.resolve())
    arguments = with_defaults(
        values,
        module=command.module,
        devices=command.devices,
        rows=_rows(files, values.get("max_example_num_per_dataset")),
    )
    keys = {
        key: KeyValue(value, _origin(flag, command)) for key, (value, flag) in preset_keys(arguments).items()
    }
    keys |= FIXED | {"data.root": KeyValue(str(Path.cwd()), "the folder that relative paths start at")}
    left_out = {
        f"--{flag} {_shown(flag, command)}".rstrip(): FLAGS[flag].note
        for flag in command.flags
        if not FLAGS[flag].keys
    }
    if "supervised.steps" not in keys:
        left_out["--num_train_epochs"] = (
            "the data files are not here to be counted; set supervised.steps to epochs × rows / batch"
        )
    marked = [path.name for path in files if NO_IN_BATCH in str(path)]
    if marked and "supervised.in_batch_negatives" not in keys:
        left_out[NO_IN_BATCH] = (
            f"{', '.join(marked)}: in_batch_negatives holds for a whole stage, not for a source"
        )
    text = preset_yaml(HEADER, name, keys, left_out)
    validate_config(yaml.safe_load(text), where=f"the preset of {command.where}")
    return ImportedPreset(text, left_out)


def _values(command: Command) -> dict[str, Any]:
    """Read the values of a command's flags, by name."""
    for name in list(command.flags):
        positive = name.removeprefix("no_")
        if (
            name not in FLAGS and positive != name and positive in FLAGS
        ):  # HfArgumentParser's spelling of false
            command.flags[positive] = ["False"]
            del command.flags[name]
    for name, words in command.flags.items():
        unknown = [word for word in words if "$" in word]
        if unknown and FLAGS.get(name) and FLAGS[name].keys:
            raise InputError(
                f"the variable {unknown[0]} has no value in the script.",
                where=f"--{name}",
                fix="Write its value there.",
            )
    values = {name: read_flag(name, words) for name, words in command.flags.items()}
    for name in ("model_name_or_path", "train_data"):
        if name not in values:
            raise InputError(f"--{name} is missing.", where=command.where)
    return values


def _files(paths: list[str]) -> list[Path]:
    """List the training files; of a folder, as FlagEmbedding does, each JSONL file as a dataset."""
    files: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(path.expanduser().glob("*.jsonl")) if path.expanduser().is_dir() else []
        files += inside or [path]
    return files


def _rows(files: list[Path], limit: int | None) -> int | None:
    """Count the rows of all files, at most `limit` of each; None when a file is not on this machine."""
    total = 0
    for path in files:
        if not path.expanduser().is_file():
            return None
        with path.expanduser().open("rb") as lines:
            rows = sum(bool(line.strip()) for line in lines)
        total += rows if limit is None else min(rows, limit)
    return total


def _origin(flag: str, command: Command) -> str:
    """Describe where a key's value comes from: the flag as given, or FlagEmbedding's default."""
    origin = f"FlagEmbedding's --{flag} when absent"
    if flag in command.flags:
        origin = f"--{flag} {_shown(flag, command)}".rstrip()
    if flag == "per_device_train_batch_size" and command.devices > 1:
        origin += f", {command.devices} processes"
    return origin


def _shown(flag: str, command: Command) -> str:
    """Shorten a flag's words for a comment; secrets are not repeated."""
    if flag in SECRETS:
        return "…"
    shown = " ".join(shlex.quote(word) for word in command.flags[flag]).replace("\n", "\\n")
    return shown if len(shown) <= 60 else f"{shown[:59]}…"
