"""The image and the demo's line in its containers, on a real Docker engine.

`make demo-docker` builds the image (on pinned bases, or with EMBEDLINE_STAND_IN=1 on one made here) and runs
the line once; the tests look at what came of it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedline.artifacts.manifest import MANIFEST
from embedline.config.load import load_config
from embedline.dag import STEPS
from embedline.errors import InputError
from embedline.orchestration.containers import (
    EXITS,
    LABEL,
    Containers,
    ExitWatch,
    engine,
    give_to_user,
    plan_containers,
)
from embedline.orchestration.image_lock import lock_path, read_lock

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
LARGEST = 2_800_000_000
TASKS = ["preflight", *STEPS]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Require a Docker engine; without one these tests are skipped, unless the engine is required."""
    try:
        with engine() as found:
            yield found
    except InputError as error:
        if os.environ.get("EMBEDLINE_REQUIRE_DOCKER") == "1":
            pytest.fail(f"EMBEDLINE_REQUIRE_DOCKER is set: {error}")
        pytest.skip("needs a Docker engine: infra/images/engine.sh with pytest …")


@pytest.fixture(scope="module")
def demo(client: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace after `make demo-docker`."""
    work: Path = tmp_path_factory.mktemp("work")
    ended = subprocess.run(
        ["make", "demo-docker", f"WORK={work}"], cwd=ROOT, capture_output=True, text=True, timeout=1700
    )
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    return work / "docker"


@pytest.fixture(scope="module")
def image(demo: Path, client: Any) -> Any:
    lock = read_lock()
    return client.images.get(f"{lock['repository']}:{lock['tag']}")


def _inside(client: Any, image: Any, code: str, **options: Any) -> str:
    """Return the output of a Python program in a container of the image."""
    said: bytes = client.containers.run(
        image.id, ["python3", "-c", code], remove=True, network_mode="none", read_only=True, **options
    )
    return said.decode()


def test_every_step_ran_in_a_container_with_exit_code_0(demo: Path) -> None:
    record = json.loads((demo / "latest" / "run.json").read_text())
    assert (record["status"], record["exit_code"]) == ("succeeded", 0)
    assert [step["step"] for step in record["steps"]] == TASKS
    assert all(step["status"] == "done" for step in record["steps"])
    exits = json.loads((demo / "latest" / EXITS).read_text())
    assert [exit_["exit_code"] for exit_ in exits] == [0] * (len(TASKS) + 1)
    assert len({exit_["container"] for exit_ in exits}) == len(exits)


def test_outputs_belong_to_the_containers_user(demo: Path) -> None:
    record = json.loads((demo / "latest" / "run.json").read_text())
    for step in record["steps"]:
        for name, output in step["outputs"].items():
            if output["path"]:  # a stage that is off at the line's head hands nothing on
                manifest = json.loads((demo / output["path"] / MANIFEST).read_text())
                assert manifest["kind"] == output["kind"], (step["step"], name)
    latest = demo / "latest"
    assert (latest / "model" / "model.safetensors").stat().st_size > 100_000
    assert list((latest / "onnx").glob("*.onnx"))
    assert "<html" in (latest / "report.html").read_text()
    assert record["model"]["version"] == 1
    assert record["verdict"]["mode"] == "dry_run"
    owner = demo.stat().st_uid
    assert owner != 0
    written = [path for path in (demo / ".embedline" / "store").rglob("*") if not path.is_symlink()]
    assert written
    assert {path.stat().st_uid for path in written} == {owner}


def test_image_is_small_and_has_labels(image: Any) -> None:
    assert image.attrs["Size"] <= LARGEST
    config = image.attrs["Config"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", config["User"])
    assert not config["Entrypoint"]
    lock = yaml.safe_load(lock_path().read_text())
    assert config["Labels"]["io.embedline.code"] == lock["code"]
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert config["Labels"]["org.opencontainers.image.revision"]


def test_the_sbom_names_every_distribution_that_is_installed(client: Any, image: Any) -> None:
    code = (
        "import json, importlib.metadata as m;"
        "print(json.dumps([open('/usr/share/embedline/sbom.cdx.json').read(),"
        " {d.name.lower(): d.version for d in m.distributions()}]))"
    )
    text, installed = json.loads(_inside(client, image, code))
    assert text == (ROOT / "build" / "images" / "cpu.cdx.json").read_text()
    sbom = json.loads(text)
    assert sbom["bomFormat"] == "CycloneDX"
    assert sbom["metadata"]["component"]["name"] == "embedline"
    named = {part["name"].lower(): part["version"] for part in sbom["components"]}
    assert "torch" in named
    assert {name: version for name, version in installed.items() if name != "embedline"} == named


def test_image_has_bytecode_and_no_build_tools(client: Any, image: Any) -> None:
    code = """
import importlib.util, json, pathlib, shutil, sys, warnings
warnings.simplefilter("ignore")
site = pathlib.Path("/opt/embedline/lib/python3.11/site-packages")
bare, sources = [], list(site.rglob("*.py"))
for path in sources:
    if not pathlib.Path(importlib.util.cache_from_source(path)).exists():
        try:
            compile(path.read_bytes(), str(path), "exec")
        except (SyntaxError, ValueError):
            continue  # a template
        bare.append(str(path))
print(json.dumps({
    "tools": [t for t in ("cc", "gcc", "g++", "clang", "ld", "make", "nvcc", "pip") if shutil.which(t)],
    "bare": bare[:5],
    "many": len(sources) > 10_000,
    "dropped": [str(p) for p in (site / "torch/include", site / "torch/test", site / "onnx/backend/test/data")
                if p.exists()],
    "python": sys.version_info[:2],
}))
"""
    found = json.loads(_inside(client, image, code))
    assert found == {"tools": [], "bare": [], "many": True, "dropped": [], "python": [3, 11]}


def _containers(folder: Path) -> Containers:
    """Plan containers as `embedline run --runner docker` does, for a user other than root."""
    folder.mkdir(parents=True)
    if os.geteuid() == 0:
        os.chown(folder, 10001, 10001)
    return plan_containers(load_config("demo-short"), "demo-short", folder, "none")


PROBE = """
import json, os, socket
def tried(act):
    try:
        act()
        return "done"
    except OSError as error:
        return type(error).__name__
print(json.dumps({
    "uid": os.getuid(),
    "root": tried(lambda: open("/opt/embedline/x", "w")),
    "etc": tried(lambda: open("/etc/x", "w")),
    "tmp": tried(lambda: open("/tmp/x", "w")),
    "work": tried(lambda: open(os.environ["WORK"] + "/x", "w")),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "network": tried(lambda: socket.create_connection(("192.0.2.1", 80), timeout=5)),
}))
"""


def test_step_has_no_root_no_network_and_writes_only_to_its_volume(
    client: Any, image: Any, demo: Path
) -> None:
    folder = demo.parent / "probe"
    arguments = _containers(folder).arguments(folder / "r")
    environment = arguments.pop("environment") | {"WORK": str(folder)}
    said = client.containers.run(
        image.id, ["python3", "-c", PROBE], remove=True, environment=environment, **arguments
    )
    found = json.loads(said)
    assert found.pop("uid") == folder.stat().st_uid != 0
    assert found == {
        "root": "OSError",  # read-only file system
        "etc": "OSError",
        "tmp": "done",
        "work": "done",
        "interfaces": ["lo"],
        "network": "OSError",  # unreachable
    }


def test_image_with_other_code_than_the_pipeline_is_refused(client: Any, image: Any) -> None:
    import docker

    code = (
        "from embedline.planning.preflight_component import run_preflight\n"
        "run_preflight('demo', '', '/tmp/w', 'r', '', None, {})"
    )
    told = {"EMBEDLINE_COMPILED_FOR": "f" * 64}
    with pytest.raises(docker.errors.ContainerError) as refused:
        _inside(client, image, code, environment=told, tmpfs={"/tmp": ""})
    assert refused.value.exit_status == 2
    lock = read_lock()
    assert (
        refused.value.stderr.decode()
        .splitlines()[-1]
        .startswith(
            f"error: image {lock['repository']}:{lock['tag']}: the image carries code {lock['code'][:12]}, "
            "the pipeline was compiled for ffffffffffff."
        )
    )


def test_exit_events_record_a_failure_of_a_removed_container(client: Any, image: Any, demo: Path) -> None:
    """The cause of the runner's false success: the container is removed before its exit code is read."""
    folder = demo.parent / "exits" / "r"
    planned = _containers(folder.parent)
    folder.mkdir()
    give_to_user(folder, planned.user)
    watch = ExitWatch(folder)
    with watch.watching():
        for code in (0, 7):
            container = client.containers.run(
                image.id, ["sh", "-c", f"exit {code}"], detach=True, auto_remove=True,
                labels={LABEL: str(folder)}, network_mode="none",
            )  # fmt: skip
            deadline = time.monotonic() + 60
            while _exists(client, container.id) and time.monotonic() < deadline:
                time.sleep(0.1)
    assert [exit_["exit_code"] for exit_ in json.loads((folder / EXITS).read_text())] == [0, 7]
    assert "exit codes in order: 0, 7" in watch.mismatch(2)


def _exists(client: Any, key: str) -> bool:
    import docker

    try:
        client.containers.get(key)
    except docker.errors.NotFound:
        return False
    return True


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_an_ended_run_leaves_no_container(client: Any, demo: Path, sent: signal.Signals) -> None:
    """After SIGKILL only the driver is left to stop them."""
    work = demo.parent / f"ended-{sent}"
    _containers(work)
    lock = read_lock()
    command = [sys.executable, "-m", "embedline.cli", "run", "demo-short", "--runner", "docker"]
    process = subprocess.Popen(
        [*command, "--work", str(work), "--name", "r"],
        env={**os.environ, "EMBEDLINE_STEP_IMAGE": f"{lock['repository']}:{lock['tag']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    mine = {"label": f"{LABEL}={(work / 'r').resolve()}"}
    try:
        assert _until(lambda: bool(client.containers.list(filters=mine))), "no step began"
        process.send_signal(sent)
        process.communicate(timeout=120)
        assert _until(lambda: not client.containers.list(all=True, filters=mine)), "a container is left"
    finally:
        process.kill()
    if sent == signal.SIGTERM:
        assert process.returncode == 143
        assert json.loads((work / "r" / "run.json").read_text())["status"] == "killed"


def _until(true: Any, seconds: float = 120) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.2)
    return False
