"""A stand-in for the service that runs workflows: resolves, decides, and executes every `run:` in order.

Each job gets a fresh checkout of this project as a git repository with a remote of its own, so that `git
push` is real. The actions used are played: checkout is that copy, setup-python this interpreter. `.venv`
stands ready, so that `make .venv/.demo` finds nothing to do. Commands run under bash as the service starts
it; what only the service has (docker and its registry, gh, and .ci/run, which would run this test again) is
replaced by a recorder, first on PATH or in the copy, which writes down how it was called and what it was fed.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from workflow_expressions import as_text, evaluate, expressions_in, resolve, truth

_RUN_IDS = itertools.count(1)
ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"
_LEFT_OUT = shutil.ignore_patterns("*.egg-info", "__pycache__", ".*_cache")
_LEFT_OUT_ON_TOP = {".git", ".venv", "runs", "build", ".hypothesis"}  # src/embedline/runs is a package
# What may be named where: "Context availability" in GitHub's reference of contexts.
AVAILABLE = {
    "concurrency": {"github", "inputs", "vars"},
    "env": {"github", "secrets", "inputs", "vars"},
    "job.if": {"github", "needs", "vars", "inputs"},
    "job.environment": {"github", "needs", "vars", "inputs"},
    "job.env": {"github", "needs", "vars", "secrets", "inputs"},
    "job.outputs": {"github", "needs", "vars", "secrets", "inputs", "env", "steps", "job", "runner"},
    "step.if": {"github", "needs", "vars", "inputs", "env", "steps", "job", "runner"},
    "step": {"github", "needs", "vars", "secrets", "inputs", "env", "steps", "job", "runner"},
}
# An editable installation finds the package where it was installed from; here the checkout's own is meant.
_MOVED = """
import sys
found = [module for name, module in list(sys.modules.items()) if name.startswith("__editable___embedline")]
for places in [module.MAPPING for module in found]:
    places.update({{name: path.replace({old!r}, {new!r}, 1) for name, path in places.items()}})
assert found, "the package is not installed in editable form"
"""


def _left_out(folder: str, names: list[str]) -> set[str]:
    """Choose what a checkout does not copy of a folder."""
    return _LEFT_OUT(folder, names) | (_LEFT_OUT_ON_TOP & set(names) if Path(folder) == ROOT else set())


@dataclass
class Ran:
    """One step that ran."""

    job: str
    name: str
    environment: dict[str, str]
    code: int
    output: str


@dataclass
class Outcome:
    """Result of a workflow: each job's result, each step that ran, each call of a recorder."""

    group: str
    jobs: dict[str, str] = field(default_factory=dict)
    steps: list[Ran] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    summary: str = ""
    permissions: dict[str, Any] = field(default_factory=dict)
    environments: dict[str, str] = field(default_factory=dict)
    remote: Path = Path()

    @property
    def log(self) -> str:
        return "".join(step.output for step in self.steps)

    def step(self, name: str) -> Ran:
        return next(step for step in self.steps if step.name == name)


def read(name: str) -> dict[str, Any]:
    """Read a workflow; YAML 1.1 takes its key `on` for true."""
    values: dict[Any, Any] = yaml.safe_load((WORKFLOWS / name).read_text(encoding="utf-8"))
    return {"on" if key is True else str(key): value for key, value in values.items()}


