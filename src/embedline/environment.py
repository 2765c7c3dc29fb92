"""The variables that libraries read when they are imported: telemetry, threads, caches.

`import embedline` sets them, so that the command line, a pod's component, torchrun's workers and a program
that loads an exported model are alike, and so are their child processes. What the user has set stays.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from embedline.resources import usable_cores, visible_cores

INTERNAL = ".embedline"  # folder in a workspace for all that is not a run
HUB_CACHE = f"{INTERNAL}/huggingface"  # below the workspace: later pods must find what preflight fetched
_OFF = {
    "DAFT_ANALYTICS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # of datasets
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
_OPENMP = "OMP_NUM_THREADS"
_FOLLOW_OPENMP = ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # and pyarrow, which has no variable of its own
_RUST = ("RAYON_NUM_THREADS", "POLARS_MAX_THREADS")  # tokenizers, polars
THREADS = (_OPENMP, *_FOLLOW_OPENMP, *_RUST)
# Each library's cache below the workspace; of other libraries XDG_CACHE_HOME decides.
_CACHES = {
    "HF_HOME": HUB_CACHE,
    "XDG_CACHE_HOME": f"{INTERNAL}/cache",
    "MPLCONFIGDIR": f"{INTERNAL}/cache/matplotlib",
    "MTEB_CACHE": f"{INTERNAL}/cache/mteb",
    "NUMBA_CACHE_DIR": f"{INTERNAL}/cache/numba",
    "TORCHINDUCTOR_CACHE_DIR": f"{INTERNAL}/cache/torchinductor",
    "TRITON_CACHE_DIR": f"{INTERNAL}/cache/triton",
}
_moved: dict[str, str] = {}  # the caches that this process has moved: variable → folder
_reason = ""  # why they were moved


def prepare_process() -> None:
    """Switch telemetry off, set the threads of a limited container, and replace an unusable HOME."""
    _set_defaults(_OFF)
    if all(os.environ[name] == value for name, value in _OFF.items()):
        _set_defaults({"DO_NOT_TRACK": "true"})  # of all other libraries; it would override a choice above
    if (cores := usable_cores()) < visible_cores():
        # MKL's and OpenBLAS's own would override OMP_NUM_THREADS where the user has set that.
        names = _RUST if _OPENMP in os.environ else THREADS
        _set_defaults(dict.fromkeys(names, str(cores)))
    _name_user()
    if unusable_home():
        _replace_home()


def keep_caches_in(workspace: Path) -> None:
    """Keep the caches in an existing workspace where HOME cannot be used; before libraries are imported.

    Nothing is created: a library makes its folder when it has something to keep.
    """
    if _moved and workspace.is_dir():
        _move_caches(workspace.resolve())


def unusable_home() -> str | None:
    """Return why libraries cannot keep files in HOME; None where they can."""
    home = os.path.expanduser("~")
    if home == "~":
        return f"HOME is not set, and uid {os.getuid()} has no entry in the password file"
    if not os.path.isdir(home):
        return f"HOME ({home}) is not a folder"
    cache = os.path.join(home, ".cache")
    folder = cache if os.path.isdir(cache) else home
    return None if os.access(folder, os.W_OK | os.X_OK) else f"HOME: {folder} cannot be written to"


def caches_found() -> str:
    """Describe where libraries keep their caches, and why not in HOME."""
    return f"{_reason}: caches are in {os.environ['XDG_CACHE_HOME']}" if _reason else os.path.expanduser("~")


def _replace_home() -> None:
    """Move the caches to a temporary folder, until a workspace is known; HOME itself where it is no folder.

    A home that can only be read stays HOME: it may hold credentials, and models for a run without network.
    """
    global _reason
    _reason = unusable_home() or ""
    folder = _private_folder()
    hub = Path(os.path.expanduser("~/.cache/huggingface"))
    if "HF_HOME" not in os.environ:
        if (hub / "token").is_file():
            _set_defaults({"HF_TOKEN_PATH": str(hub / "token")})
        if (hub / "hub").is_dir() and os.environ.get("HF_HUB_OFFLINE", "0") not in {"", "0"}:
            _set_defaults({"HF_HUB_CACHE": str(hub / "hub")})  # nothing will be written there
    if not os.path.isdir(os.path.expanduser("~")):
        os.environ["HOME"] = str(folder)
    _moved.update({name: "" for name in _CACHES if name not in os.environ})
    _move_caches(folder)


def _move_caches(place: Path) -> None:
    """Set the folders of the caches below `place`, without those that the user has set."""
    _moved.update({name: str(place / _CACHES[name]) for name in _moved})
    os.environ.update(_moved)


def _private_folder() -> Path:
    """Return a temporary folder that only this user can write to, the same for all processes."""
    folder = Path(tempfile.gettempdir()) / f"embedline-{os.getuid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        if not folder.is_symlink() and folder.stat().st_uid == os.getuid():
            return folder
    return Path(tempfile.mkdtemp(prefix="embedline-"))


def _name_user() -> None:
    """Name a user without an entry in the password file, for libraries that call `getpass.getuser`."""
    try:
        getpass.getuser()
    except (OSError, KeyError):
        os.environ["LOGNAME"] = os.environ["USER"] = f"uid-{os.getuid()}"


def _set_defaults(values: Mapping[str, str]) -> None:
    os.environ.update({name: value for name, value in values.items() if name not in os.environ})
