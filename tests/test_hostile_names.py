"""Folders with names that are syntax elsewhere: each command works as with a plain name, or refuses."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from embedline.cli.app import app
from embedline.cli.shared import wide_console
from embedline.config.load import load_config
from embedline.errors import InputError
from embedline.orchestration.containers import plan_containers
from embedline.registry import promotion, server
from embedline.registry.download import download
from embedline.registry.files import FILES_TAG, file_tags
from embedline.registry.tracking import RunMirror
from embedline.registry.versions import get_champion, register

REFUSED = ["\udcff", "line\nfeed", "\x1b[31mred", "{{$.inputs}}", "n" * 256]
USABLE = ["plain", '[/red] it\'s "q" $(id);`id`&|', "-rf w?x#100% a%20b s3::y://z@h {a,b}* 😀 Е\u0308ж\\"]

# The arguments of every command, with FOLDER for the folder of that name.
COMMANDS = {
    "init": ["FOLDER"],
    "plan": ["PRESET", "--work", "FOLDER/runs"],
    "run": ["PRESET", "--work", "FOLDER/runs"],
    "fingerprint": ["PRESET", "--work", "FOLDER/runs", "--write", "FOLDER/lock.json"],
    "status": ["--work", "FOLDER/runs"],
    "report": ["--work", "FOLDER/runs"],
    "step": ["clean", "--work", "FOLDER/runs"],
    "gate": ["--work", "FOLDER/runs"],
    "clean-up": ["--work", "FOLDER/runs"],
    "evaluate": ["FOLDER/model", "FOLDER/set", "--work", "FOLDER/runs"],
    "embed": ["FOLDER/model", "FOLDER/texts.txt"],
    "index": ["FOLDER/texts.txt", "--model", "FOLDER/model"],
    "search": ["FOLDER/model", "FOLDER/texts.txt", "question"],
    "convert": ["FOLDER/model", "FOLDER/out", "--to", "flagembedding"],
    "prune": ["FOLDER/model", "--vocabulary", "FOLDER/texts.txt", "--out", "FOLDER/out"],
    "promote": ["tiny", "1", "--work", "FOLDER/runs"],
    "rollback": ["tiny", "--work", "FOLDER/runs"],
    "history": ["tiny", "--work", "FOLDER/runs"],
    "reconcile": ["tiny", "--work", "FOLDER/runs"],
    "compile": ["PRESET", "--output", "FOLDER/pipeline.yaml"],
    "submit": ["PRESET", "--work", "FOLDER/runs", "--host", "http://127.0.0.1:9"],
    "doctor": ["--work", "FOLDER/runs"],
}


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def run(command: str, folder: Path, *more: str) -> tuple[int, str]:
    """Run a command on a folder; return its exit code and what it printed, with FOLDER for the folder."""
    values = {"PRESET": str(folder / "preset.yaml"), "FOLDER": str(folder)}
    arguments = [
        values.get(word) or word.replace("FOLDER/", f"{folder}/") for word in [*COMMANDS[command], *more]
    ]
    result = CliRunner().invoke(app, [command, *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_every_command_refuses_the_name_before_it_writes(tmp_path: Path, name: str) -> None:
    for command in COMMANDS:
        code, printed = run(command, tmp_path / name)
        assert (code, printed.count("\n")) == (2, 1), (command, printed)
        assert "has a name" in printed
        assert not list(tmp_path.iterdir()), command


def test_the_walk_knows_every_command() -> None:
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert known == {*COMMANDS, "webhook"}  # webhooks have an address and no folder


@pytest.fixture(scope="module")
def printed_for_plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return walk(tmp_path_factory.mktemp("walk") / "plain")


def walk(folder: Path) -> dict[str, tuple[int, str]]:
    """Run the commands that need no trained model; return their codes and outputs without the folder."""
    folder.mkdir(parents=True)
    server.prepare(server.default_uri(folder / "runs" / ".embedline" / "tracking"))  # as a run creates it
    rows = [{"query": f"question {n}", "pos": [f"answer {n}"]} for n in range(256)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "preset.yaml").write_text("name: tiny\ndata:\n  sources: [{path: pairs.jsonl}]\n")
    told = {}
    for command in ("status", "plan", "fingerprint", "report", "promote", "history", "clean-up", "evaluate"):
        code, printed = run(command, folder)
        address = server.default_uri(folder / "runs" / ".embedline" / "tracking")
        printed = printed.replace(address, "ADDRESS").replace(shlex.quote(f"{folder}/runs"), "FOLDER/runs")
        printed = re.sub(r"[\d.]+ GB", "MEMORY", printed)  # what is free changes
        told[command] = code, printed.replace(str(folder), "FOLDER")
    return told


@pytest.mark.parametrize("name", USABLE[1:])
def test_commands_work_as_with_a_plain_name(
    tmp_path: Path, name: str, printed_for_plain: dict[str, tuple[int, str]]
) -> None:
    folder = tmp_path / name
    assert walk(folder) == printed_for_plain
    assert printed_for_plain["plan"][0] == printed_for_plain["history"][0] == 0
    assert (folder / "runs" / ".embedline" / "tracking" / server.DATABASE).stat().st_size > 100_000
    assert [path.name for path in tmp_path.iterdir()] == [name.partition("/")[0]]


def test_commands_that_init_prints_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / USABLE[1]
    monkeypatch.setattr("embedline.cli.runs.write_starter", lambda folder: [folder / "preset.yaml"])
    _, printed = run("init", folder)
    command = printed.splitlines()[-1].strip().removeprefix("embedline run ")
    told = subprocess.run(["bash", "-c", f"printf %s {command}"], capture_output=True, text=True, check=True)
    assert told.stdout == str(folder / "preset.yaml")


def test_console_prints_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["[/red]", "[bold]x[/bold]", ":smile:", "[link=http://host]y"]
    for name in names:
        wide_console().print(name, soft_wrap=True)
    assert capsys.readouterr().out.splitlines() == names


def test_progress_shows_a_metric_with_brackets() -> None:
    from embedline.artifacts.record import StepRecord
    from embedline.orchestration.progress import Progress

    console = Console(force_terminal=True, width=80)
    progress = Progress(console)
    with console.capture():
        progress(Path("/runs/[/red]"), [StepRecord(step="[/red]", status="running")])
        progress.stop()


def test_docker_is_refused_for_a_path_with_a_colon(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    with pytest.raises(InputError, match="colon"):
        plan_containers(load_config("demo", []), "demo", folder, "none")


def test_run_refuses_a_placeholder_of_kfp_in_a_name(tmp_path: Path) -> None:
    for option in (["--name", "{{$.x}}"], ["-o", "description='{{$.x}}'"]):
        result = CliRunner().invoke(app, ["run", "demo", "--work", str(tmp_path / "runs"), *option])
        assert (result.exit_code, result.output.count("\n")) == (2, 1)
        assert "kfp" in result.output
        assert not list(tmp_path.iterdir())


def test_a_version_goes_through_the_registry_of_such_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "100% [/red] w?x#y@z%20"
    model = folder / "model"
    model.mkdir(parents=True)
    uri = server.default_uri(folder / "tracking")
    server.prepare(uri)
    RunMirror(uri, "embedline").parent("tiny-1", {"status": "succeeded"})
    for number, weights in enumerate(("one", "two"), 1):
        (model / "weights.txt").write_text(weights)
        assert register("tiny", model, digest=weights, tags={"verdict": "passed"}, uri=uri) == number
        promotion.promote("tiny", number, reason="test", by="ann", uri=uri)
    promotion.rollback("tiny", reason="test", by="ann", uri=uri)
    champion = get_champion("tiny", uri=uri)
    assert champion is not None
    assert champion.path is not None
    assert champion.path.is_relative_to(folder)
    assert (champion.path / "weights.txt").read_text() == "one"
    assert (download("tiny", 2, folder / "copy", uri=uri) / "weights.txt").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["100% ["]


@pytest.mark.parametrize("name", ["a#b", "a%20b", "100%", "a?b", "two words", "it's", "a:b", "[x]"])
def test_a_model_with_a_file_that_mlflow_could_not_return_is_refused(tmp_path: Path, name: str) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.uri import validate_path_is_safe

    (tmp_path / name).write_text("text")
    try:
        returned = validate_path_is_safe(name) == name
    except MlflowException:
        returned = False
    if returned:
        assert name in file_tags(tmp_path)[FILES_TAG]
    else:
        with pytest.raises(InputError, match="MLflow reads as an address"):
            file_tags(tmp_path)
    assert returned == (name not in {"a#b", "a%20b"})
