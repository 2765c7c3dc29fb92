"""ci.yml and images.yml: when which job runs, and their commands, with docker, gh and .ci/run recorded.

The image is built and run in containers by tests of its own; here it is about what is published as what.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from workflow_service import Outcome, Service

pytestmark = pytest.mark.timeout(600)
REPOSITORY = "ghcr.io/acme/embedline-python"
DIGEST = f"sha256:{'ab' * 32}"


def test_ci_runs_the_one_script_and_fails_with_it(tmp_path: Path) -> None:
    service = Service(tmp_path, recorded={".ci/run": {}})
    done = service.run("ci.yml", "pull_request", ref="refs/pull/7/merge")
    assert done.jobs == {"check": "success"}, done.log
    assert [call["command"] for call in done.calls] == [["run"]]
    assert done.group == "ci-refs/pull/7/merge"


@pytest.mark.parametrize(
    ("event", "ref", "repository", "published"),
    [
        ("push", "refs/heads/main", REPOSITORY, True),
        ("workflow_dispatch", "refs/heads/main", REPOSITORY, True),
        ("workflow_dispatch", "refs/heads/try", REPOSITORY, False),
        ("pull_request", "refs/pull/7/merge", REPOSITORY, False),
        ("push", "refs/heads/main", "", False),
    ],
)
def test_only_main_publishes(tmp_path: Path, event: str, ref: str, repository: str, published: bool) -> None:
    service = Service(tmp_path, variables={"IMAGE_REPOSITORY": repository})
    done = service.run("images.yml", event, ref=ref, execute=False)
    assert done.jobs["build"] == "success"
    assert done.jobs["publish"] == ("success" if published else "skipped")
    assert done.jobs["lock"] == "skipped"  # nothing was pushed, so there is nothing to note


def _digests(text: str) -> Callable[[Path], None]:
    """Return the lock with other digests."""

    def change(checkout: Path) -> None:
        lock = checkout / "infra" / "images" / "images.lock.yaml"
        lock.write_text(lock.read_text().partition("digests:")[0] + f"digests: {text}\n")

    return change


def test_published_image_is_not_built_again(tmp_path: Path) -> None:
    service = Service(
        tmp_path,
        variables={"IMAGE_REPOSITORY": REPOSITORY},
        recorded_targets=("images", "demo-docker"),
        changed=_digests(f"{{cpu: '{DIGEST}'}}"),
    )
    done = service.run("images.yml", "push")
    assert done.jobs == {"build": "success", "publish": "skipped", "lock": "skipped"}, done.log
    assert done.calls == []


@pytest.mark.slow
def test_pushed_image_is_proposed_for_the_lock(tmp_path: Path) -> None:
    service = Service(
        tmp_path,
        variables={"IMAGE_REPOSITORY": REPOSITORY},
        recorded={"docker": {"inspect": f"{REPOSITORY}@{DIGEST}"}, "gh": {}},
        recorded_targets=("images", "demo-docker"),
        changed=_digests("{}"),
    )
    done = service.run("images.yml", "push")
    assert done.jobs == {"build": "success", "publish": "success", "lock": "success"}, done.log
    commands = [call["command"] for call in done.calls]
    assert commands[:3] == [["make", "images"], ["make", "demo-docker"], ["make", "images"]]
    (login,) = [call for call in done.calls if call["command"][:2] == ["docker", "login"]]
    assert login["command"][2:] == ["ghcr.io", "--username", "anna", "--password-stdin"]
    assert login["input"] == "token-of-this-run"  # never on the command line
    assert "token-of-this-run" not in done.log + str(commands)
    (tag,) = [command for command in commands if command[:2] == ["docker", "tag"]]
    version = tag[2].rpartition(":")[2]
    assert tag[3] == f"{REPOSITORY}:{version}"
    assert ["docker", "push", f"{REPOSITORY}:{version}"] in commands
    assert ["gh", "pr", "create", "--fill", "--base", "main"] in commands
    lock = yaml.safe_load(_pushed(done, "infra/images/images.lock.yaml"))
    assert (lock["repository"], lock["digests"], lock["tag"]) == (REPOSITORY, {"cpu": DIGEST}, version)
    assert f"image: {REPOSITORY}@{DIGEST}" in _pushed(done, "pipelines/retrain/pipeline.yaml")


def _pushed(done: Outcome, file: str) -> str:
    """Return a file of the branch that was pushed to the remote."""
    command = ["git", "show", f"image-{'ab' * 32}:{file}"]
    return subprocess.run(command, cwd=done.remote, capture_output=True, text=True, check=True).stdout
