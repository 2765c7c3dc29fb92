"""The commands `webhook add`, `list`, `remove` and `test`: calls to a receiver when an alias moves."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from embedline.cli.shared import WORK, AsJson, Debug, Uri, Work, command, show
from embedline.cli.work_folder import tracking_uri
from embedline.config.secrets import refuse_password, resolve_secret

if TYPE_CHECKING:
    from embedline.registry.webhooks import Webhook

app = typer.Typer(
    help="Manage webhooks: the MLflow server calls an address, such as a deployer's, when an alias moves.",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the webhook.")]


@app.command()
@command
def add(
    name: Name,
    url: Annotated[str, typer.Argument(metavar="URL", help="Address to call.")],
    secret: Annotated[
        str,
        typer.Option(metavar="env:NAME|secret:NAME/KEY", help="Key that signs the calls: where to read it."),
    ],
    work: Work = WORK,
    uri: Uri = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Add a webhook: a signed call to an address whenever an alias of a registered model moves."""
    from embedline.registry.webhooks import add_webhook

    refuse_password(url, where="URL")
    key = resolve_secret(secret, where="--secret")
    _print_webhook(add_webhook(name, url, key, uri=tracking_uri(uri, work)), as_json)


@app.command("list")
@command
def list_all(work: Work = WORK, uri: Uri = "", as_json: AsJson = False, debug: Debug = False) -> None:
    """List the server's webhooks."""
    from embedline.registry.webhooks import list_webhooks

    webhooks = list_webhooks(uri=tracking_uri(uri, work))
    if as_json:
        show([asdict(webhook) for webhook in webhooks])
        return
    if not webhooks:
        typer.echo("no webhooks")
    for webhook in webhooks:
        _print_webhook(webhook, False)


@app.command()
@command
def remove(
    name: Name, work: Work = WORK, uri: Uri = "", as_json: AsJson = False, debug: Debug = False
) -> None:
    """Remove a webhook."""
    from embedline.registry.webhooks import remove_webhook

    _print_webhook(remove_webhook(name, uri=tracking_uri(uri, work)), as_json)


@app.command("test")
@command
def send_example(
    name: Name, work: Work = WORK, uri: Uri = "", as_json: AsJson = False, debug: Debug = False
) -> None:
    """Make the server send an example call now, and print the receiver's HTTP status."""
    from embedline.registry.webhooks import try_webhook

    status = try_webhook(name, uri=tracking_uri(uri, work))
    if as_json:
        show({"name": name, "status": status})
    else:
        typer.echo(f"{name}: the receiver answered {status}")


def _print_webhook(webhook: Webhook, as_json: bool) -> None:
    if as_json:
        show(asdict(webhook))
        return
    state = "" if webhook.active else " (disabled)"
    typer.echo(f"{webhook.name}: {', '.join(webhook.events)} → {webhook.url}{state}")
