"""Commands promote, rollback, status, history and reconcile: output and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from embedline.cli.app import app
from embedline.registry.versions import register


@pytest.fixture
def run(uri: str, make_model: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Register three versions of `demo`, the third refused; return a function that runs a command."""
    for name in ("GITHUB_ACTOR", "GITLAB_USER_LOGIN"):
        monkeypatch.delenv(name, raising=False)
    for number, verdict in enumerate(("passed", "passed", "refused"), 1):
        model = make_model(str(number))
        tags = {"verdict": verdict, "verdict.reasons": "Docs is low.", "embedline.judged_at": str(number)}
        register("demo", model.path, digest=model.digest, tags=tags, uri=uri)

    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, [*words, "--uri", uri])
        return result.exit_code, result.output

    return run


def test_promote_rollback_history_and_status(run: Any, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("reconcile", "demo") == (0, "challenger is version 2, the last that passed the gate.\n")
    assert run("promote", "demo", "1", "--by", "ann") == (0, "demo version 1 is champion.\n")
    monkeypatch.setenv("GITHUB_ACTOR", "octocat")
    code, output = run("promote", "demo", "2", "--reason", "release 2", "--json")
    assert (code, json.loads(output)["previous"], json.loads(output)["reindex"]) == (0, 1, True)
    code, output = run("promote", "demo", "3")
    assert (code, "the gate did not pass. Docs is low." in output) == (3, True)
    code, output = run("promote", "demo", "1", "--expect", "1")
    assert (code, "became version 2 by octocat" in output) == (4, True)
    assert run("promote", "demo", "9")[0] == 2
    assert run("promote", "demo", "1", "--expect", "first")[0] == 2
    code, output = run("rollback", "demo", "--expect", "2")
    assert (code, "demo version 1 is champion again (was version 2)." in output) == (0, True)

    code, output = run("history", "demo", "--json")
    assert [(m["kind"], m["by"], m["reason"], m["version"]) for m in json.loads(output)] == [
        ("promote", "ann", "by hand", 1),
        ("promote", "octocat", "release 2", 2),
        ("rollback", "octocat", "rollback by hand", 1),
    ]
    assert "champion: version 1 → version 2  by octocat" in run("history", "demo")[1]
    code, output = run("status", "demo")
    assert (code, "champion: version 1 (verdict passed)" in output) == (0, True)
    assert run("reconcile", "demo") == (0, "demo: nothing to do\n")


def test_an_alias_moved_by_hand_is_reported_and_restored(run: Any, uri: str) -> None:
    run("reconcile", "demo")
    run("promote", "demo", "1")
    MlflowClient(uri, uri).set_registered_model_alias("demo", "champion", "3")
    code, output = run("status", "demo")
    assert (code, "it was moved by other means" in output) == (4, True)
    assert run("reconcile", "demo")[0] == 4
    assert run("reconcile", "demo", "--accept", "--restore")[0] == 2
    code, output = run("reconcile", "demo", "--restore", "--json")
    assert (code, json.loads(output)["undecided"]) == (0, [])
    assert run("status", "demo", "--json")[0] == 0


@pytest.mark.parametrize(
    "words",
    [["promote", "demo", "1"], *([name, "demo"] for name in ("rollback", "history", "reconcile", "status"))],
)
def test_a_missing_work_folder_is_named_and_not_created(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    for name, message in (("missing", "no such work folder"), ("empty", "there is no workspace")):
        result = CliRunner().invoke(app, [*words, "--work", str(tmp_path / name)])
        assert (result.exit_code, message in result.output) == (2, True), result.output
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["promote", "demo", "1", "--to-name", "x"], "--to-uri"),
        (
            ["promote", "demo", "1", "--to-uri", "http://me:hunter2@host"],
            "http://me:***@host: holds a password",
        ),
        (["promote", "demo", "1", "--to-uri", "http://host", "--to-token", "hunter2"], "takes env:NAME"),
        (["webhook", "add", "d", "https://host", "--secret", "hunter2"], "--secret: takes env:NAME"),
        (["webhook", "add", "d", "https://me:hunter2@host", "--secret", "env:X"], "holds a password"),
    ],
)
def test_secrets_on_the_command_line_are_refused_and_not_repeated(
    run: Any, words: list[str], message: str
) -> None:
    code, output = run(*words)
    assert (code, output in output, "hunter2" in output) == (2, True, False)


def test_a_model_that_was_not_judged_is_promoted_by_name_and_the_history_says_so(
    run: Any, uri: str, make_model: Any
) -> None:
    model = make_model("unjudged")
    tags = {"verdict": "not judged", "verdict.reasons": "No evaluation set was scored."}
    assert register("demo", model.path, digest=model.digest, tags=tags, uri=uri) == 4
    run("reconcile", "demo")
    assert "challenger: version 2" in run("status", "demo")[1], "the last that passed"
    code, output = run("promote", "demo", "4", "--by", "ann", "--reason", "seen by eye")
    assert (code, output) == (0, "demo version 4 is champion. It was not judged by the gate.\n")
    assert "nothing → version 4  by ann  (not judged)\n      seen by eye" in run("history", "demo")[1]
    assert json.loads(run("history", "demo", "--json")[1])[0]["verdict"] == "not judged"
    assert "champion: version 4 (verdict not judged)" in run("status", "demo")[1]
