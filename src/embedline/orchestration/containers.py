"""Steps in containers on this machine: the containers' settings, and their exit codes from the engine.

kfp's runner can report a failed container as successful: it reads the exit code of a container that the
engine may have removed already, and takes a missing one for success (kubeflow/pipelines#13332). So the
engine's exit events are recorded too, and a run succeeds only when they agree.
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

from embedline.components.image import IMAGE
from embedline.config.schema import RunConfig
from embedline.config.secrets import FOLDER, mounted_secrets, secret_variables, secrets_folder
from embedline.environment import HUB_CACHE
from embedline.errors import InputError
from embedline.quoting import command_line, home_expanded

EXITS = "containers.json"
LABEL = "embedline.run"
_SETTLE_S = 30.0
_FORWARDED = ("MLFLOW_", "AWS_", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "OMP_", "EMBEDLINE_DEBUG")
_SHARED_MEMORY = "1g"  # for the batches of data loaders


@dataclass(frozen=True)
class Containers:
    """Settings of a run's containers: user, network, folders and environment."""

    workspace: Path
    user: str
    network: str
    readable: Sequence[Path]
    working_dir: Path
    environment: Mapping[str, str]

    def arguments(self, run_folder: Path) -> dict[str, Any]:
        """Return the arguments of kfp's `DockerRunner`, as plain JSON values.

        Only the workspace and /tmp are writable; there are no privileges and by default no network.
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
    """The end of one container as the engine recorded it; `ended` in seconds since the epoch."""

    container: str
    exit_code: int
    ended: float


def plan_containers(config: RunConfig, preset: str, workspace: Path, network: str) -> Containers:
    """Choose user, folders and environment of the containers for runs in `workspace`, a resolved path.

    Raises:
        InputError: no engine answers, the image does not exist, or the workspace belongs to root or cannot be
            mounted.
    """
    if ":" in str(workspace):  # kfp mounts the run's folder as SOURCE:TARGET:MODE
        raise InputError(
            "Docker cannot mount a folder with a colon in its path.",
            where=str(workspace),
            fix="Choose another with --work, or run without --runner docker.",
        )
    with engine() as client:
        _require_image(client)
    working_dir = _working_folder(config, preset, workspace)
    readable = [*_readable_folders(config, preset, workspace, working_dir), *_secret_folders(config)]
    environment = _environment(config, workspace, network)
    return Containers(workspace, _owner(workspace), network, readable, working_dir, environment)


def _environment(config: RunConfig, workspace: Path, network: str) -> dict[str, str]:
    """Return the variables of this process that the steps need, and those that differ in a container."""
    names = secret_variables(config)
    environment = {
        name: value for name, value in os.environ.items() if name.startswith(_FORWARDED) or name in names
    }
    environment["HF_HOME"] = str(workspace / HUB_CACHE)
    if mounted_secrets(config):
        environment[FOLDER] = str(secrets_folder().resolve())
    if network == "none":
        environment["HF_HUB_OFFLINE"] = "1"
    return environment


def _owner(workspace: Path) -> str:
    """Return user and group of the workspace, as `uid:gid`.

    Raises:
        InputError: the workspace belongs to root.
    """
    owner = workspace.stat()
    if owner.st_uid == 0:
        raise InputError(
            "the work directory belongs to root, and containers never run as root.",
            where=str(workspace),
            fix=f"Give it to another user: {command_line('chown', '-R', '10001:10001', workspace)}",
        )
    return f"{owner.st_uid}:{owner.st_gid}"


def pipeline_root(run_folder: Path) -> Path:
    """Return the folder of kfp's outputs of the steps: references, metrics and summaries, no artefacts."""
    return run_folder / ".kfp"


