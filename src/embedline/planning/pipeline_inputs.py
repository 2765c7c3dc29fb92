"""The pipeline's inputs beside preset and overrides: settings that users often change in the UI."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import yaml

from embedline.errors import InputError

# Input of the pipeline → key of the config. kfp has no optional inputs: an empty one leaves the preset as it
# is. A seed may be 0, a number of steps may not.
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
    """Return `overrides` and an override for every input that is not empty.

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
    """Return the text as quoted YAML, so that a number, a list or a comment in it stays text."""
    return str(yaml.safe_dump(text, default_style='"', allow_unicode=True, width=sys.maxsize)).strip()


def _overlap(one: str, other: str) -> bool:
    """Return whether two keys are equal or one is a part of the other (`gate.mode` of `gate`)."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
