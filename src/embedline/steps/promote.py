"""promote: registers every candidate with its verdict; moves the alias when gate and policy allow it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from embedline.artifacts.record import write_json
from embedline.config.registry import PromoteConfig, TrackingConfig
from embedline.errors import ConflictError
from embedline.registry.registered_form import registered_form
from embedline.registry.tracking_target import TrackingPlace, read_tracking, tracking_place
from embedline.steps.context import Context, StepResult
from embedline.steps.gate import VERDICT
from embedline.steps.shared.version_tags import candidate_tags

PROMOTION = "promotion.json"


@dataclass(frozen=True)
class Outcome:
    """The content of promotion.json: the candidate's version, and where the alias points now."""

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


def run(context: Context) -> StepResult:
    """Inputs `candidate`, `onnx` and `verdict`; output `promotion`."""
    from embedline.registry.versions import register

    config = context.step_config.section("promote", PromoteConfig)
    name = config.model or str(context.step_config.config["name"])
    found = _tracking(context)
    verdict = json.loads((context.artifact("verdict").path / VERDICT).read_text(encoding="utf-8"))
    model, exported = context.artifact("candidate"), context.inputs["onnx"]
    with registered_form(model.path, exported.path if exported else None, context.draft) as folder:
        version = register(
            name,
            folder,
            digest=model.digest,
            tags=candidate_tags(context, verdict),
            run_id=found.mirror().parent(context.run),
            uri=found.uri,
            experiment=found.experiment,
            artifact_root=found.artifact_root,
        )
    outcome = _decide(context, config, name, version, verdict, found)
    write_json(context.output("promotion") / PROMOTION, asdict(outcome))
    context.tracker.tags({"registered_model": name, "registered_version": version})
    metrics = {"version": float(version), "moved": float(outcome.moved)}
    return StepResult(metrics=metrics, summary=f"{outcome.text}\n\nAliases: {_in_words(outcome.aliases)}.")


def _decide(
    context: Context,
    config: PromoteConfig,
    name: str,
    version: int,
    verdict: dict[str, Any],
    found: TrackingPlace,
) -> Outcome:
    """Moves the alias, or says why it stays where it is."""
    from embedline.registry.challenger import name_challenger
    from embedline.registry.promotion import NOTHING, promote
    from embedline.registry.versions import aliases

    alias, moved = config.alias, False
    met = (context.step_config.pins.get("champion") or {}).get("version")
    name_challenger(name, uri=found.uri)
    current = aliases(name, uri=found.uri).get(alias)
    if current == version:
        text = f"{name} version {version} is already {alias}; nothing moved."
    elif not verdict["passed"]:
        text = f"{name} version {version} is registered; the gate refused it, {_stays(alias, current)}."
    elif config.policy == "manual":
        text = (
            f"{name} version {version} is registered; promote.policy is manual, {_stays(alias, current)}. "
            f"To promote it: embedline promote {name} {version}"
        )
    else:
        try:
            promotion = promote(
                name,
                version,
                alias,
                reason=f"run {context.run}: the gate passed",
                by=f"run {context.run}",
                expect=str(met or NOTHING),
                uri=found.uri,
            )
            moved, text = promotion.moved, promotion.text
        except ConflictError as error:  # the candidate is registered; whoever moved the alias decides
            text = f"{name} version {version} is registered; {_stays(alias, current)}. {error}"
    now = aliases(name, uri=found.uri)
    return Outcome(
        name=name,
        version=version,
        alias=alias,
        moved=moved,
        already_champion=current == version,
        champion=now.get(alias),
        previous=now.get(f"previous_{alias}"),
        aliases=now,
        digest=context.artifact("candidate").digest,
        uri=found.uri,
        text=text,
    )


def _tracking(context: Context) -> TrackingPlace:
    """What preflight found, so that all steps of a run talk to one server."""
    config = context.step_config.section("tracking", TrackingConfig)
    found = read_tracking(context.workspace.run_folder(context.run))
    found = found or tracking_place(config, context.workspace)
    found.sign_in()
    return found


def _stays(alias: str, current: int | None) -> str:
    return f"{alias} stays version {current}" if current else f"there is no {alias} yet"


def _in_words(aliases: dict[str, int]) -> str:
    return ", ".join(f"{alias} is version {number}" for alias, number in sorted(aliases.items())) or "none"
