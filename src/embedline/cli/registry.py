"""promote, rollback: move the champion's alias by hand."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedline.cli.shared import WORK, AsJson, Debug, Uri, Work, command, show

if TYPE_CHECKING:
    from embedline.registry.promotion import Promotion

Name = Annotated[str, typer.Argument(help="Registered model (by default a preset's name).")]
Alias = Annotated[str, typer.Option(help="The alias that moves.")]


@command
def promote(
    name: Name,
    version: Annotated[int, typer.Argument(min=1, help="Version that becomes champion.")],
    alias: Alias = "champion",
    reason: Annotated[str, typer.Option(help="Kept in the ledger of promotions.")] = "by hand",
    work: Work = WORK,
    uri: Uri = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Point the champion's alias at a version; the old one stays under previous_champion."""
    from embedline.registry import promotion

    _tell(promotion.promote(name, version, alias, reason=reason, uri=tracker(uri, work)), as_json)


@command
def rollback(
    name: Name,
    alias: Alias = "champion",
    reason: Annotated[str, typer.Option(help="Kept in the ledger of promotions.")] = "rollback by hand",
    work: Work = WORK,
    uri: Uri = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Point the champion's alias back at the version before; a second rollback undoes the first."""
    from embedline.registry import promotion

    _tell(promotion.rollback(name, alias, reason=reason, uri=tracker(uri, work)), as_json)


def tracker(uri: str, work: Path) -> str:
    """The tracking address that a command means, after it has answered."""
    from embedline.config.outcome import TrackingConfig
    from embedline.registry.tracking import prepare
    from embedline.steps.base import Workspace
    from embedline.steps.tracking import tracking_place

    found = tracking_place(TrackingConfig(uri=uri), Workspace(work)).uri
    prepare(found)
    return found


def _tell(moved: Promotion, as_json: bool) -> None:
    if as_json:
        show(asdict(moved))
    else:
        typer.echo(moved.text)
