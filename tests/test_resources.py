"""The limits of control groups, read from trees as systemd, Docker and Kubernetes make them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from embedline import resources

Tree = Callable[[dict[str, str]], None]
GB = 2**30


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """Writes /proc and /sys files of a machine of 8 processors with 16 GB available."""
    monkeypatch.setattr(resources, "ROOT", tmp_path)
    monkeypatch.setattr(resources, "visible_cores", lambda: 8)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=16 * GB))

    def write(files: dict[str, str]) -> None:
        for name, text in files.items():
            file = tmp_path / name.replace("@", "sys/fs/cgroup")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")

    return write


def v1(quota: str, period: str = "100000") -> dict[str, str]:
    return {"@/cpu/cpu.cfs_quota_us": quota, "@/cpu/cpu.cfs_period_us": period}


SLICE = "@/kubepods.slice/burstable.slice"
OWN = {"proc/self/cgroup": "0::/kubepods.slice/burstable.slice/pod.scope"}


@pytest.mark.parametrize(
    ("files", "quota", "cores"),
    [
        ({}, None, 8),
        ({"@/cpu.max": "max 100000"}, None, 8),
        ({"@/cpu.max": "150000 100000"}, 1.5, 2),
        ({"@/cpu.max": "400000 100000"}, 4, 4),
        ({"@/cpu.max": "5000 100000"}, 0.05, 1),
        ({"@/cpu.max": "6400000 100000"}, 64, 8),  # more than the machine has
        ({"@/cpu.max": "damaged"}, None, 8),
        ({"@/cpu.max": ""}, None, 8),
        ({**OWN, f"{SLICE}/pod.scope/cpu.max": "200000 100000"}, 2, 2),
        ({**OWN, f"{SLICE}/pod.scope/cpu.max": "max 100000", f"{SLICE}/cpu.max": "250000 100000"}, 2.5, 3),
        ({**OWN, f"{SLICE}/pod.scope/cpu.max": "300000 100000", f"{SLICE}/cpu.max": "100000 50000"}, 2, 2),
        ({**OWN, f"{SLICE}/other.scope/cpu.max": "100000 100000"}, None, 8),
        ({"proc/self/cgroup": "0::/../outside", "@/cpu.max": "300000 100000"}, 3, 3),
        (v1("-1"), None, 8),
        (v1("50000"), 0.5, 1),
        (v1("300000", "200000"), 1.5, 2),
        (  # a container without a namespace: its path is that of the host, its files are at the mount point
            {"proc/self/cgroup": "4:memory:/docker/1f\n2:cpu,cpuacct:/docker/1f\n0::/", **v1("250000")},
            2.5,
            3,
        ),
        (
            {
                "proc/self/cgroup": "2:cpu,cpuacct:/user/job\n0::/",
                **v1("-1"),
                "@/cpu/user/job/cpu.cfs_quota_us": "100000",
                "@/cpu/user/job/cpu.cfs_period_us": "100000",
            },
            1,
            1,
        ),
    ],
)
def test_threads_follow_the_smallest_quota(
    tree: Tree, files: dict[str, str], quota: float | None, cores: int
) -> None:
    tree(files)
    found = resources.cpu_quota()
    assert (found and found.value) == quota
    assert resources.usable_cores() == cores


@pytest.mark.parametrize(
    ("files", "limit", "available"),
    [
        ({}, None, 16 * GB),
        ({"@/memory.max": "max"}, None, 16 * GB),
        ({"@/memory.max": f"{4 * GB}", "@/memory.current": f"{3 * GB}"}, 4 * GB, GB),
        ({"@/memory.max": f"{64 * GB}", "@/memory.current": f"{3 * GB}"}, 64 * GB, 16 * GB),
        ({"@/memory.max": f"{4 * GB}", "@/memory.current": f"{5 * GB}"}, 4 * GB, 0),
        (
            {
                "@/memory.max": f"{4 * GB}",
                "@/memory.current": f"{4 * GB}",
                "@/memory.stat": f"anon 1\ninactive_file {GB}",
            },
            4 * GB,
            GB,
        ),
        (  # the pod's other containers take of its limit
            {
                **OWN,
                f"{SLICE}/pod.scope/memory.max": f"{8 * GB}",
                f"{SLICE}/pod.scope/memory.current": f"{GB}",
                f"{SLICE}/memory.max": f"{9 * GB}",
                f"{SLICE}/memory.current": f"{7 * GB}",
            },
            8 * GB,
            2 * GB,
        ),
        ({"@/memory/memory.limit_in_bytes": "9223372036854771712"}, None, 16 * GB),
        (
            {
                "proc/self/cgroup": "4:memory:/docker/1f\n0::/",
                "@/memory/memory.limit_in_bytes": f"{2 * GB}",
                "@/memory/memory.usage_in_bytes": f"{2 * GB}",
                "@/memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {GB // 2}",
            },
            2 * GB,
            GB // 2,
        ),
    ],
)
def test_memory_is_what_the_tightest_group_has_left(
    tree: Tree, files: dict[str, str], limit: int | None, available: int
) -> None:
    tree(files)
    found = resources.memory_limit()
    assert (found and found.value) == limit
    assert resources.available_bytes() == available


def test_what_was_found_names_the_limit_and_its_file(tree: Tree, tmp_path: Path) -> None:
    assert (resources.cores_found(), resources.memory_found()) == ("8 cores", "17.2 GB available")
    tree({**v1("150000"), "@/memory.max": "3000000000", "@/memory.current": "1000000000"})
    group = tmp_path / "sys/fs/cgroup"
    assert resources.cores_found() == f"8 cores, quota 1.5 of them ({group}/cpu/cpu.cfs_quota_us)"
    assert resources.memory_found() == f"2.0 GB available, limit 3.0 GB ({group}/memory.max)"


def test_affinity_limits_the_cores_of_a_real_process() -> None:
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    code += "from embedline.resources import usable_cores; print(usable_cores())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "1\n"


@pytest.fixture
def half_a_core() -> Iterator[Path]:
    """A real control group with half of a processor's time, of version 1 or 2."""
    mount = Path("/sys/fs/cgroup")
    first = (mount / "cpu/cpu.cfs_quota_us").exists() or (mount / "cpu/cgroup.procs").exists()
    group = mount / ("cpu" if first else "") / f"embedline-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here ({error})")
    try:
        try:
            if first:
                (group / "cpu.cfs_period_us").write_text("100000")
                (group / "cpu.cfs_quota_us").write_text("50000")
            else:
                (group / "cpu.max").write_text("50000 100000")
        except OSError as error:
            pytest.skip(f"the control group takes no quota here ({error})")
        yield group
    finally:
        with suppress(OSError):
            group.rmdir()


def test_a_real_quota_limits_every_library(half_a_core: Path) -> None:
    code = (
        "import os, pathlib\n"
        f"pathlib.Path({str(half_a_core / 'cgroup.procs')!r}).write_text(str(os.getpid()))\n"
        "os.sched_getaffinity = lambda _: set(range(8))\n"  # a machine of 8 processors
        "from embedline import resources\n"
        "import pyarrow, torch\n"
        "from embedline.models.machine import prepare\n"
        "from embedline.config.training import RuntimeConfig\n"
        "prepare(RuntimeConfig())\n"
        "print(resources.cpu_quota().file, torch.get_num_threads(), pyarrow.cpu_count(),"
        " os.environ['RAYON_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])\n"
    )
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean)
    file, *threads = done.stdout.split()
    assert Path(file).parent == half_a_core, done.stderr
    assert threads == ["1", "1", "1", "1"]
