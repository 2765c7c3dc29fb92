"""The champion that a run competes against: its pin, its folder here, and the first one of a model name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedline.artifacts.workspace import Workspace
from embedline.config.schema import RunConfig
from embedline.errors import InputError
from embedline.models.resolve import resolve_model
from embedline.registry.files import verify_folder
from embedline.registry.registered_form import registered_form
from embedline.registry.server import exists
from embedline.registry.tracking_target import TrackingTarget

if TYPE_CHECKING:
    from embedline.registry.versions import ChampionRef


@dataclass(frozen=True)
class Champion:
    """The champion. Its pin is part of step keys; None: there is none. `first`: it is not registered yet."""

    pin: dict[str, Any] | None
    path: Path | None
    first: bool = False


def find_champion(config: RunConfig, target: TrackingTarget, workspace: Workspace, root: Path) -> Champion:
    """Return the version under the alias; without one, promote.first_champion, the future version 1.

    Raises:
        StepError: the champion's files are not those that were registered.
    """
    from embedline.registry.versions import get_champion

    name, alias = config.promote.model or config.name, config.promote.alias
    current = get_champion(name, alias, uri=target.uri) if exists(target.uri) else None
    if current is not None:
        if current.path is not None:
            verify_folder(current.path, current.tags, f"{name} version {current.version}")
        path = current.path or _downloaded(current, target.uri, workspace)
        return Champion({"version": current.version, "digest": current.digest}, path)
    if config.promote.first_champion is None:
        return Champion(None, None)

    try:
        model = resolve_model(config.promote.first_champion, root=root)
    except InputError as error:
        raise InputError(error.what, where=f"promote.first_champion: {error.where}", fix=error.fix) from error
    return Champion({"version": 1, "digest": model.digest}, model.path, first=True)


def register_first(
    config: RunConfig, target: TrackingTarget, champion: Champion, workspace: Workspace, run: str
) -> Champion:
    """Register an outside model and set the alias to it. Call it last, when everything else is validated."""
    from embedline.registry.promotion import NOTHING, promote
    from embedline.registry.versions import THIRD_PARTY, VERDICT_TAG, register

    assert champion.pin is not None
    assert champion.path is not None
    name, alias = config.promote.model or config.name, config.promote.alias
    with registered_form(champion.path, None, workspace.internal) as folder:
        version = register(
            name,
            folder,
            digest=champion.pin["digest"],
            tags={"origin": str(config.promote.first_champion), VERDICT_TAG: THIRD_PARTY},
            uri=target.uri,
            experiment=target.experiment,
            artifact_root=target.artifact_root,
        )
    promote(
        name,
        version,
        alias,
        reason="first champion, from outside",
        by=f"run {run}",
        expect=NOTHING,
        uri=target.uri,
    )
    return Champion({"version": version, "digest": champion.pin["digest"]}, champion.path)


def _downloaded(champion: ChampionRef, uri: str, workspace: Workspace) -> Path:
    """Download a champion whose files are on another machine, once for each registry and version."""
    from embedline.registry.download import downloaded

    identity = hashlib.sha256((champion.digest or uri).encode()).hexdigest()[:12]
    folder = workspace.internal / "champions" / f"{champion.name}-{champion.version}-{identity}"
    return downloaded(champion.name, champion.version, folder, uri=uri)
