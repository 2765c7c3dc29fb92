"""Webhooks of the registry: a signed notification to a deployer that an alias has moved.

MLflow delivers from memory with three retries, so a notification can be lost: a deployer must also read the
alias from time to time.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedline.errors import EmbedlineError, InputError, first_line
from embedline.registry.server import client, error_code, tracking_errors

if TYPE_CHECKING:
    from mlflow.entities.webhook import Webhook as MlflowWebhook
    from mlflow.entities.webhook import WebhookEventStr

EVENTS: tuple[WebhookEventStr, ...] = ("model_version_alias.created", "model_version_alias.deleted")
_SIGNATURE, _TIMESTAMP, _DELIVERY = "x-mlflow-signature", "x-mlflow-timestamp", "x-mlflow-delivery-id"


@dataclass(frozen=True)
class Webhook:
    """A webhook as the server returns it: without its secret."""

    id: str
    name: str
    url: str
    events: list[str]
    active: bool


class SignatureError(EmbedlineError):
    """A delivery without a valid signature."""


def verify(
    headers: Mapping[str, str],
    body: bytes,
    secret: str,
    *,
    tolerance_s: float = 300.0,
    now: float | None = None,
) -> dict[str, Any]:
    """Check the signature of a delivery and return its content.

    Args:
        headers: headers of the request, in upper or lower case.
        body: body of the request, byte for byte.
        tolerance_s: greatest age of a delivery (seconds); an older one is a replay.
        now: seconds since the epoch, the clock's by default.

    Raises:
        SignatureError: unsigned, signed with another secret, changed on its way, or too old.
        InputError: `secret` is empty: anyone could sign with it.
    """
    if not secret:
        raise InputError("the secret that deliveries are signed with is empty.")
    given = {key.lower(): value for key, value in headers.items()}
    delivery, stamp = given.get(_DELIVERY, ""), given.get(_TIMESTAMP, "")
    version, _, signature = given.get(_SIGNATURE, "").partition(",")
    if version != "v1" or not delivery or not stamp.isdigit():
        raise SignatureError("the delivery is not signed.")
    signed = f"{delivery}.{stamp}.".encode(errors="replace") + body
    expected = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    try:
        sent = base64.b64decode(signature, validate=True)
    except ValueError:  # not base64, or not even ASCII
        sent = b""
    if not hmac.compare_digest(expected, sent):
        raise SignatureError("the delivery is signed with another secret, or was changed on its way.")
    if abs((time.time() if now is None else now) - int(stamp)) > tolerance_s:
        raise SignatureError(f"the delivery is more than {tolerance_s:.0f} s old.")
    content: dict[str, Any] = json.loads(body)
    return content


def add_webhook(name: str, url: str, secret: str, *, uri: str) -> Webhook:
    """Make the server call `url` whenever an alias moves; an existing webhook of this name is changed.

    The server calls for every registered model; the receiver filters by `data.name`.

    Raises:
        InputError: the server does not accept the address.
        TrackingError: the server failed.
    """
    from mlflow.exceptions import MlflowException

    with tracking_errors(uri):
        opened = client(uri)
        try:
            if known := _find(uri, name):
                made = opened.update_webhook(known.id, url=url, events=list(EVENTS), secret=secret)
            else:
                made = opened.create_webhook(name, url, list(EVENTS), secret=secret)
        except MlflowException as error:
            if error_code(error) != "INVALID_PARAMETER_VALUE":
                raise
            raise InputError(
                f"the server does not accept this address ({first_line(error)}).",
                where=url,
                fix="Use https and a public address, or have the server's operator allow others.",
            ) from error
        return _webhook(made)


def list_webhooks(*, uri: str) -> list[Webhook]:
    """Return every webhook of the server."""
    with tracking_errors(uri):
        opened, token = client(uri), None
        webhooks: list[Webhook] = []
        while True:
            page = opened.list_webhooks(max_results=100, page_token=token)
            webhooks.extend(_webhook(each) for each in page)
            token = page.token
            if not token:
                return webhooks


def remove_webhook(name: str, *, uri: str) -> Webhook:
    """Remove a webhook and return it.

    Raises:
        InputError: there is no webhook of this name.
    """
    known = _require(uri, name)
    with tracking_errors(uri):
        client(uri).delete_webhook(known.id)
    return known


def try_webhook(name: str, *, uri: str) -> int:
    """Make the server send an example now; return the receiver's HTTP status.

    Raises:
        InputError: there is no webhook of this name.
        EmbedlineError: the receiver did not answer, or refused.
    """
    known = _require(uri, name)
    with tracking_errors(uri):
        result = client(uri).test_webhook(known.id)
    if not result.success:
        reason = result.error_message or f"status {result.response_status}"
        raise EmbedlineError(f"the receiver did not accept the delivery ({reason}).", where=known.url)
    return int(result.response_status or 0)


def _require(uri: str, name: str) -> Webhook:
    known = _find(uri, name)
    if known is None:
        raise InputError(f"there is no webhook {name!r}.", where=uri, fix="List them: embedline webhook list")
    return known


def _find(uri: str, name: str) -> Webhook | None:
    return next((webhook for webhook in list_webhooks(uri=uri) if webhook.name == name), None)


def _webhook(webhook: MlflowWebhook) -> Webhook:
    events = [str(event) for event in webhook.events]
    return Webhook(webhook.webhook_id, webhook.name, webhook.url, events, webhook.status.is_active())
