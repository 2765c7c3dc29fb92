"""One MLflow server or database: its address, whether it answers, its experiments, and its errors."""

from __future__ import annotations

import getpass
import hashlib
import logging
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from embedline.errors import EmbedlineError, InputError, first_line
from embedline.quoting import file_uri, sqlite_path, sqlite_uri
from embedline.redaction import strip_secret_variables
from embedline.registry.relocation import ARTIFACTS, relocate

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE = "mlflow.db"
_OTHER_SITE = (
    "Check tracking.uri or the environment's MLFLOW_TRACKING_URI; a sign-in page needs MLFLOW_TRACKING_TOKEN."
)
_DENIED = re.compile(r"error code (401|403)\b")
_FAILED = re.compile(r"(?:too many|error code) (5\d\d)\b")
# Pages of a proxy, a sign-in page or another site: MLflow's own errors are JSON and have a code.
_NOT_MLFLOW = re.compile(r"error code (?:3\d\d|404)\b|not in a valid JSON|Exceeded \d+ redirects")
# A server whose artefact store is down returns 5xx for files; a server that is down itself returns nothing.
_ARTIFACT_STORE_DOWN = re.compile(r"/mlflow-artifacts/.*(too many|error code) 5\d\d", re.DOTALL)


class TrackingError(EmbedlineError):
    """The tracking server did not accept a request; the spool keeps the data for the next replay."""


def default_uri(folder: Path) -> str:
    """Return the address of the sqlite database in a work folder."""
    return sqlite_uri(folder.absolute() / DATABASE)


def absolute(uri: str) -> str:
    """Return an address with the full path of its sqlite database, which other processes understand, too."""
    path = sqlite_path(uri)
    return uri if path is None or path.is_absolute() else sqlite_uri(path.absolute())


def exists(uri: str) -> bool:
    """Return whether a sqlite database exists; a server is taken to."""
    path = sqlite_path(uri)
    return path is None or path.is_file()


def prepare(uri: str, *, timeout_s: int = 10, may_write: bool = True) -> None:
    """Check that the store answers; create the tables of a new sqlite file.

    Args:
        timeout_s: seconds to wait for an answer.
        may_write: refuse a sqlite file in a folder that cannot be written to; False: read it there.

    Raises:
        InputError: it does not answer within `timeout_s`, refuses access, or has an older schema.
    """
    for verbose in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(verbose).setLevel(logging.WARNING)
    path = sqlite_path(uri)
    if path is not None:
        _require_same_reading(uri, path)
    fix = "Check tracking.uri or the environment's MLFLOW_TRACKING_URI."
    try:
        with limited_retries(retries=1, timeout_s=timeout_s):
            if path is None:
                _require_mlflow(client(uri), uri)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            _open_sqlite(path, timeout_s)
            # Two processes creating the tables of one file break it.
            creates = may_write or os.access(path.parent, os.W_OK)
            with FileLock(f"{path}.lock") if creates else nullcontext():
                client(uri).search_experiments(max_results=1)
    except InputError:
        raise
    except Exception as error:  # from mlflow, sqlalchemy, requests or os: the address is unusable
        if refused := _refusal(error):
            raise InputError(refused[0], where=uri, fix=refused[1]) from error
        what = f"the tracking store does not answer ({first_line(error)})."
        raise InputError(what, where=uri, fix=fix) from error


