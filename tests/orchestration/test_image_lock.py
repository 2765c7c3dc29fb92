"""The image's reference changes only with the code; an image with other code is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedline.artifacts import code_version as code
from embedline.artifacts.workspace import Workspace
from embedline.components.image import reference
from embedline.errors import InputError
from embedline.orchestration import image_lock
from embedline.planning.preflight import preflight

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """Copy the package with a wheel's layout, below embedline/."""
    package = tmp_path / "site" / "embedline"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src" / "embedline", package, ignore=ignore)
    for name, source in (
        ("components", "components"),
        ("pipelines", "pipelines"),
        ("images", "infra/images"),
    ):
        shutil.copytree(ROOT / source, package / name, ignore=ignore)
    return package


def _digest(package: Path) -> str:
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "from embedline.artifacts.code_version import package_digest; print(package_digest())",
        ],
        env={**os.environ, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
        cwd=package.parent,
    )
    return said.stdout.strip()


def test_a_checkout_and_a_wheel_of_it_have_one_digest(wheel: Path) -> None:
    assert _digest(wheel) == code.package_digest()


@pytest.mark.parametrize(
    ("file", "moves"),
    [
        ("gate/decision.py", True),
        ("components/mine/component.py", True),
        ("pipelines/retrain/presets/demo.yaml", True),
        ("evaluation/report.css", True),
        ("pipelines/retrain/pipeline.yaml", False),  # compiled from the rest, and it names the image
        ("images/images.lock.yaml", False),
        ("components/mine/README.md", False),
    ],
)
def test_code_digest_changes_only_with_code_that_runs(wheel: Path, file: str, moves: bool) -> None:
    with (wheel / file).open("a") as changed:
        changed.write("\n")
    assert (_digest(wheel) != code.package_digest()) is moves


def test_code_digest_changes_with_a_renamed_file(wheel: Path) -> None:
    (wheel / "gate" / "policy.py").rename(wheel / "gate" / "rules.py")
    assert _digest(wheel) != code.package_digest()


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "images.lock.yaml"
    path.write_text(
        "repository: registry.example/embedline-python\ncode: old\nrecipe: ''\ntag: x\ndigests: {}\n"
    )
    monkeypatch.setattr(image_lock, "lock_path", lambda: path)
    return path


def _read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load(path.read_text())
    return value


def test_stale_lock_is_reported_until_it_is_refreshed(lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert image_lock.main(["--check"]) == 1
    assert "Run: make lock" in capsys.readouterr().err
    assert image_lock.main([]) == 0
    assert image_lock.main(["--check"]) == 0
    assert _read(lock)["code"] == code.package_digest()
    assert _read(lock)["repository"] == "registry.example/embedline-python", "the user's own stays"
    before = lock.read_bytes()
    assert image_lock.main([]) == 0
    assert lock.read_bytes() == before


def test_merged_lock_is_stale_and_refreshed(lock: Path) -> None:
    image_lock.refresh()
    fresh = lock.read_text()
    both = [line for line in fresh.splitlines() for _ in (0, 1)]
    lock.write_text("\n".join(both) + "\n")
    assert image_lock.stale()
    image_lock.refresh()
    assert lock.read_text() == fresh


def test_components_refer_to_the_digest_after_publishing(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_lock.refresh()
    tag = _read(lock)["tag"]
    assert reference(_read(lock), "cpu") == f"registry.example/embedline-python:{tag}"
    assert reference(_read(lock), "gpu") == f"registry.example/embedline-python:{tag}-gpu"
    assert image_lock.main(["--published", f"cpu=registry.example/embedline-python@{DIGEST}"]) == 0
    assert reference(_read(lock), "cpu") == f"registry.example/embedline-python@{DIGEST}"
    assert reference(_read(lock), "gpu").endswith("-gpu"), "that one was not pushed"
    assert not image_lock.stale()
    monkeypatch.setattr(image_lock, "package_digest", lambda: "f" * 64)
    assert image_lock.stale()
    image_lock.refresh()
    assert _read(lock)["tag"] != tag
    assert reference(_read(lock), "cpu") == f"registry.example/embedline-python:{_read(lock)['tag']}"


@pytest.mark.parametrize(
    "changed", ["constraints.txt", "infra/images/Containerfile", "infra/images/trim.sh", "pyproject.toml"]
)
def test_tag_changes_with_the_other_parts_of_the_image(tmp_path: Path, changed: str) -> None:
    for name in ("constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "infra" / "images", tmp_path / "infra" / "images")
    before = image_lock.recipe_digest(tmp_path)
    path = tmp_path / changed
    text = path.read_text()
    path.write_text(
        text.replace('"boto3>=1.40"', '"boto3>=1.41"') if changed == "pyproject.toml" else f"{text}#\n"
    )
    assert image_lock.recipe_digest(tmp_path) != before


def test_tag_ignores_other_settings_in_pyproject(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "infra" / "images", tmp_path / "infra" / "images")
    for name in ("constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    before = image_lock.recipe_digest(tmp_path)
    path = tmp_path / "pyproject.toml"
    path.write_text(path.read_text().replace("line-length = 110", "line-length = 100"))
    assert image_lock.recipe_digest(tmp_path) == before


@pytest.mark.parametrize("wrong", ["cpu", "cpu=repo:tag", f"tpu=repo@{DIGEST}", "cpu=repo@sha256:abc"])
def test_published_image_needs_repository_and_digest(
    lock: Path, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image_lock.refresh()
    before = lock.read_bytes()
    assert image_lock.main(["--published", wrong]) == 2
    assert "TARGET=REPOSITORY@sha256:DIGEST" in capsys.readouterr().err
    assert lock.read_bytes() == before


def test_pushed_image_of_older_code_is_refused(lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert image_lock.main(["--published", f"cpu=repo@{DIGEST}"]) == 2
    assert "make lock" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("image", "compiled_for", "fine"),
    [
        ("repo:1", "same", True),
        ("repo:1", "f" * 64, False),
        (None, "f" * 64, True),  # a laptop: pipeline and code are one checkout
        ("repo:1", None, True),  # not called by a compiled pipeline
    ],
)
def test_preflight_refuses_an_image_with_other_code(
    image: str | None, compiled_for: str | None, fine: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"EMBEDLINE_IMAGE": image, "EMBEDLINE_COMPILED_FOR": compiled_for}
    for name, value in told.items():
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, code.package_digest() if value == "same" else value)
    # What comes next is refused for another reason: the preset does not exist.
    with pytest.raises(InputError) as refused:
        preflight("no-such-preset", [], tmp_path, "r")
    assert ("compiled for ffffffffffff" in str(refused.value)) is not fine
    assert ("no preset is called" in str(refused.value)) is fine
    record = (Workspace(tmp_path).step_folder("r", "preflight") / "record.json").read_text()
    assert '"exit_code": 2' in record
    assert '"final": true' in record
