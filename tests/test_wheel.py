"""What is built is what runs elsewhere: the wheel carries the pipeline, the components and the presets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedline.artifacts.code_version import package_digest
from embedline.components.image import IMAGE

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_wheel_plans_the_demo_away_from_the_checkout(tmp_path: Path) -> None:
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(ROOT)], check=True)
    (wheel,) = wheels.glob("embedline-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    code = (
        "import embedline.components.ingest.component as c, embedline.pipelines.retrain.pipeline as p;"
        "from embedline.components.image import IMAGE;"
        "from embedline.artifacts.code_version import package_digest;"
        "print(c.__file__, p.__file__, IMAGE, package_digest())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    *paths, image, digest = found.stdout.split()
    assert all(path.startswith(str(site)) for path in paths)
    assert (image, digest) == (IMAGE, package_digest()), "the same names as in the checkout"
    planned = subprocess.run(
        [sys.executable, "-m", "embedline.cli", "plan", "demo", "--work", str(tmp_path / "work")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert planned.returncode == 0, planned.stderr
    assert "train_supervised" in planned.stdout