@dataclass
class Service:
    """Runs workflows in `folder`.

    Args:
        variables, secrets: of the repository. Secrets of an environment are `environment_secrets[name]`.
        machine: the environment of the machine that jobs run on.
        recorded: recorders by name → what they print, by a word of the call.
        recorded_targets: of make, which carries out all others.
        changed: changes the project before it is committed and checked out.
    """

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    environment_secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)
    recorded: dict[str, dict[str, str]] = field(default_factory=dict)
    recorded_targets: tuple[str, ...] = ()
    changed: Callable[[Path], None] = lambda checkout: None

    def run(
        self,
        workflow: str,
        event: str,
        *,
        inputs: Mapping[str, Any] | None = None,
        payload: Mapping[str, Any] | None = None,
        ref: str = "refs/heads/main",
        execute: bool = True,
    ) -> Outcome:
        """One run of a workflow; a step that fails ends its job, and jobs that need it are skipped.

        Args:
            inputs: of workflow_dispatch, as a person gives them; defaults are filled in.
            payload: the event's own content (`github.event`).
            execute: whether commands run; else everything is only resolved.
        """
        values = read(workflow)
        assert event in values["on"], f"{workflow} does not listen to {event}"
        github = {"event_name": event, "event": dict(payload or {}), "ref": ref, "actor": "anna"}
        github["run_id"] = next(_RUN_IDS)
        base = {"github": github, "vars": self.variables, "inputs": _inputs(values, event, inputs or {})}
        group = resolve(str(values["concurrency"]["group"]), _at("concurrency", base))
        outcome = Outcome(group, remote=self.folder / "remote.git")
        needs: dict[str, Any] = {}
        for name, job in values["jobs"].items():
            wanted = [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])
            met = all(outcome.jobs[needed] == "success" for needed in wanted)
            contexts = {**base, "needs": {needed: needs.get(needed) for needed in wanted}}
            if not met or not truth(evaluate(_bare(job.get("if", "true")), _at("job.if", contexts))):
                outcome.jobs[name] = "skipped"
                continue
            place = resolve(str(job.get("environment", "")), _at("job.environment", contexts))
            outcome.environments[name], outcome.permissions[name] = place, job["permissions"]
            token = {"GITHUB_TOKEN": "token-of-this-run"}
            contexts["secrets"] = {**self.secrets, **token, **self.environment_secrets.get(place, {})}
            outputs = self._job(name, job, values, contexts, outcome, execute)
            needs[name] = {"outputs": outputs, "result": outcome.jobs[name]}
        return outcome

    def _job(
        self,
        name: str,
        job: dict[str, Any],
        workflow: dict[str, Any],
        contexts: dict[str, Any],
        outcome: Outcome,
        execute: bool,
    ) -> dict[str, str]:
        assert job["runs-on"] == "ubuntu-24.04"
        checkout = self._checkout(name) if execute else self.folder
        environment = _resolved(workflow.get("env", {}), _at("env", contexts))
        environment |= _resolved(job.get("env", {}), _at("job.env", contexts))
        steps: dict[str, Any] = {}
        contexts |= {"env": environment, "steps": steps, "job": {}, "runner": {"os": "Linux"}}
        outcome.jobs[name] = "success"
        for number, step in enumerate(job["steps"]):
            if "uses" in step:
                action = step["uses"].partition("@")[0]
                assert action in {"actions/checkout", "actions/setup-python"}, f"{action} is not played here"
                continue
            if not truth(evaluate(_bare(step.get("if", "true")), _at("step.if", contexts))):
                continue
            own = _resolved(step.get("env", {}), _at("step", contexts))
            assert not expressions_in(step["run"]), "expressions belong into env, not into scripts"
            ran = Ran(name, step.get("name", str(number)), {**environment, **own}, 0, "")
            outcome.steps.append(ran)
            outputs = self._execute(step["run"], workflow, ran, checkout, outcome) if execute else {}
            if "id" in step:
                steps[step["id"]] = {"outputs": outputs}
            if ran.code:
                outcome.jobs[name] = "failure"
                break
        return _resolved(job.get("outputs", {}), _at("job.outputs", contexts))

    def _execute(
        self, script: str, workflow: dict[str, Any], ran: Ran, checkout: Path, outcome: Outcome
    ) -> dict[str, str]:
        """Run a script as the service does; return its outputs."""
        assert workflow["defaults"]["run"]["shell"] == "bash"
        files = {key: self.folder / key.lower() for key in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for path in files.values():
            path.write_text("")
        calls = self.folder / "calls.jsonl"
        calls.write_text("")
        file = self.folder / "script.sh"
        file.write_text(script)
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(file)],
            cwd=checkout,
            env={
                "HOME": str(self.folder),
                "PATH": f"{self._recorders()}{os.pathsep}{os.environ['PATH']}",
                "RECORDED": str(calls),
                "CI": "true",
                **{key: str(path) for key, path in files.items()},
                **self.machine,
                **ran.environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=400,
        )
        ran.code, ran.output = done.returncode, done.stdout
        outcome.calls += [json.loads(line) for line in calls.read_text().splitlines()]
        outcome.summary += files["GITHUB_STEP_SUMMARY"].read_text()
        lines = files["GITHUB_OUTPUT"].read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def _recorders(self) -> Path:
        folder = self.folder / "recorders"
        folder.mkdir(exist_ok=True)
        for name, answers in self.recorded.items():
            if "/" not in name:
                _recorder(folder / name, answers)
        if self.recorded_targets:
            _recorder(folder / "make", {}, self.recorded_targets)
        return folder

    def _checkout(self, job: str) -> Path:
        """Make this project one commit with a remote; `.venv` holds this interpreter's commands."""
        checkout = self.folder / job
        shutil.copytree(ROOT, checkout, ignore=_left_out, symlinks=True)
        self.changed(checkout)
        if ".ci/run" in self.recorded:
            _recorder(checkout / ".ci" / "run", self.recorded[".ci/run"])
        remote = self.folder / "remote.git"
        git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
        if not remote.is_dir():
            subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(remote)], check=True)
        for command in (
            ["init", "-q", "-b", "main"],
            ["add", "--all"],
            ["commit", "-q", "--message", "as checked out"],
            ["remote", "add", "origin", str(remote)],
        ):
            subprocess.run([*git, *command], cwd=checkout, check=True)
        tools = checkout / ".venv" / "bin"
        tools.mkdir(parents=True)
        (checkout / ".venv" / "sitecustomize.py").write_text(_MOVED.format(old=str(ROOT), new=str(checkout)))
        python = f'PYTHONPATH="{checkout}/.venv" exec "{sys.executable}"'
        (tools / "python").write_text(f'#!/bin/sh\n{python} "$@"\n')
        (tools / "embedline").write_text(f'#!/bin/sh\n{python} -m embedline.cli "$@"\n')
        for tool in tools.iterdir():
            tool.chmod(0o755)
        for mark in (".demo", ".dev"):  # newer than what they are made from
            (checkout / ".venv" / mark).touch()
        return checkout


