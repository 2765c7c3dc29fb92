"""webhook add, list, remove, test: have the registry call a deployer when an alias moves."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from embedline.cli.shared import WORK, AsJson, Debug, Uri, Work, command, show

if TYPE_CHECKING:
    from embedline.registry.webhooks import Webhook

app = typer.Typer(help="Have the registry call a deployer when an alias moves.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The webhook's name.")]


@app.command()
@command
def add(
    name: Name,
    url: Annotated[str, typer.Argument(help="Address of the receiver.")],
    secret: Annotated[
        str,
        typer.Option(
            metavar="env:NAME|secret:NAME/KEY", help="Where the key that signs deliveries is found."
        ),
    ],
    work: Work = WORK,
    uri: Uri = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Call an address, with a signature, whenever an alias of a registered model moves."""
    from embedline.cli.registry import tracker
    from embedline.config.secrets import refuse_password, resolve_secret
    from embedline.registry.webhooks import add_webhook

    refuse_password(url, where="URL")
    key = resolve_secret(secret, where="--secret")
    _tell(add_webhook(name, url, key, uri=tracker(uri, work)), as_json)


@app.command("list")
@command
def list_all(work: Work = WORK, uri: Uri = "", as_json: AsJson = False, debug: Debug = False) -> None:
    """List the server's webhooks."""
    from embedline.cli.registry import tracker
    from embedline.registry.webhooks import list_webhooks

    found = list_webhooks(uri=tracker(uri, work))
    if as_json:
        show([asdict(webhook) for webhook in found])
        return
    if not found:
        typer.echo("no webhooks")
    for webhook in found:
        _tell(webhook, False)


@app.command()
@command
def remove(
    name: Name, work: Work = WORK, uri: Uri = "", as_json: AsJson = False, debug: Debug = False
) -> None:
    """Remove a webhook."""
    from embedline.cli.registry import tracker
    from embedline.registry.webhooks import remove_webhook

    _tell(remove_webhook(name, uri=tracker(uri, work)), as_json)


@app.command("test")
@command
def send_example(
    name: Name, work: Work = WORK, uri: Uri = "", as_json: AsJson = False, debug: Debug = False
) -> None:
    """Have the server send an example now, and say what the receiver answered."""
    from embedline.cli.registry import tracker
    from embedline.registry.webhooks import try_webhook

    status = try_webhook(name, uri=tracker(uri, work))
    if as_json:
        show({"name": name, "status": status})
    else:
        typer.echo(f"{name}: the receiver answered {status}")


def _tell(webhook: Webhook, as_json: bool) -> None:
    if as_json:
        show(asdict(webhook))
        return
    state = "" if webhook.active else " (disabled)"
    typer.echo(f"{webhook.name}: {', '.join(webhook.events)} → {webhook.url}{state}")
