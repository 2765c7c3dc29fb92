"""All flags of FlagEmbedding's fine-tuning (1.4.2), and a command's values by preset key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from embedline.errors import InputError
from embedline.importers.flagembedding.embedder_flags import DATA, DECODERS, MODEL, OLDER, TRAINING
from embedline.importers.flagembedding.flag import Flag, flag
from embedline.importers.flagembedding.readers import EXPECTED, text
from embedline.importers.flagembedding.trainer_flags import TRAINER, UNUSED
from embedline.importers.flagembedding.writers import Arguments

SECRETS = frozenset({"token", "hub_token"})
UNUSED_NOTE = "a setting of transformers' Trainer that no preset needs"
TABLES = {
    "Model": MODEL,
    "Decoders and in-context learning: model": DECODERS,
    "Data": DATA,
    "Training (FlagEmbedding's own)": TRAINING,
    "Training (transformers' Trainer)": TRAINER,
    "Older releases": OLDER,
}
FLAGS: Mapping[str, Flag] = {
    row.name: row
    for row in (
        *(row for table in TABLES.values() for row in table),
        *(flag(name, note=UNUSED_NOTE) for name in UNUSED),
    )
}


class FlagValue(NamedTuple):
    """The value of a preset key, and the flag that it comes from."""

    value: Any
    flag: str


def with_defaults(
    flags: Mapping[str, Any], *, module: str = "", devices: int = 1, rows: int | None = None
) -> Arguments:
    """Add FlagEmbedding's defaults for the flags that a command leaves out.

    Args:
        flags: values by flag name, as the command gives them.
        module, devices, rows: as in `Arguments`.
    """
    defaults = {row.name: row.default for row in FLAGS.values() if row.default_in in module}
    return Arguments({**defaults, **flags}, module, devices, rows)


def read_flag(name: str, words: list[str]) -> Any:
    """Read the value of a flag; one without a preset key, and without a reader of its own, keeps its words.

    Raises:
        InputError: FlagEmbedding has no such flag, or the flag takes no such value.
    """
    if name not in FLAGS:
        raise InputError("is no flag of FlagEmbedding's fine-tuning.", where=f"--{name}")
    row = FLAGS[name]
    if not row.keys and row.read is text:
        return words
    try:
        return row.read(words)
    except (ValueError, KeyError) as error:
        value = " ".join(words) or "nothing"
        raise InputError(f"takes {EXPECTED[row.read]}, not {value!r}.", where=f"--{name}") from error


def preset_keys(arguments: Arguments) -> dict[str, FlagValue]:
    """Compute the values by preset key; where two flags set one key, the later row of the tables wins."""
    keys: dict[str, FlagValue] = {}
    for name, row in FLAGS.items():
        value = arguments[name]
        if value is None or not row.keys:
            continue
        written = row.write(value, arguments) if row.write else value
        parts = written if len(row.keys) > 1 else (written,)
        keys |= {
            key: FlagValue(part, name) for key, part in zip(row.keys, parts, strict=True) if part is not None
        }
    return keys
