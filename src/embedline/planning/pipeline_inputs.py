"""The inputs that people change in the pipelines UI, beside the preset and its overrides."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import yaml

from embedline.errors import InputError

# Input of the pipeline → key of the config. An input at its empty value leaves the preset alone (the engine
# knows no optional inputs); a seed may be 0, a number of steps may not.
KEYS = {
    "seed": "seed",
    "data_root": "data.root",
    "base_model": "model.base",
    "pretrain_steps": "pretrain.steps",
    "unsupervised_steps": "unsupervised.steps",
    "supervised_steps": "supervised.steps",
    "gate_mode": "gate.mode",
    "promotion": "promote.policy",
    "experiment": "tracking.experiment",
}
_EMPTY: dict[str, tuple[object, ...]] = {"seed": (-1,)}


def with_inputs(overrides: Sequence[str], inputs: Mapping[str, str | int]) -> list[str]:
    """`overrides`, and an override for every input that says something.

    Raises:
        InputError: an input and an override set the same thing.
    """
    made = list(overrides)
    for name, value in inputs.items():
        if value in _EMPTY.get(name, ("", 0)):
            continue
        key = KEYS[name]
        for override in overrides:
            if _overlap(key, override.partition("=")[0].strip()):
                raise InputError(
                    f"{key} is set twice: by the input {name} and by the override {override!r}.",
                    where="overrides",
                    fix=f"Leave {name} empty, or take the override out.",
                )
        made.append(f"{key}={_quoted(value) if isinstance(value, str) else int(value)}")
    return made


def _quoted(text: str) -> str:
    """As YAML in quotes: what looks like a number, a list or a comment stays a text."""
    return str(yaml.safe_dump(text, default_style='"', allow_unicode=True, width=sys.maxsize)).strip()


def _overlap(one: str, other: str) -> bool:
    """The same key, or one a part of the other (`gate.mode` of `gate`)."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
