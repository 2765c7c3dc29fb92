"""Presets from FlagEmbedding commands: `embedline init --from-flagembedding`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from embedline.config.load import validate_config
from embedline.errors import InputError
from embedline.importers.flagembedding.flags import FLAGS, SECRETS, preset_keys, read_flag, with_defaults
from embedline.importers.flagembedding.shell_script import Command, read_command
from embedline.importers.flagembedding.train_files import TrainFile, read_train_file, without_counterpart
from embedline.importers.flagembedding.writers import NO_IN_BATCH, Arguments, prompt
from embedline.importers.preset import ImportedPreset, KeyValue, preset_yaml
from embedline.quoting import home_expanded

# What FlagEmbedding does whatever its flags are, and the questions that the gate needs.
FIXED = {
    "data.hold_out.share": KeyValue(0.1, "not in FlagEmbedding: rows that score the model for the gate,"),
    "data.hold_out.at_most": KeyValue(500, "and are not trained on; data.evaluation names sets of your own"),
    "pretrain.enabled": KeyValue(False, "FlagEmbedding fine-tunes only"),
    "unsupervised.enabled": KeyValue(False, "FlagEmbedding fine-tunes only"),
    "mine.enabled": KeyValue(False, "the data brings its own negatives; true mines them with the base"),
    "supervised.false_negative_margin": KeyValue(None, "FlagEmbedding masks no false negatives; 0.1 would"),
}
HEADER = """\
# Made from a FlagEmbedding command by `embedline init --from-flagembedding`. The comment beside each key
# names the flag that it comes from.
# Rows in languages outside clean.languages (ru, en) are removed: add yours there.
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
    given = [Path(path) for path in values["train_data"]]
    paths = _files(given)
    files = [read_train_file(path, values.get("max_example_num_per_dataset")) for path in paths]
    values["train_data"] = [str(path) for path in paths]
    base = home_expanded(values["model_name_or_path"])
    if base.is_dir():
        values["model_name_or_path"] = str(base.resolve())
    counts = [file.rows for file in files]
    arguments = with_defaults(
        values,
        module=command.module,
        devices=command.devices,
        rows=None if None in counts else sum(filter(None, counts)),
    )
    keys = {
        key: KeyValue(value, _origin(flag, command)) for key, (value, flag) in preset_keys(arguments).items()
    }
    keys |= FIXED | {"data.root": KeyValue(str(Path.cwd()), "the folder that relative paths start at")}
    if command.processes > 1:
        launcher = " ".join(f"--{name} {value}" for name, value in command.launcher.items())
        keys["runtime.processes"] = KeyValue(command.processes, launcher)
    with_types = bool(values.get("same_dataset_within_batch") or values.get("same_task_within_batch"))
    with_prompts = with_types or "query_instruction_for_retrieval" in values
    if with_types:
        _write_task_types(keys["data.sources"].value, files)
    if with_prompts:
        keys |= _prompts(keys, files, arguments)
    if not any(key.startswith("prompts.") for key in keys):
        keys["prompts"] = KeyValue({}, "FlagEmbedding puts no words of the base's before texts")
    left_out = {
        f"--{flag} {_shown(flag, command)}".rstrip(): FLAGS[flag].note
        for flag in command.flags
        if not FLAGS[flag].keys
    }
    left_out |= _launcher_left_out(command) | _files_left_out(given)
    for file in files:
        left_out |= dict(without_counterpart(file, with_prompts=with_prompts, with_types=with_types))
    if "supervised.steps" not in keys:
        left_out["--num_train_epochs"] = (
            "the data files are not here to be counted; set supervised.steps to epochs × rows / batch"
        )
    marked = [path.name for path in paths if NO_IN_BATCH in str(path)]
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


def _files(paths: list[Path]) -> list[Path]:
    """List the training files; of a folder, as FlagEmbedding does, each JSONL file as a dataset."""
    files: list[Path] = []
    for path in paths:
        inside = sorted(home_expanded(path).glob("*.jsonl")) if home_expanded(path).is_dir() else []
        files += inside or [path]
    return files


def _write_task_types(sources: list[dict[str, Any]], files: Sequence[TrainFile]) -> None:
    """Add the task type to each source whose rows have the type of one of ours."""
    for source, file in zip(sources, files, strict=True):
        if file.task_type:
            source["task_type"] = file.task_type


def _prompts(
    keys: dict[str, KeyValue], files: Sequence[TrainFile], arguments: Arguments
) -> dict[str, KeyValue]:
    """Write the prompt of each file whose rows all have the same, by the name of its source."""
    found: dict[str, KeyValue] = {}
    default, document = (keys.get(f"prompts.default.{side}") for side in ("query", "document"))
    for source, file in zip(keys["data.sources"].value, files, strict=True):
        words = prompt("query")(file.prompt, arguments) if file.prompt else ""
        if not words or (default and words == default.value):
            continue
        given = source.get("name") or file.path.name.removesuffix(".jsonl")
        name = re.sub(r"[^\w-]+", "-", given) + ("-rows" if given == "default" else "")
        if name != given:
            source["name"] = name
        found[f"prompts.{name}.query"] = KeyValue(words, f"the rows' prompt in {file.path.name}")
        if document:
            found[f"prompts.{name}.document"] = document
    return found


def _files_left_out(paths: list[Path]) -> dict[str, str]:
    """List the JSON files of folders, which FlagEmbedding reads."""
    folders = [home_expanded(path) for path in paths if home_expanded(path).is_dir()]
    reason = "is not read; write its rows as JSON lines, in a file that ends in .jsonl"
    return {path.name: reason for folder in folders for path in sorted(folder.glob("*.json"))}


def _launcher_left_out(command: Command) -> dict[str, str]:
    """List the launcher's flags that no key has: several machines, and numbers that depend on the machine."""
    left_out = {
        f"--{flag} {value}": "is no number; set runtime.processes, and supervised.batch to as many times more"
        for flag, value in command.launcher.items()
        if not value.isdigit()
    }
    if command.machines > 1:
        left_out[f"{command.machines} machines"] = (
            "train_job.nodes and train_job.processes_per_node train on several, in a cluster"
        )
    return left_out


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
