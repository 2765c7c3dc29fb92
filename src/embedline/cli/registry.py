"""The commands `promote`, `rollback`, `history` and `reconcile`: the champion of a registered model."""

from __future__ import annotations

import getpass
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from embedline.cli.shared import (
    WORK,
    Alias,
    AsJson,
    By,
    Debug,
    Expect,
    Reason,
    RegisteredModel,
    Uri,
    Work,
    command,
    show,
)
from embedline.cli.work_folder import tracking_uri
from embedline.config.secrets import refuse_password, resolve_secret
from embedline.errors import InputError

if TYPE_CHECKING:
    from embedline.registry.promotion import Promotion

_CI_USERS = ("GITHUB_ACTOR", "GITLAB_USER_LOGIN")


@command
def promote(
    name: RegisteredModel,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="Version to promote.")],
    alias: Alias = "champion",
    reason: Reason = "by hand",
    by: By = "",
    expect: Expect = "",
    to_uri: Annotated[
        str, typer.Option(help="Copy the version to this other registry and promote it there.")
    ] = "",
    to_name: Annotated[
        str, typer.Option(help="Name of the model in the other registry; without it the same name.")
    ] = "",
    to_token: Annotated[
        str,
        typer.Option(metavar="env:NAME|secret:NAME/KEY", help="Bearer token of the other registry."),
    ] = "",
    work: Work = WORK,
    uri: Uri = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make a version the champion that passed the gate, or that was not judged; the history names which.

    Exit code 3: the gate refused the version. Exit code 4: the champion is not the expected one, by default
    the one that the gate compared this version with under this alias.
    """
    from embedline.registry import promotion

    by, expected, here = by or current_user(), _expected(expect), tracking_uri(uri, work)
    if not to_uri:
        if to_name or to_token:
            raise InputError("need --to-uri, which is not given.", where="--to-name and --to-token")
        moved = promotion.promote(name, version, alias, reason=reason, by=by, uri=here, expect=expected)
    else:
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
            by=by,
            expect=expected,
        )
    _print_promotion(moved, as_json)


@command
def rollback(
    name: RegisteredModel,
    alias: Alias = "champion",
    reason: Reason = "rollback by hand",
    by: By = "",
    expect: Expect = "",
    work: Work = WORK,
    uri: Uri = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Move the champion's alias back to the previous version; a second rollback undoes the first."""
    from embedline.registry import promotion

    moved = promotion.rollback(
        name,
        alias,
        reason=reason,
        by=by or current_user(),
        expect=_expected(expect),
        uri=tracking_uri(uri, work),
    )
    _print_promotion(moved, as_json)


@command
def history(
    name: RegisteredModel, work: Work = WORK, uri: Uri = "", as_json: AsJson = False, debug: Debug = False
) -> None:
    """List all promotions and rollbacks of a model, oldest first, with user and reason."""
    from embedline.registry import promotion
    from embedline.registry.alias_state import version_text
    from embedline.registry.versions import NOT_JUDGED

    generations = promotion.history(name, uri=tracking_uri(uri, work))
    if as_json:
        show(
            [
                {"number": g.number, "done": g.done, "when": g.entry.when, **asdict(g.entry)}
                for g in generations
            ]
        )
        return
    if not generations:
        typer.echo(f"{name}: no version was promoted yet")
    for g in generations:
        entry, cut = g.entry, "" if g.done else "  (not completed)"
        moved = f"{entry.alias}: {version_text(entry.previous)} → {version_text(entry.version)}"
        unjudged = f"  ({NOT_JUDGED})" if entry.verdict == NOT_JUDGED else ""
        typer.echo(
            f"{g.number:>4}  {entry.when}  {entry.kind:<9}{moved}  by {entry.by or '?'}{unjudged}{cut}"
        )
        if entry.reason:
            typer.echo(f"      {entry.reason}")


@command
def reconcile(
    name: RegisteredModel,
    alias: Alias = "champion",
    accept: Annotated[
        bool, typer.Option("--accept", help="If the alias was moved by other means, keep it there.")
    ] = False,
    restore: Annotated[
        bool, typer.Option("--restore", help="If the alias was moved by other means, move it back.")
    ] = False,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds after which an unfinished upload counts as abandoned.")
    ] = 3600.0,
    by: By = "",
    work: Work = WORK,
    uri: Uri = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """Complete or undo promotions that a crash interrupted.

    Exit code 4: an alias was moved by other means, and neither --accept nor --restore is given.
    """
    from embedline.registry.reconcile import reconcile as reconcile_aliases

    if accept and restore:
        raise InputError("exclude each other.", where="--accept and --restore", fix="Give one of them.")
    result = reconcile_aliases(
        name,
        alias,
        uri=tracking_uri(uri, work),
        by=by or current_user(),
        accept=accept,
        restore=restore,
        grace_s=grace,
    )
    if as_json:
        show(asdict(result))
    else:
        for line in [*result.done, *result.undecided] or [f"{name}: nothing to do"]:
            typer.echo(line)
    return 4 if result.undecided else 0


def show_model(name: str, uri: str, as_json: bool) -> int:
    """Print the aliases of one model (`embedline status NAME`); return 4 when there is drift to reconcile."""
    from embedline.registry.overview import overview

    model = overview(name, uri=uri)
    if as_json:
        show(asdict(model))
    else:
        if not model.aliases:
            typer.echo(f"{name}: no champion yet")
        for alias, at in model.aliases.items():
            details = [f"verdict {at.verdict}"] if at.verdict else []
            details += [f"index {at.index_version}"] if at.index_version else []
            details += [f"run {at.run_id}"] if at.run_id else []
            typer.echo(f"{alias}: version {at.version}" + (f" ({', '.join(details)})" if details else ""))
        for line in model.drift:
            typer.echo(line)
    return 4 if model.drift else 0


def current_user() -> str:
    """Name the user for the history: the user that a CI job runs for, else this machine's."""
    for name in _CI_USERS:
        if user := os.environ.get(name):
            return user
    return getpass.getuser()


def _expected(text: str) -> str | None:
    """Read --expect: a version, `none`, or nothing."""
    if text and text != "none" and not text.isdigit():
        raise InputError(f"{text!r} is neither a version nor none.", where="--expect")
    return text or None


def _print_promotion(moved: Promotion, as_json: bool) -> None:
    if as_json:
        show(asdict(moved))
    else:
        typer.echo(moved.text)
