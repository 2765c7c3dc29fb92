"""The start of a run for a new train key: only one run, also when several processes try at once."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedline.artifacts.workspace import Workspace
from embedline.config.load import load_config
from embedline.config.registry import TrackingConfig
from embedline.errors import InputError
from embedline.orchestration.server import connect, list_all
from embedline.planning.data_lock import fingerprint
from embedline.registry.claims import Claims
from embedline.registry.tracking_target import tracking_target
from embedline.registry.trained import version_with_key

WITHDRAWN = "withdrawn"
_ENDED = {"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED", "CANCELING"}
_POLL_S = 0.5


def start_with_key(
    preset: str,
    overrides: Sequence[str],
    work: Path,
    data_manifest: Path | None,
    start: Callable[[str], dict[str, str]],
    *,
    anyway: bool,
    host: str,
    namespace: str | None = None,
) -> dict[str, str]:
    """Start a run with the preset's current train key, as `start_if_new` does.

    Args:
        work: folder for generated data that the key needs (the demo's).
        data_manifest: replaces data and models that are not on this machine.
        start: creates a run with the given train key.
        anyway: start also when a version or a run has the key already.

    Returns:
        The run (`what`, `id`, `url`) or the reason why none was started (`because`, `text`), and `train_key`.
    """
    config = load_config(preset, overrides)
    key = fingerprint(preset, overrides, work, data_manifest).train_key
    if anyway:
        return {**start(key), "train_key": key}
    name, uri = config.promote.model or config.name, _registry(config.tracking, work)
    made = start_if_new(key, lambda: start(key), name=name, uri=uri, host=host, namespace=namespace)
    return {**made, "train_key": key}


@dataclass(frozen=True)
class Holder:
    """A registered version or an active run that has a train key."""

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
    """Start a run, or return what has the key: the newest version of `name` with it, or an active run.

    Runs hold their key in their description. The pipelines server accepts the same run twice, so a claim in
    the tracking store decides which process may start one. The claim is read before anything else and written
    last: a run started under an earlier claim is visible then, and two processes cannot take the same number.

    Args:
        start: creates the run and returns its `what`, `id` and `url`.
        uri: tracking store with the registry.

    Raises:
        InputError, EmbedlineError: a server refuses or fails. The claim is withdrawn.
    """
    claims = Claims(uri, name)
    with connect(host, namespace) as client:
        while True:
            newest = claims.newest(key)
            if holder := _holder(client, key, name, uri, namespace):
                skipped = {"what": "skipped", "id": holder.id, "url": ""}
                return {**skipped, "because": holder.what, "text": holder.text}
            if newest and newest.pending:
                time.sleep(_POLL_S)  # its process will start a run or withdraw
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
    """Look for runs before versions: a run that ends in between has registered its version."""
    if run := active_run(client, key, namespace):
        text = f"run {run.display_name} ({run.run_id}) is training this already"
        return Holder("run", run.run_id, text)
    if version := version_with_key(name, key, uri=uri):
        return Holder("version", str(version), f"version {version} of {name} was made from this already")
    return None


def active_run(client: Any, key: str, namespace: str | None = None) -> Any:
    """Return a run that has the key in its description and has not ended; None when there is none."""
    has_key = {"operation": "IS_SUBSTRING", "key": "description", "stringValue": key}
    filter_json = json.dumps({"predicates": [has_key]})
    runs = list_all(client.list_runs, "runs", namespace=namespace, filter=filter_json)
    active = (run for run in runs if run.state not in _ENDED and run.storage_state != "ARCHIVED")
    return next(active, None)


def _registry(config: TrackingConfig, work: Path) -> str:
    if not config.uri and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise InputError(  # a database on this machine does not hold the cluster's versions
            "--if-changed needs the address of the cluster's tracking server.",
            fix="Set MLFLOW_TRACKING_URI or tracking.uri.",
        )
    return tracking_target(config, Workspace(work)).uri
