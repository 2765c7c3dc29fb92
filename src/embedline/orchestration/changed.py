"""Start a run for a train key unless something has it already, and one run only, however many ask at once."""

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
from embedline.orchestration.server import connect, every
from embedline.planning.data_lock import fingerprint
from embedline.registry.claims import Claims
from embedline.registry.tracking_target import tracking_place
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
    """Start a run that carries the train key of the preset as it is now, as `start_if_new` does.

    Args:
        work: folder for what has to be made in order to be digested (the demo's data).
        data_manifest: stands for data and models that are not on this machine.
        start: creates a run with the given train key.
        anyway: also when something has the key already.

    Returns:
        What the run is, or what made it unnecessary (`because`, `text`), and the `train_key`.
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
    named = {"operation": "IS_SUBSTRING", "key": "description", "stringValue": key}
    found = every(client.list_runs, "runs", namespace=namespace, filter=json.dumps({"predicates": [named]}))
    active = (run for run in found if run.state not in _ENDED and run.storage_state != "ARCHIVED")
    return next(active, None)


def _registry(config: TrackingConfig, work: Path) -> str:
    if not config.uri and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise InputError(  # a database on this machine would know nothing of the cluster's runs
            "--if-changed asks the cluster's tracking server what is trained already.",
            fix="Set MLFLOW_TRACKING_URI or tracking.uri.",
        )
    return tracking_place(config, Workspace(work)).uri
