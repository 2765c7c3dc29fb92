"""Rules for every workflow: the service's schema, and safety against untrusted text."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from workflow_expressions import contexts_of, expressions_in
from workflow_service import AVAILABLE, WORKFLOWS, read

NAMES = sorted(path.name for path in WORKFLOWS.glob("*.y*ml"))
# Of any job, the most it may do; a permission that is not here is not given to anyone.
GRANTED = {
    ("ci.yml", "check"): {"contents": "read"},
    ("images.yml", "build"): {"contents": "read"},
    ("images.yml", "publish"): {"contents": "read", "packages": "write"},
    ("images.yml", "lock"): {"contents": "write", "pull-requests": "write"},
    ("retrain.yml", "plan"): {"contents": "read"},
    ("retrain.yml", "submit"): {"contents": "read"},
    ("promote.yml", "promote"): {"contents": "read"},
}


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name in NAMES:
        for job, content in read(name)["jobs"].items():
            yield name, job, content


def steps() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, job, content in jobs():
        for step in content["steps"]:
            yield name, job, step


def test_workflows_are_valid() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    files = [str(WORKFLOWS / name) for name in NAMES]
    done = subprocess.run([*command, *files], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert NAMES == ["ci.yml", "images.yml", "promote.yml", "retrain.yml"]


def test_actions_are_pinned_to_a_commit_with_their_version_beside() -> None:
    used = 0
    for name in NAMES:
        for line in (WORKFLOWS / name).read_text(encoding="utf-8").splitlines():
            if "uses:" in line:
                used += 1
                assert re.fullmatch(r"\s*- uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line
    assert used == 14
    pins = {step["uses"] for _, _, step in steps() if "uses" in step}
    assert len(pins) == len({pin.partition("@")[0] for pin in pins})  # one version of each


@pytest.mark.parametrize("name", NAMES)
def test_permissions_are_minimal(name: str) -> None:
    workflow = read(name)
    assert workflow["permissions"] == {}
    assert {"pull_request_target", "workflow_run"}.isdisjoint(workflow["on"])  # a stranger's code, our rights
    for job, content in workflow["jobs"].items():
        assert content["permissions"] == GRANTED[name, job]
        assert 0 < content["timeout-minutes"] <= 120
        for step in content["steps"]:
            if step.get("uses", "").startswith("actions/checkout@") and "write" not in str(
                content["permissions"]
            ):
                assert step["with"] == {"persist-credentials": False}


def test_scripts_contain_no_expressions() -> None:
    scripts = [step["run"] for _, _, step in steps() if "run" in step]
    assert len(scripts) > 8
    for script in scripts:
        assert not expressions_in(script), script
        assert "eval" not in script
        for variable in re.findall(r"\$(?:\{\w+|\w+)", script):  # a value is one word, whatever it holds
            assert re.search(rf'"[^"]*{re.escape(variable)}[^"]*"', script), (variable, script)


def test_secrets_reach_only_the_steps_that_need_them() -> None:
    for name, job, content in jobs():
        assert "secrets" not in str(content.get("env", "")), (name, job)
    for name in NAMES:
        assert "secrets" not in str(read(name).get("env", "")), name
    told = {
        (name, key)
        for name, _, step in steps()
        for key, value in step.get("env", {}).items()
        if "secrets." in value
    }
    assert told == {
        ("images.yml", "REGISTRY_TOKEN"),
        ("images.yml", "GH_TOKEN"),
        ("retrain.yml", "KFP_TOKEN"),
        ("retrain.yml", "MLFLOW_TRACKING_TOKEN"),
        ("promote.yml", "MLFLOW_TRACKING_TOKEN"),
    }
    for _, _, step in steps():
        for value in step.get("env", {}).values():
            if "secrets." in value:
                assert re.fullmatch(r"\$\{\{ secrets\.\w+ \}\}", value)


@pytest.mark.parametrize("name", NAMES)
def test_expressions_use_only_contexts_that_the_service_offers_there(name: str) -> None:
    workflow = read(name)
    places = [("concurrency", workflow["concurrency"]), ("env", workflow.get("env", {}))]
    for job in workflow["jobs"].values():
        places += [("job.env", job.get("env", {})), ("job.outputs", job.get("outputs", {}))]
        places += [("job.environment", job.get("environment", "")), ("step", job["steps"])]
        assert contexts_of(str(job.get("if", "true"))) <= AVAILABLE["job.if"]
        for step in job["steps"]:
            for expression in expressions_in(str(step.get("if", ""))):
                assert contexts_of(expression) <= AVAILABLE["step.if"]
    found = 0
    for place, content in places:
        for expression in expressions_in(str(content).replace('\\"', '"')):
            found += 1
            assert contexts_of(expression) <= AVAILABLE[place], (place, expression)
    assert found > 1


@pytest.mark.parametrize("name", NAMES)
def test_runs_of_one_thing_do_not_overlap(name: str) -> None:
    concurrency = read(name)["concurrency"]
    wanted = {"retrain.yml": "inputs.preset", "promote.yml": "inputs.version"}.get(name, "github.ref")
    assert wanted in concurrency["group"]
    if name in {"retrain.yml", "promote.yml"}:  # a training or a promotion is never cut off by the next
        assert concurrency["cancel-in-progress"] is False


def test_the_image_is_built_for_every_change_that_goes_into_it() -> None:
    listens = read("images.yml")["on"]
    paths = listens["push"]["paths"]
    assert paths == listens["pull_request"]["paths"]
    folders = {"infra/images/**", "components/**", "pipelines/**", "src/**"}
    follow = {
        "!infra/images/images.lock.yaml",
        "!pipelines/retrain/pipeline.yaml",
    }  # say which image there is
    assert set(paths) == folders | {"constraints.txt", "pyproject.toml"} | follow
    for path in paths:
        assert (WORKFLOWS.parents[1] / path.removeprefix("!").removesuffix("/**")).exists(), path


def test_paths_that_start_a_retraining() -> None:
    listens = read("retrain.yml")["on"]
    assert set(listens) == {"push", "schedule", "workflow_dispatch", "repository_dispatch"}
    assert listens["push"]["branches"] == ["main"]
    assert {"**/data.lock.json", "pipelines/**", "components/**", "src/**"} <= set(listens["push"]["paths"])
    assert read("promote.yml")["jobs"]["promote"]["environment"] == "production"
