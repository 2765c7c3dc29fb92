"""Webhooks of the registry: a signed note to a deployer that an alias has moved.

MLflow delivers from memory with three retries, so a note is a hint and can be lost: whoever deploys must also
look at the alias from time to time.
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
from embedline.registry.server import client, error_code, reaching

if TYPE_CHECKING:
    from mlflow.entities.webhook import Webhook as Known
    from mlflow.entities.webhook import WebhookEventStr

EVENTS: tuple[WebhookEventStr, ...] = ("model_version_alias.created", "model_version_alias.deleted")
_SIGNATURE, _TIMESTAMP, _DELIVERY = "x-mlflow-signature", "x-mlflow-timestamp", "x-mlflow-delivery-id"


@dataclass(frozen=True)
class Webhook:
    """What the server knows; it never gives the secret back."""

    id: str
    name: str
    url: str
    events: list[str]
    active: bool


class SignatureError(EmbedlineError):
    """A delivery that does not come from whoever knows the secret."""


def verify(
    headers: Mapping[str, str],
    body: bytes,
    secret: str,
    *,
    tolerance_s: float = 300.0,
    now: float | None = None,
) -> dict[str, Any]:
    """The content of a delivery that was signed with `secret`.

    Args:
        headers: of the request, in any case.
        body: as it came, byte for byte.
        tolerance_s: how old a delivery may be (seconds); an older one is a replay.
        now: seconds since the epoch, the clock's by default.

    Raises:
        SignatureError: unsigned, signed with another secret, changed on its way, or too old.
        InputError: `secret` is empty, and so known to everybody.
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
    """Have the server call `url` whenever an alias moves; a webhook of this name is changed, not doubled.

    The server calls for every registered model; the receiver picks its own by `data.name`.

    Raises:
        InputError: the server does not take the address.
        TrackingError: the server failed.
    """
    from mlflow.exceptions import MlflowException

    with reaching(uri):
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
                f"the server does not take this address ({first_line(error)}).",
                where=url,
                fix="It wants https and a public address unless its operator allows others.",
            ) from error
        return _told(made)


def list_webhooks(*, uri: str) -> list[Webhook]:
    """Every webhook of the server."""
    with reaching(uri):
        opened, page = client(uri), None
        found: list[Webhook] = []
        while True:
            some = opened.list_webhooks(max_results=100, page_token=page)
            found.extend(_told(webhook) for webhook in some)
            page = some.token
            if not page:
                return found


def remove_webhook(name: str, *, uri: str) -> Webhook:
    """Raises InputError when there is none of this name."""
    known = _require(uri, name)
    with reaching(uri):
        client(uri).delete_webhook(known.id)
    return known


def try_webhook(name: str, *, uri: str) -> int:
    """Have the server send an example now; returns the receiver's HTTP status.

    Raises:
        InputError: there is none of this name.
        EmbedlineError: the receiver did not answer, or refused.
    """
    known = _require(uri, name)
    with reaching(uri):
        result = client(uri).test_webhook(known.id)
    if not result.success:
        said = result.error_message or f"status {result.response_status}"
        raise EmbedlineError(f"the receiver did not take the delivery ({said}).", where=known.url)
    return int(result.response_status or 0)


def _require(uri: str, name: str) -> Webhook:
    known = _find(uri, name)
    if known is None:
        raise InputError(f"there is no webhook {name!r}.", where=uri, fix="embedline webhook list has them.")
    return known


def _find(uri: str, name: str) -> Webhook | None:
    return next((webhook for webhook in list_webhooks(uri=uri) if webhook.name == name), None)


def _told(webhook: Known) -> Webhook:
    events = [str(event) for event in webhook.events]
    return Webhook(webhook.webhook_id, webhook.name, webhook.url, events, webhook.status.is_active())
