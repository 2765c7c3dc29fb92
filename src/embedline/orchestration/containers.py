"""The steps in containers on this machine: how they are run, and what the engine says became of them.

kfp's runner can take a container that failed for one that succeeded: it asks for the exit code of a container
that the engine has already removed, and believes in success when there is none (kubeflow/pipelines#13332). So
the engine's own exit events are recorded beside it, and a run counts only when they agree.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedline.artifacts.workspace import HUB_CACHE
from embedline.components.image import IMAGE
from embedline.config.schema import RunConfig
from embedline.config.secrets import FOLDER, mounted_secrets, secret_variables, secrets_folder
from embedline.errors import InputError

EXITS = "containers.json"
LABEL = "embedline.run"
_SETTLE_S = 30.0
_FORWARDED = ("MLFLOW_", "AWS_", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "OMP_", "EMBEDLINE_DEBUG")
_SHARED_MEMORY = "1g"  # data loaders hand batches over in it


@dataclass(frozen=True)
class Containers:
    """How the steps of a run become containers: as whom, with which network, folders and environment."""

    workspace: Path
    user: str
    network: str
    readable: Sequence[Path]
    working_dir: Path
    environment: Mapping[str, str]

    def arguments(self, run_folder: Path) -> dict[str, Any]:
        """For kfp's `DockerRunner`, as plain JSON values.

        Nothing but the workspace can be written, /tmp excepted; no privilege, and by default no network.
        """
        mounts = [_mount(self.workspace, read_only=False)]
        mounts += [_mount(path, read_only=True) for path in self.readable]
        return {
            "user": self.user,
            "network_mode": self.network,
            "read_only": True,
            "tmpfs": {"/tmp": "rw,nosuid,nodev,mode=1777"},
            "shm_size": _SHARED_MEMORY,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "init": True,
            "labels": {LABEL: str(run_folder)},
            "mounts": mounts,
            "working_dir": str(self.working_dir),
            "environment": dict(self.environment),
        }


@dataclass(frozen=True)
class Exit:
    """One container of a run, as the engine recorded its end; `ended` in seconds since the epoch."""

    container: str
    exit_code: int
    ended: float


def plan_containers(config: RunConfig, preset: str, workspace: Path, network: str) -> Containers:
    """Find the engine, the image, the user and the folders for runs in `workspace`, a resolved path.

    Raises:
        InputError: no engine answers, the image is not there, or the workspace belongs to root.
    """
    with engine() as client:
        _require_image(client)
    readable, working_dir = _folders(config, preset, workspace)
    named = secret_variables(config)
    environment = {
        name: value for name, value in os.environ.items() if name.startswith(_FORWARDED) or name in named
    }
    environment["HF_HOME"] = str(workspace / HUB_CACHE)
    if secrets := mounted_secrets(config):
        environment[FOLDER] = str(secrets_folder().resolve())
        readable += [path for name in secrets if (path := secrets_folder().resolve() / name).is_dir()]
    if network == "none":
        environment["HF_HUB_OFFLINE"] = "1"
    owner = workspace.stat()
    if owner.st_uid == 0:
        raise InputError(
            "the work directory belongs to root, and containers never run as root.",
            where=str(workspace),
            fix=f"Give it to another user: chown -R 10001:10001 {workspace}",
        )
    user = f"{owner.st_uid}:{owner.st_gid}"
    return Containers(workspace, user, network, readable, working_dir, environment)


def pipeline_root(run_folder: Path) -> Path:
    """Where kfp keeps the steps' outputs: references, metrics and summaries, no artefacts."""
    return run_folder / ".kfp"


def hand_over(run_folder: Path, user: str) -> None:
    """Prepare a run's folder for the user that the containers run as, also when root drives them."""
    pipeline_root(run_folder).mkdir(exist_ok=True)  # else the engine makes it, as root
    if os.geteuid() == 0:
        uid, gid = (int(part) for part in user.split(":"))
        for path in (run_folder, *run_folder.rglob("*")):
            os.chown(path, uid, gid, follow_symlinks=False)


