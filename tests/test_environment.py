"""What `import embedline` sets for libraries: no telemetry, threads, and caches where HOME cannot be used."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from embedline import environment

ROOT = Path(__file__).parents[1]
OFF = {
    "DAFT_ANALYTICS_ENABLED": "0",
    "DO_NOT_TRACK": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
LIBRARIES = """
import pathlib, sys, time
from embedline.registry.tracking import prepare
from embedline.registry.server import client
uri = f"sqlite:///{pathlib.Path(sys.argv[1]).resolve()}/mlflow.db"
prepare(uri)
run = client(uri).create_run(client(uri).create_experiment("x", artifact_location=sys.argv[1]))
client(uri).create_registered_model("x")
from embedline.data.engine import daft
daft().from_pydict({"a": [1, 2]}).distinct().count_rows()
import embedline.export.runtime, onnxruntime, numpy
session = onnxruntime.InferenceSession(sys.argv[1] + "/model.onnx")
session.run(None, {"x": numpy.ones(1, "float32")})
time.sleep(float(sys.argv[2]))
"""


def variables(given: dict[str, str], code: str = "") -> dict[str, str]:
    """Return the environment of a process after `import embedline`."""
    code = f"import embedline, json, os\n{code}\nprint(json.dumps(dict(os.environ)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=given)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_importing_the_package_switches_telemetry_off() -> None:
    assert OFF.items() <= variables({"HOME": str(ROOT)}).items()


def test_a_pods_launcher_loads_no_library_that_has_threads_before_the_package() -> None:
    code = (
        "import sys, kfp.dsl.executor_main\nprint(sorted({'numpy', 'pyarrow', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_telemetry_that_the_user_chose_stays_on() -> None:
    found = variables({"HOME": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "false"})
    assert found["MLFLOW_DISABLE_TELEMETRY"] == "false"
    assert "DO_NOT_TRACK" not in found  # it would switch mlflow's off, too
    assert found["ORT_DISABLE_TELEMETRY"] == "1"


def test_images_make_and_ci_switch_telemetry_off_for_other_commands() -> None:
    recipe = (ROOT / "infra/images/Containerfile").read_text(encoding="utf-8")
    for name, value in OFF.items():
        assert recipe.count(f"{name}={value}") == 2, name  # cpu and gpu
    for file in ("Makefile", ".ci/run"):
        text = (ROOT / file).read_text(encoding="utf-8")
        for name, value in OFF.items():
            assert re.search(rf"\b{name}( \?)?= ?{value}\b", text), (file, name)


def test_libraries_look_up_no_name_and_leave_nothing_at_home(tmp_path: Path, watched: Any) -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    seconds = "1"  # onnxruntime looks its host up within 15 seconds, and writes to HOME at once
    command = [sys.executable, "-c", LIBRARIES, str(tmp_path), seconds]
    done = subprocess.run(
        command, capture_output=True, text=True, env=watched.environment, cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert watched.left_at_home() == set()
    assert watched.lookups() == set()


def keep(folder: Path) -> str:
    """Return the code with which a command keeps its caches in a work folder."""
    return f"import pathlib\nembedline.environment.keep_caches_in(pathlib.Path({str(folder)!r}))"


def test_a_home_that_can_be_used_keeps_the_caches(tmp_path: Path) -> None:
    found = variables({"HOME": str(tmp_path)}, keep(tmp_path))
    assert not {*environment._CACHES} & {*found}
    assert found["HOME"] == str(tmp_path)
    assert os.listdir(tmp_path) == []


def test_caches_of_a_missing_home_go_to_the_workspace(tmp_path: Path) -> None:
    own = str(tmp_path / "mine")
    found = variables({"HOME": "/no/such/home", "NUMBA_CACHE_DIR": own}, keep(tmp_path))
    assert found["HF_HOME"] == str(tmp_path / ".embedline/huggingface")
    assert found["NUMBA_CACHE_DIR"] == own
    others = {*environment._CACHES} - {"HF_HOME", "NUMBA_CACHE_DIR"}
    assert all(found[name].startswith(str(tmp_path / ".embedline/cache")) for name in others)
    assert Path(found["HOME"]).stat().st_mode & 0o777 == 0o700
    assert Path(found["HOME"]).owner()
    assert os.listdir(tmp_path) == []
    again = variables(found, keep(ROOT))  # a child process
    assert {name: again[name] for name in environment._CACHES} == {
        name: found[name] for name in environment._CACHES
    }


def test_caches_without_a_work_folder_go_to_a_temporary_one(tmp_path: Path) -> None:
    missing = tmp_path / "typing error"
    found = variables({"HOME": "/no/such/home"}, keep(missing))
    assert found["HF_HOME"].startswith(found["HOME"])
    assert not missing.exists()


def test_a_folder_of_another_user_is_not_used_for_caches(tmp_path: Path) -> None:
    planted = tmp_path / f"embedline-{os.getuid()}"
    (tmp_path / "elsewhere").mkdir()
    planted.symlink_to("elsewhere")
    found = variables({"HOME": "/no/such/home", "TMPDIR": str(tmp_path)})
    assert Path(found["HOME"]).parent == tmp_path
    assert Path(found["HOME"]) != planted


def test_models_and_token_of_a_read_only_home_are_found(tmp_path: Path) -> None:
    """A home with models that an image carries, for runs without network."""
    hub = tmp_path / ".cache/huggingface"
    (hub / "hub").mkdir(parents=True)
    (hub / "token").touch()
    read_only = "import os\nos.access = lambda path, mode: False\nembedline.environment.prepare_process()"
    online = variables({"HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}, read_only)
    assert online["HF_TOKEN_PATH"] == str(hub / "token")
    assert "HF_HUB_CACHE" not in online
    assert not online["HF_HOME"].startswith(str(tmp_path / ".cache"))
    assert online["HOME"] == str(tmp_path)
    offline = variables({"HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}, read_only)
    assert offline["HF_HUB_CACHE"] == str(hub / "hub")
    chosen = variables({"HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_HOME": "/mine"}, read_only)
    assert chosen["HF_HOME"] == "/mine"
    assert not {"HF_TOKEN_PATH", "HF_HUB_CACHE"} & {*chosen}


def test_a_user_without_an_entry_has_a_name(tmp_path: Path) -> None:
    code = "import getpass, pwd, sys\ndef unknown(uid): raise KeyError(uid)\npwd.getpwuid = unknown\n"
    code += "import embedline\nprint(getpass.getuser())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"HOME": str(tmp_path)}
    )
    assert done.stdout == f"uid-{os.getuid()}\n", done.stderr
