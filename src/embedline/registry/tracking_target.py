"""Where a run's tracker is, and the replay of the run's spools to it."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from embedline.artifacts.record import write_json
from embedline.artifacts.workspace import Workspace
from embedline.config.registry import TrackingConfig
from embedline.config.secrets import refuse_password, resolve_secret
from embedline.errors import EmbedlineError
from embedline.registry.server import default_uri
from embedline.registry.tracking import RunMirror

TRACKING = "tracking.json"
_log = logging.getLogger(__name__)
_silent: set[str] = set()


@dataclass(frozen=True)
class TrackingPlace:
    """A tracking server (or database), the experiment, and where a new experiment keeps its artefacts.

    `token` is the reference to a secret (tracking.token), never the secret: this is written to tracking.json.
    """

    uri: str
    experiment: str
    artifact_root: str | None = None
    token: str = ""

    def sign_in(self) -> None:
        """Hand the token to mlflow, which reads it from the environment of this process."""
        if self.token:
            os.environ["MLFLOW_TRACKING_TOKEN"] = resolve_secret(self.token, where="tracking.token")

    def mirror(self) -> RunMirror:
        self.sign_in()
        return RunMirror(self.uri, self.experiment, self.artifact_root)


def tracking_place(config: TrackingConfig, place: Workspace) -> TrackingPlace:
    """tracking.uri, else MLFLOW_TRACKING_URI, else a database in the workspace; signed in with its token.

    Raises:
        InputError: the address holds a password, or there is no such secret.
    """
    ambient = os.environ.get("MLFLOW_TRACKING_URI")
    uri = config.uri or ambient or default_uri(place.internal / "tracking")
    refuse_password(uri, where="tracking.uri" if config.uri else "MLFLOW_TRACKING_URI")
    found = TrackingPlace(uri, config.experiment, token=config.token)
    found.sign_in()
    return found


def write_tracking(run_folder: Path, found: TrackingPlace) -> None:
    write_json(run_folder / TRACKING, asdict(found))


def read_tracking(run_folder: Path) -> TrackingPlace | None:
    """What preflight found; None when the run never got that far."""
    path = run_folder / TRACKING
    return TrackingPlace(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def mirror_run(place: Workspace, run: str) -> None:
    """Send what the run's spools hold beyond what was sent.

    A server that is down is mentioned once a process; the spools keep everything for the next replay.
    """
    folder = place.run_folder(run)
    found = read_tracking(folder)
    if found is None:
        return
    try:
        found.mirror().replay(folder, run)
    except (EmbedlineError, OSError) as error:
        complain_once(found.uri, error)


def complain_once(uri: str, error: Exception) -> None:
    if uri not in _silent:
        _silent.add(uri)
        _log.warning("%s The run goes on; its metrics stay in the spool until the server answers.", error)
