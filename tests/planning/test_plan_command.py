"""`embedline plan` on presets whose data and models are not here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FAKES = Path(__file__).parent.parent / "orchestration" / "fakes"


def plan(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys\nfrom embedline.cli import main\n"
        "try:\n    main()\nfinally:\n"
        "    print('TORCH', 'torch' in sys.modules, file=open('loaded.txt', 'w'))\n"
    )
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hub"),
        "COLUMNS": "200",
        "PYTHONPATH": str(FAKES),
        "MLFLOW_TRACKING_URI": f"fake://{tmp_path / 'tracker.txt'}",
    }
    return subprocess.run(
        [sys.executable, "-c", code, "plan", *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=240,
    )


def test_what_a_preset_costs_is_said_before_what_it_lacks(tmp_path: Path) -> None:
    done = plan(tmp_path, "bge-m3", "--work", "runs")
    assert done.returncode == 2
    lines = done.stdout.splitlines()
    assert lines[0] == "567.8M parameters in 24 layers"
    for batch in ("67,200", "54,720", "9,984", "1,152", "192"):  # by bucket, of both stages
        assert any(f" {batch} " in line for line in lines), batch
    assert any(line.startswith("pretrain ") and "20,000" in line and "83.9B" in line for line in lines)
    assert "hours of one h100 at 40% of 989 TFLOP/s" in done.stdout
    assert "not here: data.sources: 26 of 26" in done.stdout
    assert "not here: model.base: FacebookAI/xlm-roberta-large" in done.stdout
    assert done.stderr.startswith("error: data.sources.0.path: ")
    assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "loaded.txt").read_text() == "TORCH False\n"


@pytest.mark.parametrize("preset", ["bge-m3", "nomic-embed", "giga-embeddings"])
def test_the_estimate_alone_needs_nothing(preset: str, tmp_path: Path) -> None:
    done = plan(tmp_path, preset, "--estimate", "--gpu", "a100", "--utilisation", "0.3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "hours of one a100 at 30% of 312 TFLOP/s" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loaded.txt"]


def test_warnings_come_with_the_estimate(tmp_path: Path) -> None:
    done = plan(tmp_path, "bge-m3", "--estimate", "-o", "supervised.negatives=15")
    assert "note: supervised.negatives: 15; more than 7" in done.stdout


def test_the_estimate_as_json_with_what_is_missing(tmp_path: Path) -> None:
    done = plan(tmp_path, "giga-embeddings", "--work", "runs", "--json")
    assert done.returncode == 2
    assert done.stderr == ""
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["exit_code"] == 2
    assert told["error"].startswith("data.sources.0.path")
    assert "model.base: gigachat" in told["missing"]
    stages = {stage["name"]: stage for stage in told["estimate"]["stages"]}
    assert list(stages) == ["pretrain", "train_unsupervised", "train_supervised"]
    assert stages["train_unsupervised"]["batches"][0]["batch"] == 1024
    assert stages["train_unsupervised"]["tokens"] == 20000 * 1024 * 1024


def test_a_gpu_that_is_not_known_is_refused(tmp_path: Path) -> None:
    done = plan(tmp_path, "bge-m3", "--estimate", "--gpu", "abacus")
    assert done.returncode == 2
    assert "--gpu" in done.stderr
    assert "h100" in done.stderr
