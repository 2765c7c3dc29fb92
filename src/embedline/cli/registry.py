"""promote, rollback, history, reconcile: the champion of a registered model."""

from __future__ import annotations

import getpass
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedline.cli.shared import WORK, AsJson, Debug, Uri, Work, command, show
from embedline.errors import InputError

if TYPE_CHECKING:
    from embedline.registry.promotion import Promotion

Name = Annotated[str, typer.Argument(help="Registered model (by default a preset's name).")]
Alias = Annotated[str, typer.Option(help="The alias that moves.")]
By = Annotated[str, typer.Option("--by", help="Who; else the CI's actor, else the user of this machine.")]
Expect = Annotated[
    str, typer.Option("--expect", metavar="VERSION|none", help="Refuse unless this is the champion now.")
]
_ACTORS = ("GITHUB_ACTOR", "GITLAB_USER_LOGIN")


@command
def promote(
    name: Name,
    version: Annotated[int, typer.Argument(min=1, help="Version that becomes champion.")],
    alias: Alias = "champion",
    reason: Annotated[str, typer.Option(help="Kept in the ledger of promotions.")] = "by hand",
    by: By = "",
    expect: Expect = "",
    to_uri: Annotated[str, typer.Option(help="Copy the version to this registry and promote it there.")] = "",
    to_name: Annotated[str, typer.Option(help="Its model's name there; the same when empty.")] = "",
    to_token: Annotated[
        str, typer.Option(metavar="env:NAME|secret:NAME/KEY", help="Bearer token of that registry.")
    ] = "",
    work: Work = WORK,
    uri: Uri = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make a version the champion: 3 the gate refused it, 4 the champion is not the expected one."""
    from embedline.registry import promotion

    who, expected, here = by or actor(), _expected(expect), tracker(uri, work)
    if not to_uri:
        if to_name or to_token:
            raise InputError("belong to --to-uri, which is not given.", where="--to-name and --to-token")
        moved = promotion.promote(name, version, alias, reason=reason, by=who, uri=here, expect=expected)
    else:
        from embedline.config.secrets import refuse_password, resolve_secret
        from embedline.registry.copy import promote_across

        refuse_password(to_uri, where="--to-uri")
        moved = promote_across(
            name,
            version,
            alias,
            uri=here,
            to_uri=to_uri,
            to_name=to_name,
            to_token=resolve_secret(to_token, where="--to-token") if to_token else "",
            reason=reason,
            by=who,
            expect=expected,
        )
    _tell(moved, as_json)


@command
def rollback(
    name: Name,
    alias: Alias = "champion",
    reason: Annotated[str, typer.Option(help="Kept in the ledger of promotions.")] = "rollback by hand",
    by: By = "",
    expect: Expect = "",
    work: Work = WORK,
    uri: Uri = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Point the champion's alias back at the version before; a second rollback undoes the first."""
    from embedline.registry import promotion

    moved = promotion.rollback(
        name, alias, reason=reason, by=by or actor(), expect=_expected(expect), uri=tracker(uri, work)
    )
    _tell(moved, as_json)


@command
def history(
    name: Name, work: Work = WORK, uri: Uri = "", as_json: AsJson = False, debug: Debug = False
) -> None:
    """List every move of a model's aliases, oldest first: when, who, what and why."""
    from embedline.registry import promotion
    from embedline.registry.alias_state import version_text

    generations = promotion.history(name, uri=tracker(uri, work))
    if as_json:
        show(
            [
                {"number": g.number, "done": g.done, "when": g.entry.when, **asdict(g.entry)}
                for g in generations
            ]
        )
        return
    if not generations:
        typer.echo(f"{name}: nothing was promoted yet")
    for g in generations:
        entry, cut = g.entry, "" if g.done else "  (not completed)"
        moved = f"{entry.alias}: {version_text(entry.previous)} → {version_text(entry.version)}"
        typer.echo(f"{g.number:>4}  {entry.when}  {entry.kind:<9}{moved}  by {entry.by or '?'}{cut}")
        if entry.reason:
            typer.echo(f"      {entry.reason}")


@command
def reconcile(
    name: Name,
    alias: Alias = "champion",
    accept: Annotated[bool, typer.Option("--accept", help="Keep an alias that was moved by hand.")] = False,
    restore: Annotated[
        bool, typer.Option("--restore", help="Put an alias that was moved by hand back.")
    ] = False,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds after which an upload without a version is abandoned.")
    ] = 3600.0,
    by: By = "",
    work: Work = WORK,
    uri: Uri = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """Complete or undo what a crash left half done; 4 when an alias was moved by hand and nobody decided."""
    from embedline.registry.reconcile import reconcile as settle

    if accept and restore:
        raise InputError("exclude each other.", where="--accept and --restore", fix="Give one of them.")
    result = settle(
        name, alias, uri=tracker(uri, work), by=by or actor(), accept=accept, restore=restore, grace_s=grace
    )
    if as_json:
        show(asdict(result))
    else:
        for line in [*result.done, *result.undecided] or [f"{name}: nothing to do"]:
            typer.echo(line)
    return 4 if result.undecided else 0


def show_model(name: str, uri: str, as_json: bool) -> int:
    """`embedline status NAME`: the aliases of one model; 4 when something is to be reconciled."""
    from embedline.registry.overview import overview

    found = overview(name, uri=uri)
    if as_json:
        show(asdict(found))
    else:
        if not found.aliases:
            typer.echo(f"{name}: no champion yet")
        for alias, at in found.aliases.items():
            told = [f"verdict {at.verdict}"] if at.verdict else []
            told += [f"index {at.index_version}"] if at.index_version else []
            told += [f"run {at.run_id}"] if at.run_id else []
            typer.echo(f"{alias}: version {at.version}" + (f" ({', '.join(told)})" if told else ""))
        for line in found.drift:
            typer.echo(line)
    return 4 if found.drift else 0


def tracker(uri: str, work: Path) -> str:
    """The tracking address that a command means, after it has answered."""
    from embedline.artifacts.workspace import Workspace
    from embedline.config.registry import TrackingConfig
    from embedline.registry.tracking import prepare
    from embedline.registry.tracking_target import tracking_target

    found = tracking_target(TrackingConfig(uri=uri), Workspace(work)).uri
    prepare(found)
    return found


def actor() -> str:
    """Who acts: the person a CI job runs for, else this machine's user."""
    for name in _ACTORS:
        if who := os.environ.get(name):
            return who
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's uid without a passwd entry
        return f"uid {os.getuid()}"


def _expected(text: str) -> str | None:
    if text and text != "none" and not text.isdigit():
        raise InputError(f"{text!r} is neither a version nor none.", where="--expect")
    return text or None


def _tell(moved: Promotion, as_json: bool) -> None:
    if as_json:
        show(asdict(moved))
    else:
        typer.echo(moved.text)
