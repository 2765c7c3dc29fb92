"""How much memory trainings take, each in a process of its own; by tests/benchmarks/memory.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif("EMBEDLINE_SOAK" not in os.environ, reason="takes minutes: `make soak` runs it"),
]
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "memory.py"


def measured(*words: str) -> list[dict[str, Any]]:
    done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_batch_sixteen_times_as_large_takes_little_more_memory() -> None:
    small, large = measured("batches", "512", "8192")
    assert large["whole_mb"]["resident"] <= 1.3 * small["whole_mb"]["resident"]
    assert large["whole_mb"]["anonymous"] <= 1.3 * small["whole_mb"]["anonymous"]


def test_ten_million_pairs_take_less_than_a_gigabyte_beside_the_model() -> None:
    [found] = measured("pairs", "10000000")
    assert (found["pairs"], found["steps"]) == (10_000_000, 200)
    assert found["above_model_mb"]["anonymous"] < 1024
