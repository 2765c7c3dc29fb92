"""A workspace that is moved, copied or reached through a link: every command works on its own files."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import typer
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from embedline.artifacts.run_record import RunRecord
from embedline.artifacts.workspace import Workspace
from embedline.cli import runs
from embedline.cli.app import app
from embedline.config.model import Prompt
from embedline.dag import STEPS
from embedline.execution.execute import execute
from embedline.models.backbone import new_backbone
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.folder import save_embedder
from embedline.models.prompts import PromptTable
from embedline.models.tokenizer import train_tokenizer
from embedline.planning.preflight import preflight
from embedline.registry.server import default_uri
from embedline.runs.finish import finish
from embedline.steps.context import Context, StepResult

TEXTS = ["Where is the printer?", "Beside the window.", "Who fixes the lamp?", "The caretaker does."]
FAKED = ("ingest", "clean", "prune", "pretrain", "train_unsupervised", "mine", "train_supervised")
FAKED += ("export", "evaluate", "report")  # the gate and promote are the real ones
OPTIONS = ["-o", "gate.rules=[{set: desk, min: 0.5}]", "-o", "gate.require_parity=false"]
OPTIONS += ["-o", "gate.without=[below_untrained, collapsed]"]


class Place:
    """A folder of data with a preset, and a work folder below `home`."""

    def __init__(self, home: Path, work: str) -> None:
        self.home, self.work = home, home / work
        self.preset = home / "data" / "preset.yaml"

    def command(self, *arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, list(arguments))
        return done.exit_code, done.output

    def on_work(self, *arguments: str) -> tuple[int, str]:
        return self.command(*arguments, "--work", str(self.work))


def _write_data(folder: Path) -> None:
    row = {"query": TEXTS[0], "pos": [TEXTS[1]]}
    desk = folder / "desk"
    desk.mkdir(parents=True)
    (folder / "pairs.jsonl").write_text((json.dumps(row) + "\n") * 256)
    (folder / "preset.yaml").write_text(
        "name: tiny\ndata:\n  sources: [{path: pairs.jsonl}]\n  evaluation: [{path: desk}]\n"
    )
    passages = [{"_id": str(number), "text": TEXTS[number]} for number in (1, 3)]
    queries = [{"_id": "q", "text": TEXTS[0]}]
    for name, rows in (("corpus", passages), ("queries", queries)):
        (desk / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    (desk / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t1\n")


def _write_model(folder: Path) -> None:
    tokenizer = train_tokenizer(TEXTS * 3, 300)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    spec = EmbedderSpec(
        "mean",
        heads=("dense", "lexical"),
        query_length=16,
        document_length=16,
        dims=(16,),
        prompts=PromptTable({"default": Prompt()}),
    )
    save_embedder(Embedder(new_backbone("modernbert", sizes, tokenizer, 1), tokenizer, spec), folder)


@pytest.fixture(scope="module")
def patched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, patched: pytest.MonkeyPatch) -> Place:
    """Two runs with versions 1 and 2 of a real model; steps that would train write it as it is."""
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "KFP_")):
            patched.delenv(name)
    patched.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    made = tmp_path_factory.mktemp("original")
    place = Place(made / "home", "runs of 5%20 #1")
    _write_data(place.home / "data")
    _write_model(made / "model")
    _fake_steps(patched, made / "model")
    patched.setattr(runs, "run_here", _run_in_process)
    patched.setattr(runs, "require_kfp", lambda: None)
    for seed in (1, 2):
        code, said = place.on_work("run", str(place.preset), *OPTIONS, "-o", f"seed={seed}")
        assert code == 0, said
    return place


def _fake_steps(patch: pytest.MonkeyPatch, model: Path) -> None:
    """Steps that need no training: a model of its own for each seed, and scores that pass the gate."""
    weights = load_file(model / "model.safetensors")

    def write(context: Context, output: str, kind: str) -> None:
        folder, seed = context.output(output), context.step_config.config.get("seed", 0)
        if kind == "model":
            shutil.copytree(model, folder, dirs_exist_ok=True)
            save_file(weights, folder / "model.safetensors", {"format": "pt", "seed": str(seed)})
        elif kind == "scores":
            row = {"set": "desk", "kind": "retrieval", "metric": "ndcg@10", "main": True, "dim": 16}
            row |= {"value": 0.9, "runtime": "torch"}
            rows = [json.dumps({**row, "model": model}) + "\n" for model in ("candidate", "champion")]
            (folder / "scores.jsonl").write_text("".join(rows))
        elif kind == "report":
            (folder / "report.html").write_text("<p>none</p>")
        else:
            (folder / "made.json").write_text(json.dumps({"seed": seed}))

    def run(context: Context) -> StepResult:
        passed: dict[str, Any] = {}
        for output, kind in STEPS[context.step].outputs.items():
            if context.step == "prune_before":
                passed[output] = None
            elif context.step == "prune_after":
                passed[output] = context.artifact("model")
            else:
                write(context, output, kind)
        return StepResult(passed_through=passed)

    for name in FAKED:
        module = types.ModuleType(f"embedline.steps.{name}")
        module.run = run  # type: ignore[attr-defined]
        patch.setitem(sys.modules, module.__name__, module)


def _run_in_process(
    preset: str, overrides: Sequence[str], work: Path, run: str, watch: object, containers: object = None
) -> RunRecord:
    """Stand in for `run_here`: preflight, the steps in their order and finish, without processes."""
    workspace = Workspace(work)
    plan = preflight(preset, overrides, work, run)
    kept = workspace.run_folder(run) / "references"
    for name, step in STEPS.items():
        execute(
            name,
            config_json=plan.step_configs[name],
            workspace=workspace,
            run=run,
            inputs={given: kept / source for given, source in step.inputs.items()},
            outputs={output: kept / f"{name}.{output}" for output in step.outputs},
        )
    return finish(work, run, preset=preset)


Run = Callable[[Place], tuple[int, str]]
CHAMPION = "models:/tiny@champion"


def _elsewhere(place: Place) -> str:
    """An address for `promote --to-uri`."""
    (place.home / "elsewhere").mkdir()
    return default_uri(place.home / "elsewhere")


# Every command, in an order in which each finds something to do.
COMMANDS: dict[str, Run] = {
    "status": lambda at: at.on_work("status"),
    "status NAME": lambda at: at.on_work("status", "tiny"),
    "report": lambda at: at.on_work("report"),
    "history": lambda at: at.on_work("history", "tiny"),
    "gate": lambda at: at.on_work("gate", "latest", "-o", "gate.rules=[{set: desk, min: 0.6}]"),
    "step": lambda at: at.on_work("step", "gate"),
    "plan": lambda at: at.on_work("plan", str(at.preset), *OPTIONS, "-o", "seed=2"),
    "plan --since-last": lambda at: at.on_work("plan", str(at.preset), *OPTIONS, "--since-last"),
    "fingerprint": lambda at: at.on_work("fingerprint", str(at.preset)),
    "embed": lambda at: at.on_work("embed", CHAMPION, str(at.home / "data" / "desk" / "corpus.jsonl")),
    "search": lambda at: at.on_work("search", CHAMPION, str(at.home / "data/desk/corpus.jsonl"), TEXTS[0]),
    "search RUN": lambda at: at.command(
        "search", str(at.work / "latest" / "model"), str(at.home / "data/desk/corpus.jsonl"), TEXTS[0]
    ),
    "index": lambda at: at.on_work(
        "index",
        str(at.home / "data/desk/corpus.jsonl"),
        "--model",
        CHAMPION,
        "--output",
        str(at.home / "index"),
    ),
    "prune": lambda at: at.on_work(
        *("prune", CHAMPION, "--vocabulary", str(at.home / "data/desk/corpus.jsonl")),
        *("--out", str(at.home / "small")),
    ),
    "convert": lambda at: at.on_work(
        "convert", CHAMPION, str(at.home / "converted"), "--to", "flagembedding"
    ),
    "evaluate": lambda at: at.on_work("evaluate", CHAMPION, str(at.home / "data" / "desk")),
    "rollback": lambda at: at.on_work("rollback", "tiny"),
    "promote": lambda at: at.on_work("promote", "tiny", "2"),
    "promote --to-uri": lambda at: at.on_work("promote", "tiny", "2", "--to-uri", _elsewhere(at)),
    "reconcile": lambda at: at.on_work("reconcile", "tiny"),
    "run": lambda at: at.on_work("run", str(at.preset), *OPTIONS, "-o", "seed=2"),
    "run NEW": lambda at: at.on_work("run", str(at.preset), *OPTIONS, "-o", "seed=3"),
    "doctor": lambda at: at.on_work("doctor"),
    "clean-up": lambda at: at.on_work("clean-up", "--keep", "1", "--grace", "0"),
    "webhook list": lambda at: at.on_work("webhook", "list"),
}
# They read and write no workspace.
WITHOUT = {"init", "compile", "submit", "webhook add", "webhook remove", "webhook test"}


def test_every_command_of_the_program_has_its_line() -> None:
    names = set()
    for name, each in vars(typer.main.get_command(app))["commands"].items():
        names |= {f"{name} {sub}" for sub in vars(each).get("commands", {})} or {name}
    lines = {line.removesuffix(" NAME").removesuffix(" RUN").removesuffix(" NEW") for line in COMMANDS}
    assert names == {line.partition(" --")[0] for line in lines} | WITHOUT


def _moved(original: Place, home: Path) -> Place:
    shutil.copytree(original.home, home / "first", symlinks=True)
    shutil.move(home / "first", home / "second")
    return Place(home / "second", original.work.name)


def _linked(original: Place, home: Path) -> Place:
    shutil.copytree(original.home, home / "true", symlinks=True)
    (home / "link").symlink_to("true")
    return Place(home / "link", original.work.name)


@pytest.mark.parametrize("way", [_moved, _linked])
def test_every_command_works_in_a_copy_and_leaves_the_original_alone(
    way: Callable[[Place, Path], Place], original: Place, tmp_path: Path
) -> None:
    place = way(original, tmp_path)
    hidden = original.home.with_name("hidden")
    original.home.rename(hidden)  # what still refers to it fails
    try:
        for name, run in COMMANDS.items():
            code, said = run(place)
            # a machine may fail a check of doctor; the tracker is the workspace's
            assert code == 0 or name == "doctor", f"{name}: {said}"
            assert str(original.home) not in said, f"{name}: {said}"
            assert "no champion yet" not in said
        assert not original.home.exists()
    finally:
        shutil.rmtree(original.home, ignore_errors=True)
        hidden.rename(original.home)
    _plain_mlflow_reads_it(place)


def test_copy_and_original_are_used_side_by_side(original: Place, tmp_path: Path) -> None:
    before = _content(original.work)
    shutil.copytree(original.home, tmp_path / "copy", symlinks=True)
    copy = Place(tmp_path / "copy", original.work.name)
    assert copy.on_work("rollback", "tiny")[0] == 0
    assert copy.on_work("run", str(copy.preset), *OPTIONS, "-o", "seed=4")[0] == 0
    assert _content(original.work) == before
    latest = json.loads((copy.work / "latest" / "steps" / "evaluate" / "record.json").read_text())
    scores = copy.work / latest["outputs"]["scores"]["path"] / "scores.jsonl"
    scores.write_text(scores.read_text().replace("0.9", "0.4"))
    code, said = copy.on_work("gate")
    assert (code, f"{scores}: the file has changed" in said) == (2, True), said
    assert original.on_work("gate")[0] == 0


def _content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def _plain_mlflow_reads_it(place: Place) -> None:
    import mlflow
    from mlflow import MlflowClient

    uri = default_uri(place.work.resolve() / ".embedline" / "tracking")
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    version = client.get_model_version_by_alias("tiny", "champion")
    location = client.get_model_version_download_uri("tiny", version.version)
    arrived = mlflow.artifacts.download_artifacts(location, tracking_uri=uri)
    assert Path(arrived).resolve().is_relative_to(place.work.resolve())
    assert (Path(arrived) / "model.safetensors").is_file()


def _as_earlier_releases_wrote_it(work: Path) -> None:
    """Write absolute references into the files of a workspace, as they were before they were relative."""

    def absolute(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: absolute(each) for key, each in value.items() if key != "format"}
        if isinstance(value, list):
            return [absolute(each) for each in value]
        if not isinstance(value, str):
            return value
        if value.startswith("workspace:"):
            return default_uri(work / ".embedline" / "tracking")
        return str(work / value) if value.startswith(".embedline/") else value

    for name in ("run.json", "tracking.json", "record.json"):
        for path in work.glob(f"*/**/{name}"):
            path.write_text(json.dumps(absolute(json.loads(path.read_text()))))


def test_a_workspace_of_an_earlier_release_is_opened_and_moved(original: Place, tmp_path: Path) -> None:
    first = _moved(original, tmp_path / "a")
    _as_earlier_releases_wrote_it(first.work)
    record = json.loads((first.work / "latest" / "steps" / "gate" / "record.json").read_text())
    assert record["outputs"]["verdict"]["path"].startswith(str(first.work))
    (first.home / "other").mkdir()
    shared = default_uri(first.home / "other")  # a database that is not the workspace's own
    second = _moved(first, tmp_path / "b")
    shutil.rmtree(first.home)
    for name in ("status", "report", "gate", "step", "embed", "rollback"):
        code, said = COMMANDS[name](second)
        assert code == 0, f"{name}: {said}"
    code, said = second.on_work("status", "--json")
    (model,) = json.loads(said)["champions"]
    assert (model["aliases"]["champion"], str(second.work) in model["uri"]) == (1, False)
    assert Workspace(second.work).locate_uri(shared) == shared
    assert not first.home.exists()


def test_files_of_a_workspace_do_not_name_its_place(original: Place) -> None:
    place = str(original.work).encode()
    quoted = original.work.as_uri().removeprefix("file://").encode()
    database = original.work / ".embedline" / "tracking" / "mlflow.db"
    naming = [
        path
        for path in original.work.rglob("*")
        if path.is_file() and path != database and (place in (text := path.read_bytes()) or quoted in text)
    ]
    assert naming == []


def test_no_address_of_the_database_is_left_behind(original: Place, tmp_path: Path) -> None:
    place = _moved(original, tmp_path)
    assert place.on_work("report")[0] == 0
    database = place.work / ".embedline" / "tracking" / "mlflow.db"
    former = [str(original.work), original.work.as_uri().removeprefix("file://")]
    left = []
    with closing(sqlite3.connect(database)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                left += [(table, value) for value in row if any(old in str(value) for old in former)]
    assert left == []
