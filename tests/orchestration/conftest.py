"""Work folder with a small preset, and the real command with fake steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FAKES = Path(__file__).parent / "fakes"
sys.path.insert(0, str(FAKES))  # kfp_server
ROW = {"query": "how to reset it", "pos": ["Press the button for ten seconds."]}


@dataclass
class Line:
    """Runs `embedline run` on its own preset."""

    folder: Path

    @property
    def work(self) -> Path:
        # kfp replaces the word python3 wherever it meets it; the other characters are syntax elsewhere
        return self.folder / 'runs of python3 [red] it\'s 100%3F? {{x}} "$(id)" #'

    @property
    def told(self) -> list[str]:
        """Return the calls that the fake tracking server received."""
        return (self.folder / "tracker.txt").read_text().splitlines()

    def calls(self) -> list[str]:
        """Return the steps that were executed, in order, over all runs."""
        path = self.work / ".embedline" / "calls.txt"
        return path.read_text().split() if path.is_file() else []

    def environment(self, fake: str = "") -> dict[str, str]:
        ours = {
            "PYTHONPATH": str(FAKES),
            "EMBEDLINE_FAKE": fake,
            "MLFLOW_TRACKING_URI": f"fake://{self.folder / 'tracker.txt'}",
            "HF_HUB_OFFLINE": "1",
        }
        return {**os.environ, **ours}

    def command(self, *more: str) -> list[str]:
        preset = str(self.folder / "preset.yaml")
        return [sys.executable, "-m", "embedline.cli", "run", preset, "--work", str(self.work), *more]

    def run(self, *more: str, fake: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*more), env=self.environment(fake), capture_output=True, text=True, timeout=300
        )

    def record(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.work / "latest" / "run.json").read_text())
        return value


@pytest.fixture
def line(tmp_path: Path) -> Line:
    (tmp_path / "pairs.jsonl").write_text((json.dumps(ROW) + "\n") * 256)  # one batch
    (tmp_path / "preset.yaml").write_text("name: tiny\ndata:\n  sources: [{path: pairs.jsonl}]\n")
    return Line(tmp_path)


@pytest.fixture
def kfp_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Start a pipelines server without the user's token and kfp settings."""
    from kfp_server import KfpServer

    for name in ("KFP_TOKEN", "KFP_HOST", "KF_PIPELINES_OVERRIDE_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with KfpServer() as server:
        yield server