def client(uri: str) -> MlflowClient:
    """Return a client of this address only: without global state, and ignoring MLFLOW_RUN_ID.

    A sqlite store that was moved is made to find its artefacts first (`relocation`).
    """
    if path := sqlite_path(uri):
        relocate(path)
    strip_secret_variables()  # mlflow reads the credentials itself
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # a new database logs every migration
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def experiment_id(
    client: MlflowClient,
    uri: str,
    name: str,
    artifact_root: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Return the id of an experiment, created when it is new.

    Args:
        artifact_root: artefact location of a new experiment. By default the server's own, and for a sqlite
            store a folder beside the database (mlflow itself would use the current directory).
        tags: tags of a new experiment, written when it is created; an existing one keeps its own.

    Raises:
        InputError: the experiment was deleted.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return client.create_experiment(
                name, artifact_location=artifact_root or artifacts_beside(uri), tags=dict(tags or {})
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)  # another process was faster
    if experiment is None or experiment.lifecycle_stage != "active":
        raise InputError(
            f"the experiment {name!r} is deleted there.",
            where=uri,
            fix="Restore it (mlflow experiments restore) or choose another tracking.experiment.",
        )
    return str(experiment.experiment_id)


@contextmanager
def limited_retries(retries: int, timeout_s: int) -> Iterator[None]:
    """Limit mlflow's HTTP retries (minutes by default) and its output; variables set by the user are kept."""
    limits = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries),
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout_s),
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    ours = {key: value for key, value in limits.items() if key not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for key in ours:
            os.environ.pop(key, None)


@contextmanager
def tracking_errors(uri: str) -> Iterator[None]:
    """Raise every failure of mlflow as a TrackingError that names the address."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException  # type: ignore[import-untyped]

    try:
        with limited_retries(retries=2, timeout_s=30):
            yield
    except (MlflowException, RequestException) as error:
        if _ARTIFACT_STORE_DOWN.search(str(error)):
            what = f"the server answers, but the artefact store behind it failed ({first_line(error)})."
            fix = "See the server's log for the reason; run again when the store is back."
            raise TrackingError(what, where=uri, fix=fix) from error
        if refused := _refusal(error):
            raise TrackingError(refused[0], where=uri, fix=refused[1]) from error
        raise TrackingError(f"the tracking store failed ({first_line(error)}).", where=uri) from error


@contextmanager
def as_global_store(uri: str) -> Iterator[None]:
    """Make `uri` mlflow's global store, for the one call that ignores the client's own store."""
    import mlflow

    ambient = os.environ.pop("MLFLOW_TRACKING_URI", None)  # mlflow itself sets and unsets it
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None  # type: ignore[no-untyped-call]
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None: not set, as it was
        if ambient is not None:
            os.environ["MLFLOW_TRACKING_URI"] = ambient


def host_lock(*parts: str) -> FileLock:
    """Return a lock between this user's processes on this host, for things without a folder of their own."""
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"embedline-{getpass.getuser()}-{name}.lock")


def quoted(value: str) -> str:
    """Quote a value for a search filter, in which mlflow has no escape for a quote."""
    if "'" in value:
        raise InputError(f"{value!r} holds a quote, which mlflow cannot search for.")
    return f"'{value}'"


def error_code(error: Any) -> str:
    """Return MLflow's code of an error; empty when it has none."""
    return str(getattr(error, "error_code", ""))


def _require_same_reading(uri: str, path: Path) -> None:
    """Check that SQLAlchemy reads the same path from an address: before 2.1 it unquoted none.

    Raises:
        InputError: it reads another path.
    """
    import sqlalchemy

    found = sqlalchemy.make_url(uri).database
    if found != str(path):
        raise InputError(
            f"SQLAlchemy {sqlalchemy.__version__} reads another path from this address: {found}.",
            where=uri,
            fix="Install SQLAlchemy 2.1, or choose a path without %, ?, # and @.",
        )


def _open_sqlite(path: Path, timeout_s: int) -> None:
    """Fail at once where mlflow would try ten times: no such folder, not a database, not writable."""
    with closing(sqlite3.connect(path, timeout=timeout_s)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()


def artifacts_beside(uri: str) -> str | None:
    """Return the artefact location beside a sqlite database; None for a server, which has its own."""
    path = sqlite_path(uri)
    return None if path is None else file_uri(path.resolve().parent / ARTIFACTS)


def _refusal(error: BaseException) -> tuple[str, str] | None:
    """Return message and fix for an answer that refuses, fails, or is not MLflow's; None for other errors."""
    match, code = _DENIED.search(str(error)), error_code(error)
    if code in {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"} or (match and match[1] == "401"):
        return (
            "the token or password is missing, wrong, or has expired (401).",
            "Set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.",
        )
    if code == "PERMISSION_DENIED" or match:
        return (
            f"this account may not do that ({first_line(error)}).",
            "Use an account with that right. For a refused Host header, add this address to the server's "
            "MLFLOW_SERVER_ALLOWED_HOSTS.",
        )
    if _NOT_MLFLOW.search(str(error)):
        return f"answers, but not as MLflow does ({first_line(error)}).", _OTHER_SITE
    if failed := _FAILED.search(str(error)):
        return (
            f"the server, or a proxy before it, fails with {failed[1]} ({first_line(error)}).",
            "See its log; try again later.",
        )
    return None


def _require_mlflow(opened: MlflowClient, uri: str) -> None:
    """Raise an `InputError` for a server that answers every request with empty JSON."""
    from mlflow.exceptions import MlflowException

    if opened.search_experiments(max_results=1):
        return
    try:
        known = opened.get_experiment("0").experiment_id
    except MlflowException as error:
        if not error_code(error):
            raise
        return
    if not known:
        raise InputError("answers with empty JSON, not as MLflow does.", where=uri, fix=_OTHER_SITE)
