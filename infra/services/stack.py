"""PostgreSQL, an S3 server and MLflow from packages, set up as on a cluster, on free ports."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from embedline.errors import InputError, StepError

BASE = Path(__file__).resolve().parents[1] / "kustomize" / "base" / "mlflow"
START_S = 180  # limit for a server's start
_STOP_S = 20


def read_env(path: Path) -> dict[str, str]:
    """Read a file of KEY=value lines as Kubernetes and compose do: no quotes, no expansion."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def postgres_programs() -> Path | None:
    """Return the folder of PostgreSQL's server programs, which Debian keeps out of PATH."""
    paths = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda path: float(path.split("/")[4]))
    initdb = paths[-1] if paths else shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


class Server:
    """Server process in its own session, so that Ctrl-C does not stop it before its clients."""

    def __init__(self, name: str, command: list[str], folder: Path, **options: object) -> None:
        self.name, self.command, self.options = name, command, options
        self.log = folder / f"{name}.log"
        self.stop_signal = signal.SIGTERM
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, check: Callable[[], None]) -> None:
        """Start the server and wait until `check` stops raising.

        Raises:
            StepError: it ended, or did not answer in time; the end of its log is in the message.
        """
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                **self.options,  # type: ignore[call-overload]
            )  # fmt: skip
        deadline = time.monotonic() + START_S
        while True:
            try:
                return check()
            except Exception as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    tail = self.log.read_text(errors="replace")[-2000:]
                    raise StepError(f"{self.name} did not start ({error}). Its log ends:\n{tail}") from error
                time.sleep(0.2)

    def stop(self) -> None:
        """Stop the server and its child processes; a second call does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(self.stop_signal)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _kill_session(process.pid)
            process.wait()


class Stack:
    """The three servers, as a context manager: its end stops them and removes their folder.

    `environment` holds a client's variables: MLFLOW_TRACKING_URI, and for direct access to MLflow's stores
    MLFLOW_S3_ENDPOINT_URL, AWS_* and PG*.
    """

    def __init__(self) -> None:
        programs = postgres_programs()
        if programs is None:
            fix = "Install them: apt-get install postgresql."
            raise InputError("PostgreSQL's server programs are not installed.", fix=fix)
        self._programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="embedline-services-"))
        self.settings = read_env(BASE / "server.env")
        postgres, s3, mlflow = (str(_free_port()) for _ in range(3))
        self.environment = {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow}",
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{s3}",
            "AWS_ACCESS_KEY_ID": secrets.token_hex(10),
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
            "AWS_DEFAULT_REGION": "us-east-1",
            "PGHOST": "127.0.0.1",
            "PGPORT": postgres,
            "PGDATABASE": "mlflow",
            "PGUSER": "mlflow",
            "PGPASSWORD": secrets.token_hex(20),
        }
        # Only these settings differ from the cluster's: loopback and a free port.
        local = {"MLFLOW_HOST": "127.0.0.1", "MLFLOW_PORT": mlflow}
        self._server_env = _inherited() | self.settings | self.environment | local
        del self._server_env["MLFLOW_TRACKING_URI"]  # it is for clients only
        self.postgres = self._make_postgres()
        self.s3 = Server(
            "s3",
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", s3],
            self.folder,
            env=_inherited(),
        )
        command = [sys.executable, "-m", "mlflow", "server"]
        self.mlflow = Server("mlflow", command, self.folder, env=self._server_env, cwd=self.folder)

    def __enter__(self) -> Stack:
        try:
            self.start_postgres()
            self.start_s3()
            self.prepare()
            self.start_mlflow()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for server in (self.mlflow, self.s3, self.postgres):
            server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_postgres(self) -> None:
        self._initdb()
        self.postgres.start(lambda: self._sql("postgres", "SELECT 1"))
        self._sql("postgres", f"CREATE DATABASE {self.environment['PGDATABASE']}")

    def start_s3(self) -> None:
        self.s3.start(lambda: _get(self.environment["MLFLOW_S3_ENDPOINT_URL"]))

    def start_mlflow(self) -> None:
        self.mlflow.start(lambda: _get(f"{self.environment['MLFLOW_TRACKING_URI']}/health"))

    def prepare(self) -> None:
        """Create tables and bucket with the script that the cluster uses."""
        done = subprocess.run(
            [sys.executable, str(BASE / "prepare.py")], env=self._server_env, capture_output=True, text=True
        )
        if done.returncode:
            raise StepError(f"the stores were not prepared:\n{(done.stdout + done.stderr)[-2000:]}")

    def _make_postgres(self) -> Server:
        folder, port = self.folder / "postgres", self.environment["PGPORT"]
        command = [
            str(self._programs / "postgres"),
            "-D",
            str(folder / "data"),
            "-p",
            port,
            "-k",
            str(folder),
        ]
        command += ["-c", "listen_addresses=127.0.0.1"]
        server = Server("postgres", command, self.folder, env=_inherited(), **_unprivileged())
        server.stop_signal = signal.SIGINT  # "fast" shutdown: does not wait for clients to disconnect
        return server

    def _initdb(self) -> None:
        folder, user = self.folder / "postgres", _unprivileged()
        folder.mkdir()
        password = folder / "password"
        password.write_text(self.environment["PGPASSWORD"], encoding="utf-8")
        if user:
            self.folder.chmod(0o711)
            for path in (folder, password):
                shutil.chown(path, user["user"], user["group"])
        password.chmod(0o600)
        command = [str(self._programs / "initdb"), "-D", str(folder / "data"), "--no-sync", "--encoding=UTF8"]
        command += ["--locale=C.UTF-8", "--auth=scram-sha-256", "--data-checksums", f"--pwfile={password}"]
        command += [f"--username={self.environment['PGUSER']}"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, **user)  # type: ignore[call-overload]
        if done.returncode:
            raise StepError(f"initdb failed:\n{done.stderr[-2000:]}")
        password.unlink()

    def _sql(self, database: str, statement: str) -> None:
        import psycopg2

        keys = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD"}
        connection = psycopg2.connect(
            dbname=database, **{key: self.environment[name] for key, name in keys.items()}
        )
        try:
            connection.autocommit = True
            connection.cursor().execute(statement)
        finally:
            connection.close()


def _unprivileged() -> Mapping[str, str]:
    """Return the user for PostgreSQL, which refuses to run as root; Debian's package creates that user."""
    return {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}


def _inherited() -> dict[str, str]:
    """Return the environment without variables that would point a server to other services."""
    foreign = ("MLFLOW_", "AWS_", "PG")
    return {key: value for key, value in os.environ.items() if not key.startswith(foreign)}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _get(url: str) -> None:
    with urllib.request.urlopen(url, timeout=5):
        return


def _kill_session(leader: int) -> None:
    """Kill the rest of the leader's process group: MLflow's workers can outlive the leader."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
