"""The part of the config for each step: the settings of its key, others, pins and locations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedline.config.partial import choose, drop, holds
from embedline.config.schema import RunConfig
from embedline.dag import STEPS, Step
from embedline.data.sources import source_name
from embedline.planning.pins import Pinned
from embedline.steps.context import StepConfig


def make_step_configs(config: RunConfig, pinned: Pinned) -> dict[str, str]:
    """Return each step's `StepConfig` as JSON.

    data.root is left empty: the place of the data is not part of a key. Sources get their names, hub sources
    their revision.
    """
    values = config.model_dump(mode="json")
    values["data"]["root"] = ""
    for group in ("sources", "corpus"):
        for item in values["data"][group]:
            item["name"] = source_name(item["name"], item["path"])
            if item["path"] in pinned.revisions:
                item["path"] = f"{item['path'].partition('@')[0]}@{pinned.revisions[item['path']]}"
    return {name: step_config(step, values, pinned).model_dump_json() for name, step in STEPS.items()}


def step_config(step: Step, values: Mapping[str, Any], pinned: Pinned) -> StepConfig:
    """Return what one step gets of a config's JSON values."""
    unread = [setting for setting, condition in step.only_with.items() if not holds(values, condition)]
    settings = choose(values, step.reads)
    besides = choose(values, step.unkeyed)
    for section, names in step.unkeyed.items():
        if section in settings:
            for name in names:
                settings[section] = drop(settings[section], name)
    for setting in (*step.ignores, *unread):
        for section in settings:
            if setting == section:
                settings[section] = None
            elif setting.startswith(f"{section}."):
                settings[section] = drop(settings[section], setting.removeprefix(f"{section}."))
    return StepConfig(
        config=settings,
        unkeyed=besides,
        pins={pin: pinned.pins[pin] for pin in step.pins if f"pins.{pin}" not in unread},
        locations=dict(pinned.locations),
        train_job=values["train_job"] if step.trains else {},
    )