@contextlib.contextmanager
def engine() -> Iterator[Any]:
    """A client of the engine that DOCKER_HOST names, or the machine's own.

    Raises:
        InputError: there is none.
    """
    try:
        import docker
    except ImportError as error:
        raise InputError(
            "the docker package is not installed.", fix="pip install 'embedline[pipelines]'"
        ) from error
    where = os.environ.get("DOCKER_HOST", "the local Docker engine")
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        raise InputError("does not answer.", where=where, fix="Start Docker, or set DOCKER_HOST.") from error
    with contextlib.closing(client):
        yield client


class ExitWatch:
    """Collects the engine's exit events of one run's containers while the run goes on."""

    def __init__(self, run_folder: Path) -> None:
        self._folder = run_folder
        self._started: set[str] = set()
        self._exits: list[Exit] = []

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch from before the first container to after the last; writes containers.json."""
        with engine() as client:
            chosen = {"type": "container", "label": f"{LABEL}={self._folder}", "event": ["start", "die"]}
            events = client.events(decode=True, filters=chosen, since=int(time.time()))
            thread = threading.Thread(target=self._collect, args=(events,), daemon=True)
            thread.start()
            try:
                yield
            finally:
                deadline = time.monotonic() + _SETTLE_S
                while len(self._exits) < len(self._started) and time.monotonic() < deadline:
                    time.sleep(0.1)
                events.close()
                text = json.dumps([asdict(exit_) for exit_ in self._exits], indent=1)
                (self._folder / EXITS).write_text(text + "\n", encoding="utf-8")

    def complaint(self, tasks: int) -> str:
        """Why the engine's records do not bear out a success of `tasks` tasks; empty when they do."""
        fine = sum(exit_.exit_code == 0 for exit_ in self._exits)
        if fine == tasks and len(self._exits) == len(self._started):
            return ""
        codes = ", ".join(str(exit_.exit_code) for exit_ in self._exits)
        return (
            f"The engine saw {fine} containers end well, and the line has {tasks} steps "
            f"(exit codes in order: {codes or 'none'}; {EXITS} in the run's folder)."
        )

    def _collect(self, events: Any) -> None:
        # The stream ends by being closed from the other thread: whatever that raises is the end, no failure.
        with contextlib.suppress(Exception):
            for event in events:
                if event["Action"] == "start":
                    self._started.add(event["id"])
                elif event["Action"] == "die":
                    code = int(event["Actor"]["Attributes"]["exitCode"])
                    self._exits.append(Exit(event["id"][:12], code, event["timeNano"] / 1e9))


def stop_containers(run_folder: Path) -> None:
    """End every container of a run: they are the engine's children, not ours, and would outlive us."""
    import docker

    with contextlib.suppress(InputError, docker.errors.DockerException), engine() as client:
        for container in client.containers.list(all=True, filters={"label": f"{LABEL}={run_folder}"}):
            with contextlib.suppress(docker.errors.APIError):
                container.stop(timeout=3)
                container.remove(force=True)


def _require_image(client: Any) -> None:
    import docker

    try:
        client.images.get(IMAGE)
    except docker.errors.ImageNotFound as error:
        raise InputError(
            "this engine has no such image.",
            where=IMAGE,
            fix="Build it: make images. After a change of code: make lock images.",
        ) from error


def _folders(config: RunConfig, preset: str, workspace: Path) -> tuple[list[Path], Path]:
    """Folders outside the workspace that the run reads, each under its own name, and where it works."""
    found: list[Path] = []
    if Path(preset).suffix in {".yaml", ".yml"}:
        found.append(Path(preset).resolve().parent)
    root = config.data.root
    if root.startswith("demo:"):
        working_dir = found[0] if found else workspace
    else:
        working_dir = Path(root).expanduser().resolve() if root else (found[0] if found else Path.cwd())
        found.append(working_dir)
    named = [config.model.base, config.evaluate.mteb_root, config.promote.first_champion]
    named += [config.teacher.model if config.teacher else None]
    named += [item.path for item in config.data.sources]
    named += [item.path for item in config.data.corpus]
    named += [item.path for item in config.data.evaluation]
    for name in named:
        path = (working_dir / Path(name).expanduser()).resolve() if name else working_dir
        if path.exists():
            found.append(path if path.is_dir() else path.parent)
    kept: list[Path] = []
    for path in sorted(set(found)):
        if not any(path.is_relative_to(other) for other in (*kept, workspace)):
            kept.append(path)
    return kept, working_dir


def _mount(path: Path, *, read_only: bool) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(path), "Target": str(path), "ReadOnly": read_only}