def give_to_user(run_folder: Path, user: str) -> None:
    """Make the containers' user the owner of a run's folder, also when root starts them."""
    pipeline_root(run_folder).mkdir(exist_ok=True)  # else the engine creates it, as root
    if os.geteuid() == 0:
        uid, gid = (int(part) for part in user.split(":"))
        for path in (run_folder, *run_folder.rglob("*")):
            os.chown(path, uid, gid, follow_symlinks=False)


@contextlib.contextmanager
def engine() -> Iterator[Any]:
    """Open a client of the engine that DOCKER_HOST names, or of the machine's own.

    Raises:
        InputError: no engine answers.
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
    """A reader of the engine's exit events of one run's containers during the run."""

    def __init__(self, run_folder: Path) -> None:
        self._folder = run_folder
        self._started: set[str] = set()
        self._exits: list[Exit] = []

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Collect the events while the block runs, then write containers.json."""
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

    def mismatch(self, tasks: int) -> str:
        """Return how the engine's events contradict a success of `tasks` tasks; empty when they do not."""
        succeeded = sum(exit_.exit_code == 0 for exit_ in self._exits)
        if succeeded == tasks and len(self._exits) == len(self._started):
            return ""
        codes = ", ".join(str(exit_.exit_code) for exit_ in self._exits)
        return (
            f"The engine recorded {succeeded} successful containers, and the line has {tasks} steps "
            f"(exit codes in order: {codes or 'none'}; {EXITS} in the run's folder)."
        )

    def _collect(self, events: Any) -> None:
        # The other thread ends the stream by closing it: any exception here is the end, not a failure.
        with contextlib.suppress(Exception):
            for event in events:
                if event["Action"] == "start":
                    self._started.add(event["id"])
                elif event["Action"] == "die":
                    code = int(event["Actor"]["Attributes"]["exitCode"])
                    self._exits.append(Exit(event["id"][:12], code, event["timeNano"] / 1e9))


def stop_containers(run_folder: Path) -> None:
    """Stop every container of a run: as the engine's children they would run on after this process."""
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


def _preset_folder(preset: str) -> Path | None:
    """Return the folder of a preset's file; None for a shipped preset."""
    return Path(preset).resolve().parent if Path(preset).suffix in {".yaml", ".yml"} else None


def _working_folder(config: RunConfig, preset: str, workspace: Path) -> Path:
    """Return the folder to which the config's relative paths belong."""
    root, beside = config.data.root, _preset_folder(preset)
    if root.startswith("demo:"):
        return beside or workspace
    return home_expanded(root).resolve() if root else beside or Path.cwd()


def _readable_folders(config: RunConfig, preset: str, workspace: Path, working_dir: Path) -> list[Path]:
    """Return the folders outside the workspace that the run reads; none lies in another."""
    beside = _preset_folder(preset)
    folders = [beside] if beside else []
    if not config.data.root.startswith("demo:"):
        folders.append(working_dir)
    for name in _paths(config):
        path = (working_dir / home_expanded(name)).resolve() if name else working_dir
        if path.exists():
            folders.append(path if path.is_dir() else path.parent)
    kept: list[Path] = []
    for path in sorted(set(folders)):  # in this order a folder is followed by what lies in it
        if not any(path.is_relative_to(other) for other in (*kept[-1:], workspace)):
            kept.append(path)
    return kept


def _paths(config: RunConfig) -> list[str | None]:
    """Return every setting that can name a file or folder."""
    data = config.data
    return [
        config.model.base,
        config.evaluate.mteb_root,
        config.promote.first_champion,
        config.teacher.model if config.teacher else None,
        *(item.path for item in data.sources),
        *(item.path for item in data.corpus),
        *(item.path for item in data.evaluation),
    ]


def _secret_folders(config: RunConfig) -> list[Path]:
    """Return the folders of the mounted secrets that the config refers to."""
    folders = (secrets_folder().resolve() / name for name in mounted_secrets(config))
    return [folder for folder in folders if folder.is_dir()]


def _mount(path: Path, *, read_only: bool) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(path), "Target": str(path), "ReadOnly": read_only}
