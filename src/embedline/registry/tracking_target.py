"""Tracking target of a run (server and experiment), and the replay of the run's spools to it."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from embedline.artifacts.durable import write_json
from embedline.artifacts.workspace import FORMAT, Workspace
from embedline.config.registry import TrackingConfig
from embedline.config.secrets import refuse_password, resolve_secret
from embedline.errors import EmbedlineError
from embedline.registry.server import absolute, default_uri
from embedline.registry.tracking import RunMirror

TRACKING = "tracking.json"
_log = logging.getLogger(__name__)
_warned: set[str] = set()


@dataclass(frozen=True)
class TrackingTarget:
    """A tracking server (or database), the experiment, and where a new experiment keeps its artefacts.

    `token` is the reference to a secret (tracking.token), never the secret: this is written to tracking.json.
    """

    uri: str
    experiment: str
    artifact_root: str | None = None
    token: str = ""

    def sign_in(self) -> None:
        """Put the token into the environment of this process, where mlflow reads it."""
        if self.token:
            os.environ["MLFLOW_TRACKING_TOKEN"] = resolve_secret(self.token, where="tracking.token")

    def mirror(self) -> RunMirror:
        """Sign in and return the mirror of runs there."""
        self.sign_in()
        return RunMirror(self.uri, self.experiment, self.artifact_root)


def tracking_target(config: TrackingConfig, workspace: Workspace) -> TrackingTarget:
    """Choose the tracking server and sign in with its token.

    It is tracking.uri, else MLFLOW_TRACKING_URI, else a database in the workspace.

    Raises:
        InputError: the address holds a password, or there is no such secret.
    """
    ambient = os.environ.get("MLFLOW_TRACKING_URI")
    uri = absolute(config.uri or ambient or "") or default_uri(workspace.internal / "tracking")
    refuse_password(uri, where="tracking.uri" if config.uri else "MLFLOW_TRACKING_URI")
    target = TrackingTarget(uri, config.experiment, token=config.token)
    target.sign_in()
    return target


def write_tracking(run_folder: Path, target: TrackingTarget) -> None:
    """Write a run's target to tracking.json, which all its steps read."""
    uri = Workspace(run_folder.resolve().parent).uri_reference(target.uri)
    write_json(run_folder / TRACKING, {"format": FORMAT, **asdict(target), "uri": uri})


def read_tracking(run_folder: Path) -> TrackingTarget | None:
    """Read the target that preflight wrote; None when preflight did not get that far."""
    path = run_folder / TRACKING
    if not path.is_file():
        return None
    value = json.loads(path.read_text(encoding="utf-8"))
    written_as = value.pop("format", 1)
    uri = Workspace(run_folder.resolve().parent).locate_uri(value.pop("uri"), written_as)
    return TrackingTarget(uri, **value)


def mirror_run(workspace: Workspace, run: str) -> None:
    """Send the unsent part of the run's spools to its target.

    A server that is down is logged once per process; the spools keep everything for the next replay.
    """
    folder = workspace.run_folder(run)
    target = read_tracking(folder)
    if target is None:
        return
    try:
        target.mirror().replay(folder, run)
    except (EmbedlineError, OSError) as error:
        warn_once(target.uri, error)


def warn_once(uri: str, error: Exception) -> None:
    """Log a failure of the server at `uri`, once per process."""
    if uri not in _warned:
        _warned.add(uri)
        _log.warning("%s The run continues; its metrics stay in the spool until the server answers.", error)
