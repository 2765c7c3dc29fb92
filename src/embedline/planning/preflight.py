"""Preflight: validate and pin everything before any costly work, and plan the run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedline.artifacts.code_version import check_image
from embedline.artifacts.record import StepRecord, forget_records
from embedline.artifacts.run_folder import read_plan
from embedline.artifacts.tracker import Tracker
from embedline.artifacts.workspace import Workspace, check_workspace
from embedline.config.limits import check_run_inputs
from embedline.config.load import deprecated, load_config, preset_text, validate_config
from embedline.config.schema import RunConfig
from embedline.data.root import data_root
from embedline.data.sources import source_files
from embedline.errors import EmbedlineError, InputError
from embedline.execution.recorded import recorded
from embedline.planning.champion import find_champion, register_first
from embedline.planning.checks.availability import missing
from embedline.planning.checks.base import base_notes
from embedline.planning.checks.batch_sizes import require_enough
from embedline.planning.checks.dims import require_dims
from embedline.planning.checks.machine import (
    check_disk,
    check_memory,
    machine_found,
    precision_notes,
    trains_elsewhere,
)
from embedline.planning.checks.memory import memory_notes
from embedline.planning.checks.models import require_usable_models
from embedline.planning.checks.recommendations import advice
from embedline.planning.checks.references import held_out_sets, require_known_names
from embedline.planning.checks.sequence_length import require_room
from embedline.planning.durations import step_seconds
from embedline.planning.fingerprint import Fingerprint, fingerprint_of, write_fingerprint
from embedline.planning.pins import Pinned, pin_data, pin_models
from embedline.planning.plan import Plan, predict_steps
from embedline.planning.step_configs import make_step_configs
from embedline.registry.server import exists
from embedline.registry.tracking_target import tracking_target, warn_once, write_tracking
from embedline.resources import available_bytes
from embedline.steps.context import StepConfig

STEP = "preflight"


def preflight(preset: str, overrides: Sequence[str], work: Path, run: str) -> Plan:
    """Validate, pin, check and plan a run; write plan.json, tracking.json and fingerprint.json.

    Without a champion, promote.first_champion is registered as one, without the gate, after all checks.

    Raises:
        InputError: something would make the run fail later.
    """
    check_workspace(work)
    workspace = Workspace(work)
    folder = workspace.step_folder(run, STEP)
    forget_records(workspace.run_folder(run))
    record = StepRecord(step=STEP, status="running", started_at=time.time())
    with recorded(folder, record, workspace.run_folder(run)):
        check_image()
        config = load_config(preset, overrides).model_dump(mode="json")
        require_same_run(workspace.run_folder(run), config)
        plan = make_plan(preset, overrides, work, run, act=True)
        plan.write(workspace.run_folder(run))
        found = _fingerprint(plan, workspace)
        write_fingerprint(workspace.run_folder(run), found)
        tracker = Tracker(folder)
        tracker.params(_flat(plan.config))
        tracker.tags({f"pin.{name}": pin for name, pin in _flat(plan.pins).items()})
        tracker.tags({"train_key": found.train_key})
        record.summary = f"```\n{plan.table()}\n```\n"
    return plan


def make_plan(preset: str, overrides: Sequence[str], work: Path, run: str = "", *, act: bool = False) -> Plan:
    """Make the plan.

    Args:
        act: register a first champion and open the run at the tracking server; a dry plan does neither.

    Raises:
        InputError: the config, a source, a model, the machine or the tracking server is not usable.
    """
    check_run_inputs(preset, overrides)
    config = load_config(preset, overrides)
    require_known_names(config)
    check_workspace(work)
    workspace = Workspace(work)
    target = tracking_target(config.tracking, workspace)
    if act or exists(target.uri):
        _prepare(target.uri)
    if act:
        write_tracking(workspace.run_folder(run), target)
        _begin(run, config, workspace)
    root = data_root(config, preset, workspace)
    data = pin_data(config, root)
    require_enough(config, root)
    models = pin_models(config, root)
    _require_heads(config, models.locations.get("base"))
    base = Path(models.locations["base"]) if "base" in models.locations else None
    require_room(config, base)
    require_dims(config, base)
    check_disk(workspace.root, _bytes(config, root))
    machine = [*memory_notes(config, base, check_memory()), *precision_notes(config.runtime)]
    champion = find_champion(config, target, workspace, root)
    assumed = require_usable_models(config, models.locations, champion)
    if act and champion.first:
        champion = register_first(config, target, champion, workspace, run)
    locations = {**data.locations, **models.locations}
    if champion.path:
        locations["champion"] = str(champion.path)
    pinned = Pinned(
        {**data.pins, **models.pins, "champion": champion.pin},
        {name: workspace.reference(Path(path)) for name, path in locations.items()},
        data.revisions,
    )
    step_configs = make_step_configs(config, pinned)
    return Plan(
        run=run,
        preset=preset,
        name=config.name,
        config=config.model_dump(mode="json"),
        pins=pinned.pins,
        step_configs=step_configs,
        steps=predict_steps(workspace, preset, step_configs, _durations(config, root, base)),
        warnings=[
            *deprecated(preset, overrides),
            *_warnings(config),
            *assumed,
            *machine,
            *advice(config, root),
            *base_notes(config, base),
            *_cluster_notes(preset, overrides),
        ],
        machine=machine_found(config.runtime),
    )


def _durations(config: RunConfig, root: Path, base: Path | None) -> dict[str, float]:
    """Estimate the seconds of the steps; not where a GPU trains (`estimate_run`), or a pod."""
    return {} if trains_elsewhere() else step_seconds(config, root, base, available_bytes())


def _cluster_notes(preset: str, overrides: Sequence[str]) -> list[str]:
    """Return one line when the run can start here, and its preset is too large to be submitted."""
    try:
        check_run_inputs(preset_text(preset), overrides)
    except InputError as error:
        return [f"on a cluster: {error}"]
    return []


def _fingerprint(plan: Plan, workspace: Workspace) -> Fingerprint:
    """Return the run's fingerprint from the plan's pins, without digesting anything again."""
    locations = StepConfig.model_validate_json(plan.step_configs["ingest"]).located(workspace).locations
    pinned = Pinned(plan.pins, locations)
    config = validate_config(plan.config, where=plan.preset)
    return fingerprint_of(config, Path(locations["root"]), pinned, pinned)


def _require_heads(config: RunConfig, base: str | None) -> None:
    """Refuse heads that would be saved with random weights: no base has them and no stage trains them."""
    stages = (config.unsupervised, config.supervised)
    if base is None or any(stage.enabled and stage.objective == "unified" for stage in stages):
        return
    from embedline.models.folder import folder_heads

    for head in config.model.heads:
        if head not in folder_heads(Path(base)):
            raise InputError(
                f"the base has no {head} head, and no stage trains one.",
                where="model.heads",
                fix="Set a stage's objective to unified, or leave the head out.",
            )


def missing_here(config: RunConfig, preset: str, work: Path) -> list[str]:
    """List what a run would lack on this machine; empty when the data folder itself cannot be found."""
    try:
        return missing(config, data_root(config, preset, Workspace(work)))
    except (InputError, OSError):
        return []


def _prepare(uri: str) -> None:
    from embedline.registry.tracking import prepare

    prepare(uri)


def _begin(run: str, config: RunConfig, workspace: Workspace) -> None:
    """Open the parent run at the tracking server, also one that an earlier attempt closed."""
    from embedline.registry.tracking_target import read_tracking

    found = read_tracking(workspace.run_folder(run))
    assert found is not None
    try:
        mirror = found.mirror()
        mirror.parent(run, {"preset": config.name, "status": "running"})
        mirror.reopen(run)
    except InputError:  # a wrong setting
        raise
    except EmbedlineError as error:  # the server is down: the spool keeps everything
        warn_once(found.uri, error)


def _bytes(config: RunConfig, root: Path) -> int:
    """Return the size of the sources that are on this machine."""
    paths = [item.path for item in config.data.sources] + [item.path for item in config.data.corpus]
    return sum(file.stat().st_size for path in paths for file in source_files(path, root))


def _warnings(config: RunConfig) -> list[str]:
    warnings, unjudged = [], "the candidate is registered as not judged, and no alias moves"
    evaluate = config.evaluate
    if not (held_out_sets(config) or evaluate.mteb_tasks or evaluate.needle_depths):
        warnings.append(f"there are no evaluation sets: {unjudged}")
    elif config.gate.mode == "off":
        warnings.append(f"gate.mode is off: {unjudged}")
    elif not config.gate.rules and config.gate.mode == "enforce":
        refusing = "the default rules, the champion and the parity"
        warnings.append(f"gate.rules is empty: only {refusing} can refuse the candidate")
    return warnings


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif value not in (None, "", [], {}):
            flat[f"{prefix}{key}"] = value
    return flat


def require_same_run(run_folder: Path, config: dict[str, Any]) -> None:
    """Refuse to continue a run with other settings: its curves and parameters would be of both.

    Raises:
        InputError: naming the settings that differ.
    """
    before = read_plan(run_folder).get("config", config)
    if before != config:
        differ = sorted(_changed(before, config))
        shown = ", ".join(differ[:5]) + (", …" if len(differ) > 5 else "")
        raise InputError(
            f"this run was begun with other settings ({shown}).",
            where=str(run_folder),
            fix="Give another name, or omit it to begin a new run.",
        )


def _changed(one: Any, other: Any, key: str = "") -> Iterator[str]:
    """Yield the keys at which two configs differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in {*one, *other}:
            yield from _changed(one.get(name), other.get(name), f"{key}.{name}".lstrip("."))
    elif one != other:
        yield key
