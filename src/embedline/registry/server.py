"""One MLflow server or database: where it is, whether it answers, and its experiments."""

from __future__ import annotations

import getpass
import hashlib
import logging
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from embedline.errors import EmbedlineError, InputError, first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE = "mlflow.db"
_SQLITE = "sqlite:///"
# A server that passes files on and gets no answer says 5xx; one that is down says nothing.
_DENIED = re.compile(r"error code (401|403)\b")
_BEHIND_IT = re.compile(r"/mlflow-artifacts/.*(too many|error code) 5\d\d", re.DOTALL)


class TrackingError(EmbedlineError):
    """The tracking server did not take what it was sent; the spool keeps it for the next replay."""


def default_uri(folder: Path) -> str:
    """The sqlite database in a work folder."""
    return f"{_SQLITE}{(folder / DATABASE).resolve()}"


def prepare(uri: str, *, timeout_s: int = 10) -> None:
    """Make the store usable: a fresh sqlite file gets its tables (once), a server answers.

    Raises:
        InputError: it does not answer within `timeout_s`, refuses, or is of an older schema.
    """
    for talker in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(talker).setLevel(logging.WARNING)
    path = _sqlite_path(uri)
    fix = "Check tracking.uri or the environment's MLFLOW_TRACKING_URI."
    try:
        with patience(retries=1, timeout_s=timeout_s):
            if path is None:
                client(uri).search_experiments(max_results=1)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            _open_sqlite(path, timeout_s)
            with FileLock(f"{path}.lock"):  # two processes creating the tables of one file break it
                client(uri).search_experiments(max_results=1)
    except Exception as error:  # mlflow, sqlalchemy, requests, os: whatever it is, the address is unusable
        if denied := _denied(error):
            raise InputError(denied[0], where=uri, fix=denied[1]) from error
        what = f"the tracking store does not answer ({first_line(error)})."
        raise InputError(what, where=uri, fix=fix) from error


def client(uri: str) -> MlflowClient:
    """A client of this address only: no global state, and no run taken from MLFLOW_RUN_ID."""
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # not the chatter of a new database
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def experiment_id(
    client: MlflowClient,
    uri: str,
    name: str,
    artifact_root: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """The id of an experiment, created when it is new.

    Args:
        artifact_root: where a new experiment keeps its artefacts; for a sqlite store a folder beside the
            database when not given (mlflow itself would take the current directory), for a server its own.
        tags: of a new experiment, written in the moment of its creation; one that exists keeps its own.

    Raises:
        InputError: the experiment was deleted.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(
                name, artifact_location=artifact_root or artifacts_beside(uri), tags=dict(tags or {})
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # somebody else was faster
    if found is None or found.lifecycle_stage != "active":
        raise InputError(
            f"the experiment {name!r} is deleted there.",
            where=uri,
            fix="Restore it (mlflow experiments restore) or choose another tracking.experiment.",
        )
    return str(found.experiment_id)


@contextmanager
def patience(retries: int, timeout_s: int) -> Iterator[None]:
    """Limits mlflow's HTTP retries (its own take minutes) and its talk; what the user has set stands."""
    wanted = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries),
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout_s),
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    ours = {key: value for key, value in wanted.items() if key not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for key in ours:
            os.environ.pop(key, None)


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Turns every failure of mlflow into a TrackingError that names the address."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException  # type: ignore[import-untyped]

    try:
        with patience(retries=2, timeout_s=30):
            yield
    except (MlflowException, RequestException) as error:
        if _BEHIND_IT.search(str(error)):
            what = f"the server answers, but the artefact store behind it failed ({first_line(error)})."
            fix = "The server's log says why; run again when the store is back."
            raise TrackingError(what, where=uri, fix=fix) from error
        if denied := _denied(error):
            raise TrackingError(denied[0], where=uri, fix=denied[1]) from error
        raise TrackingError(f"the tracking store failed ({first_line(error)}).", where=uri) from error


@contextmanager
def as_global_store(uri: str) -> Iterator[None]:
    """For the one call of mlflow that looks a model up in the global store instead of the client's."""
    import mlflow

    ambient = os.environ.pop("MLFLOW_TRACKING_URI", None)  # mlflow sets and unsets it as it likes
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None  # type: ignore[no-untyped-call]
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None: not set, as it was
        if ambient is not None:
            os.environ["MLFLOW_TRACKING_URI"] = ambient


def host_lock(*parts: str) -> FileLock:
    """Held by one process of this user on this host; for things that have no folder of their own."""
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"embedline-{_user()}-{name}.lock")


def quoted(value: str) -> str:
    """A value inside a search filter; mlflow's filters have no escape for a quote."""
    if "'" in value:
        raise InputError(f"{value!r} holds a quote, which mlflow cannot search for.")
    return f"'{value}'"


def error_code(error: Any) -> str:
    return str(getattr(error, "error_code", ""))


def _sqlite_path(uri: str) -> Path | None:
    if not uri.startswith(_SQLITE) or uri == _SQLITE:
        return None
    return Path(uri.removeprefix(_SQLITE))


def _open_sqlite(path: Path, timeout_s: int) -> None:
    """Fails at once where mlflow would try ten times: no such folder, not a database, not writable."""
    with closing(sqlite3.connect(path, timeout=timeout_s)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()


def artifacts_beside(uri: str) -> str | None:
    path = _sqlite_path(uri)
    return None if path is None else (path.resolve().parent / "mlartifacts").as_uri()


def _denied(error: BaseException) -> tuple[str, str] | None:
    """What is wrong and what to do, where the server answered that we may not."""
    found, code = _DENIED.search(str(error)), error_code(error)
    if code in {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"} or (found and found[1] == "401"):
        return (
            "the token or password is missing, wrong, or has expired (401).",
            "Set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.",
        )
    if code == "PERMISSION_DENIED" or found:
        return (
            f"this account may not do that ({first_line(error)}).",
            "Use an account that may; where it says Host header, the server's MLFLOW_SERVER_ALLOWED_HOSTS "
            "has to name this address.",
        )
    return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's uid without a passwd entry
        return str(os.getuid())