def _inputs(workflow: dict[str, Any], event: str, given: Mapping[str, Any]) -> dict[str, Any]:
    if event != "workflow_dispatch":
        return {}
    declared = (workflow["on"][event] or {}).get("inputs", {})
    assert set(given) <= set(declared), f"unknown inputs: {set(given) - set(declared)}"
    for name, about in declared.items():
        assert name in given or not about.get("required"), f"{name} is required"
    kinds = {"boolean": False, "string": ""}
    return {
        name: given.get(name, about.get("default", kinds[about["type"]])) for name, about in declared.items()
    }


def _bare(condition: Any) -> str:
    """Evaluate a condition: an expression with or without its braces."""
    text = as_text(condition).strip()
    return text.removeprefix("${{").removesuffix("}}") if text.startswith("${{") else text


def _resolved(values: Mapping[str, Any], contexts: Mapping[str, Any]) -> dict[str, str]:
    return {key: resolve(as_text(value), contexts) for key, value in values.items()}


def _at(place: str, contexts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in contexts.items() if name in AVAILABLE[place]}


def _recorder(path: Path, answers: Mapping[str, str], targets: Sequence[str] = ()) -> None:
    """Write a command that records its calls; with targets it is make, and records only these."""
    script = f"""#!{sys.executable}
import json, os, subprocess, sys

name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
targets, answers = {tuple(targets)!r}, {dict(answers)!r}
others = [word for word in words if word not in targets]
if targets and others:
    subprocess.run([{shutil.which("make")!r}, *others], check=True)
    words = [word for word in words if word in targets]
if words or not targets:
    with open(os.environ["RECORDED"], "a") as file:
        given = "" if sys.stdin.isatty() else sys.stdin.read()
        file.write(json.dumps({{"command": [name, *words], "input": given}}) + "\\n")
print("".join(text for word, text in answers.items() if word in words))
"""
    path.write_text(script)
    path.chmod(0o755)
