"""Start a run for a train key unless something has it already, and one run only, however many ask at once."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from embedline.errors import InputError
from embedline.orchestration.server import connect
from embedline.registry.claims import Claims
from embedline.registry.trained import version_with_key

WITHDRAWN = "withdrawn"
_ENDED = {"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED", "CANCELING"}
_POLL_S = 0.5


@dataclass(frozen=True)
class Holder:
    """What has a key already: a registered version or an active run."""

    what: str
    id: str
    text: str


def start_if_new(
    key: str,
    start: Callable[[], dict[str, str]],
    *,
    name: str,
    uri: str,
    host: str,
    namespace: str | None = None,
) -> dict[str, str]:
    """Start a run, or say what has the key: the newest version of `name` with it, or an active run.

    Runs carry their key in their description. The pipelines server takes the same run twice, so who may start
    one is decided by a claim in the tracking store. A claim is read before anything else and written last: a
    run started under an earlier claim is there to be seen, and two cannot take the same number.

    Args:
        start: creates the run and returns its `what`, `id` and `url`.
        uri: the tracking store with the registry.

    Raises:
        InputError, EmbedlineError: a server refuses or fails. The claim is given back.
    """
    claims = Claims(uri, name)
    with connect(host, namespace) as client:
        while True:
            newest = claims.newest(key)
            if held := _holder(client, key, name, uri, namespace):
                return {"what": "skipped", "id": held.id, "url": "", "because": held.what, "text": held.text}
            if newest and newest.pending:
                time.sleep(_POLL_S)  # its holder is about to start a run, or to give up
                continue
            number = newest.number + 1 if newest else 0
            if claims.take(key, number, by=f"{platform.node()}:{os.getpid()}"):
                return _start(claims, key, number, start)


def _start(claims: Claims, key: str, number: int, start: Callable[[], dict[str, str]]) -> dict[str, str]:
    try:
        made = start()
    except BaseException:
        claims.settle(key, number, WITHDRAWN)
        raise
    claims.settle(key, number, made["id"])
    return made


def _holder(client: Any, key: str, name: str, uri: str, namespace: str | None) -> Holder | None:
    """Runs are looked at before versions: what ends in between has registered its version."""
    if run := active_run(client, key, namespace):
        text = f"run {run.display_name} ({run.run_id}) is training this already"
        return Holder("run", run.run_id, text)
    if version := version_with_key(name, key, uri=uri):
        return Holder("version", str(version), f"version {version} of {name} was made from this already")
    return None


def active_run(client: Any, key: str, namespace: str | None = None) -> Any:
    """A run that has the key in its description and has not ended; None when there is none."""
    wanted = [{"operation": "IS_SUBSTRING", "key": "description", "stringValue": key}]
    page = ""
    while True:
        found = client.list_runs(
            page_token=page, page_size=100, namespace=namespace, filter=json.dumps({"predicates": wanted})
        )
        for run in found.runs or []:
            if run.state not in _ENDED and run.storage_state != "ARCHIVED":
                return run
        page = found.next_page_token
        if not page:
            return None


def registry_of(configured: str) -> str:
    """The tracking store that decides what is trained already: the preset's, else MLFLOW_TRACKING_URI.

    Raises:
        InputError: neither is set; a database on this machine would know nothing of the cluster's runs.
    """
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise InputError(
            "--if-changed asks the cluster's tracking server what was trained.",
            fix="Set MLFLOW_TRACKING_URI or tracking.uri.",
        )
    return uri
