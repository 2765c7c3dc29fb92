"""Step promote: register every candidate with its verdict; move the alias when gate and policy allow it.

A candidate that was not judged is registered as such, and no alias moves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from embedline.artifacts.durable import write_json
from embedline.config.registry import PromoteConfig, TrackingConfig
from embedline.errors import ConflictError
from embedline.gate.outcome import Outcome, outcome_of
from embedline.quoting import command_line
from embedline.registry.challenger import update_challenger
from embedline.registry.promotion import NOTHING, promote
from embedline.registry.registered_form import registered_form
from embedline.registry.tracking_target import TrackingTarget, read_tracking, tracking_target
from embedline.registry.versions import aliases, register
from embedline.steps.context import Context, StepResult
from embedline.steps.gate import VERDICT
from embedline.steps.shared.conflict import Conflict, conflict_of
from embedline.steps.shared.version_tags import candidate_tags, version_description

PROMOTION = "promotion.json"


@dataclass(frozen=True)
class Registration:
    """Content of promotion.json: the candidate's version, and the aliases after the step.

    Args:
        already_champion: whether the alias pointed at this version before.
        conflict: why a promotion that gate and policy allowed was not made; the run then exits 4.
    """

    name: str
    version: int
    alias: str
    moved: bool
    already_champion: bool
    champion: int | None
    previous: int | None
    aliases: dict[str, int]
    digest: str
    uri: str
    text: str
    conflict: Conflict | None = None


def run(context: Context) -> StepResult:
    """Register the candidate and promote it if the policy allows.

    Inputs `candidate`, `onnx`, `scores` and `verdict`; output `promotion`.
    """
    config = context.step_config.section("promote", PromoteConfig)
    name = config.model or str(context.step_config.config["name"])
    target = _tracking_target(context)
    verdict = json.loads((context.artifact("verdict").path / VERDICT).read_text(encoding="utf-8"))
    model, exported = context.artifact("candidate"), context.inputs["onnx"]
    with registered_form(model.path, exported.path if exported else None, context.draft) as folder:
        version = register(
            name,
            folder,
            digest=model.digest,
            tags=candidate_tags(context, verdict, config.alias),
            description=version_description(context, verdict),
            run_id=target.mirror().parent(context.run),
            uri=target.uri,
            experiment=target.experiment,
            artifact_root=target.artifact_root,
        )
    registration = _move_alias(context, config, name, version, verdict, target.uri)
    write_json(context.output("promotion") / PROMOTION, asdict(registration))
    context.tracker.tags({"registered_model": name, "registered_version": version})
    metrics = {"version": float(version), "moved": float(registration.moved)}
    return StepResult(
        metrics=metrics, summary=f"{registration.text}\n\nAliases: {_aliases_text(registration.aliases)}."
    )


def _move_alias(
    context: Context, config: PromoteConfig, name: str, version: int, verdict: Mapping[str, Any], uri: str
) -> Registration:
    """Move the alias to the candidate if gate and policy allow it; else the text gives the reason."""
    alias, moved, outcome, conflict = config.alias, False, outcome_of(verdict), None
    compared_with = (context.step_config.pins.get("champion") or {}).get("version")
    update_challenger(name, uri=uri)
    current = aliases(name, uri=uri).get(alias)
    already = current == version
    if already:
        text = f"{name} version {version} is already {alias}; nothing moved."
    elif outcome is Outcome.REFUSED:
        text = f"{name} version {version} is registered; the gate refused it, {_stays(alias, current)}."
    elif outcome is Outcome.NOT_JUDGED:
        text = (
            f"{name} version {version} is registered as not judged, {_stays(alias, current)}. "
            f"To promote it all the same: {command_line('embedline', 'promote', name, version)}"
        )
    elif config.policy == "manual":
        text = (
            f"{name} version {version} is registered; promote.policy is manual, {_stays(alias, current)}. "
            f"To promote it: {command_line('embedline', 'promote', name, version)}"
        )
    else:
        try:
            promotion = promote(
                name,
                version,
                alias,
                reason=f"run {context.run}: {_reason(verdict)}",
                by=f"run {context.run}",
                expect=str(compared_with or NOTHING),
                uri=uri,
            )
            moved, already, text = promotion.moved, not promotion.moved, promotion.text
        except ConflictError as error:  # no failure of the step: the candidate is registered
            conflict = conflict_of(error, name, version, alias)
            text = conflict.text
    now = aliases(name, uri=uri)
    return Registration(
        name=name,
        version=version,
        alias=alias,
        moved=moved,
        already_champion=already,
        champion=now.get(alias),
        previous=now.get(f"previous_{alias}"),
        aliases=now,
        digest=context.artifact("candidate").digest,
        uri=context.workspace.uri_reference(uri),
        text=text,
        conflict=conflict,
    )


def _reason(verdict: Mapping[str, Any]) -> str:
    """Return why the alias moves, for the ledger."""
    if verdict.get("would_pass", True):
        return "the gate passed"
    return "gate.mode is dry_run; the gate would have refused"


def _tracking_target(context: Context) -> TrackingTarget:
    """Return the target that preflight wrote, so that all steps of a run use one server; signed in."""
    config = context.step_config.section("tracking", TrackingConfig)
    target = read_tracking(context.workspace.run_folder(context.run))
    target = target or tracking_target(config, context.workspace)
    target.sign_in()
    return target


def _stays(alias: str, current: int | None) -> str:
    return f"{alias} stays version {current}" if current else f"there is no {alias} yet"


def _aliases_text(aliases: dict[str, int]) -> str:
    return ", ".join(f"{alias} is version {number}" for alias, number in sorted(aliases.items())) or "none"
