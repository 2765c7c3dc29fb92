"""Spools replayed to MLflow: everything is sent exactly once. Read back with mlflow's own client."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from embedline.artifacts.tracker import Tracker
from embedline.errors import InputError
from embedline.registry import tracking
from embedline.registry.server import TrackingError, prepare
from embedline.registry.spool import SENT, clean_key
from embedline.registry.tracking import RunMirror

RUN = "demo-1"


def nested_runs(uri: str, experiment: str = "tests") -> dict[str, list]:
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id], max_results=1000)
    steps: dict[str, list] = {}
    for run in found:
        steps.setdefault(run.data.tags.get("embedline.step", "parent"), []).append(run)
    return steps


def metric_history(uri: str, run, key: str) -> list[tuple[int, float]]:
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    return sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, key))


def only(runs: list):
    assert len(runs) == 1
    return runs[0]


def test_a_replay_sends_everything_and_a_second_one_nothing(uri: str, run_folder: Path) -> None:
    tracker = Tracker(run_folder / "steps" / "clean")
    tracker.params({"near_threshold": 0.9})
    tracker.tags({"digest.dataset": "abc"})
    for step in range(2500):  # more than two batches of 1000
        tracker.metrics({"loss": step / 10}, step=step)
    tracker.metrics({"ndcg@10": 0.5})
    mirror = RunMirror(uri, "tests")
    assert mirror.replay(run_folder, RUN) > 0
    assert mirror.replay(run_folder, RUN) == 0
    assert RunMirror(uri, "tests").replay(run_folder, RUN) == 0

    nested = only(nested_runs(uri)["clean"])
    parent = only(nested_runs(uri)["parent"])
    assert nested.data.params == {"near_threshold": "0.9"}
    assert nested.data.tags["digest.dataset"] == "abc"
    assert nested.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.data.tags["embedline.run_id"] == RUN
    assert nested.data.metrics["ndcg_at_10"] == 0.5
    assert metric_history(uri, nested, "loss") == [(step, step / 10) for step in range(2500)]


def test_replay_sends_later_lines_and_keeps_an_incomplete_one(uri: str, run_folder: Path) -> None:
    tracker = Tracker(run_folder / "steps" / "mine")
    tracker.metrics({"kept": 1.0}, step=1)
    mirror = RunMirror(uri, "tests")
    mirror.replay(run_folder, RUN)
    line = json.dumps({"type": "metric", "key": "kept", "value": 2.0, "step": 2, "at": 1})
    with tracker.path.open("a", encoding="utf-8") as file:
        file.write(line[:20])
        file.flush()
        assert mirror.replay(run_folder, RUN) == 0
        file.write(line[20:] + "\n")
    mirror.replay(run_folder, RUN)
    assert metric_history(uri, only(nested_runs(uri)["mine"]), "kept") == [(1, 1.0), (2, 2.0)]


@pytest.mark.parametrize("lost", ["the note behind the batch", "the whole note"])
def test_crash_after_sending_a_batch_duplicates_nothing(
    uri: str, run_folder: Path, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_folder / "steps" / "pretrain"
    tracker = Tracker(folder)
    tracker.params({"batch": 64})
    for step in range(5):
        tracker.metrics({"loss": 1.0}, step=step)

    class Killed(BaseException):
        pass

    real = tracking.Sent.write

    def dies_after_sending(self, where: Path) -> None:
        if not self.sending:
            raise Killed
        real(self, where)

    with monkeypatch.context() as patched:
        patched.setattr(tracking.Sent, "write", dies_after_sending)
        with pytest.raises(Killed):
            RunMirror(uri, "tests").replay(run_folder, RUN)
    if lost == "the whole note":
        (folder / SENT).unlink()
    # The clock of a replayed line is its own, so mlflow's primary key would hide a duplicate: move it.
    tracker.path.write_text(
        "".join(
            json.dumps({**line, "at": line["at"] + 1} if "at" in line else line) + "\n"
            for line in map(json.loads, tracker.path.read_text(encoding="utf-8").splitlines())
        ),
        encoding="utf-8",
    )
    tracker.metrics({"loss": 0.5}, step=5)
    RunMirror(uri, "tests").replay(run_folder, RUN)
    nested = only(nested_runs(uri)["pretrain"])
    assert metric_history(uri, nested, "loss") == [*((step, 1.0) for step in range(5)), (5, 0.5)]
    assert not json.loads((folder / SENT).read_text(encoding="utf-8"))["sending"]


def test_a_retried_step_keeps_its_one_nested_run(uri: str, run_folder: Path) -> None:
    mirror = RunMirror(uri, "tests")
    Tracker(run_folder / "steps" / "export").metrics({"cosine": 0.9}, step=0)
    mirror.replay(run_folder, RUN)
    mirror.end_step(RUN, "export", "FAILED")
    assert only(nested_runs(uri)["export"]).info.status == "FAILED"

    again = Tracker(run_folder / "steps" / "export")
    again.metrics({"cosine": 0.95}, step=0)  # said before: the first value stands
    again.metrics({"latency_ms": 3.0})
    mirror = RunMirror(uri, "tests")
    mirror.replay(run_folder, RUN)
    mirror.end_step(RUN, "export", "FINISHED")
    nested = only(nested_runs(uri)["export"])
    assert nested.info.status == "FINISHED"
    assert metric_history(uri, nested, "cosine") == [(0, 0.9)]
    assert nested.data.metrics["latency_ms"] == 3.0


def test_conflicting_parameter_loses_only_itself(uri: str, run_folder: Path) -> None:
    mirror = RunMirror(uri, "tests")
    first = Tracker(run_folder / "steps" / "gate")
    first.params({"mode": "enabled"})
    mirror.replay(run_folder, RUN)
    first.path.write_text("", encoding="utf-8")  # a retried pod with an empty disk, and another setting
    (first.path.parent / SENT).unlink()
    second = Tracker(run_folder / "steps" / "gate")
    second.params({"mode": "dry_run", "rules": 3})
    second.metrics({"passed": 1.0})
    mirror.replay(run_folder, RUN)
    nested = only(nested_runs(uri)["gate"])
    assert nested.data.params == {"mode": "enabled", "rules": "3"}
    assert nested.data.tags["param_conflict.mode"] == "dry_run"
    assert nested.data.metrics == {"passed": 1.0}


def test_many_long_russian_values_fit_the_server_s_limits(uri: str, run_folder: Path) -> None:
    tracker = Tracker(run_folder / "steps" / "report")
    tracker.params({f"ключ {n}": "я" * 7000 for n in range(230)})
    tracker.tags({f"tag{n}{{x}}": "ё" * 9000 for n in range(230)})
    RunMirror(uri, "tests").replay(run_folder, RUN)
    nested = only(nested_runs(uri)["report"])
    assert len(nested.data.params) == 230
    assert sum(key.startswith("tag") for key in nested.data.tags) == 230


def test_mlflow_run_id_in_the_environment_is_ignored(
    uri: str, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    foreign = client.create_run("0")
    monkeypatch.setenv("MLFLOW_RUN_ID", foreign.info.run_id)
    Tracker(run_folder / "steps" / "clean").metrics({"rows": 7})
    mirror = RunMirror(uri, "tests")
    parent = mirror.parent(RUN, {"preset": "demo"})
    mirror.replay(run_folder, RUN)
    mirror.close(RUN, "FINISHED")
    assert parent != foreign.info.run_id
    untouched = client.get_run(foreign.info.run_id)
    assert untouched.info.status == "RUNNING"
    assert untouched.data.metrics == {}
    assert only(nested_runs(uri)["clean"]).data.metrics == {"rows": 7.0}


def test_parent_run_is_created_once_with_its_tags(uri: str) -> None:
    first = RunMirror(uri, "tests").parent(RUN, {"preset": "demo"})
    assert RunMirror(uri, "tests").parent(RUN, {"commit": "abc"}) == first
    parent = only(nested_runs(uri)["parent"])
    assert (parent.data.tags["preset"], parent.data.tags["commit"]) == ("demo", "abc")
    assert RunMirror(uri, "tests").parent("demo-2", {}) != first


def test_parent_run_has_each_compared_metric_once(uri: str) -> None:
    run = "scored"
    for _ in range(2):
        parent = RunMirror(uri, "tests").parent(run, metrics={"Docs (lexical)": 0.5, "Наборы": 0.25})
    client = MlflowClient(tracking_uri=uri)
    values = client.get_run(parent).data.metrics
    assert sorted(values.values()) == [0.25, 0.5]
    assert all(len(client.get_metric_history(parent, key)) == 1 for key in values)


def test_close_ends_the_parent_and_running_nested_runs(uri: str, run_folder: Path) -> None:
    for step in ("clean", "mine"):
        Tracker(run_folder / "steps" / step).metrics({"rows": 1})
    mirror = RunMirror(uri, "tests")
    mirror.replay(run_folder, RUN)
    mirror.end_step(RUN, "clean", "FINISHED")
    mirror.close(RUN, "KILLED")
    runs = nested_runs(uri)
    assert {step: only(found).info.status for step, found in runs.items()} == {
        "parent": "KILLED",
        "clean": "FINISHED",
        "mine": "KILLED",
    }
    mirror.parent(RUN, {"error": "mine: it died", "exit_code": "1", "preset": "demo"})
    mirror.reopen(RUN)
    reopened = only(nested_runs(uri)["parent"])
    assert reopened.info.status == "RUNNING"
    assert reopened.data.tags["preset"] == "demo"
    assert not {"error", "exit_code"} & set(reopened.data.tags), "how it ended before is no news"


def test_new_store_gets_the_whole_spool(uri: str, run_folder: Path, tmp_path: Path) -> None:
    Tracker(run_folder / "steps" / "clean").metrics({"rows": 1})
    RunMirror(uri, "tests").replay(run_folder, RUN)
    RunMirror(uri, "elsewhere").replay(run_folder, RUN)  # same store, known run: nothing is sent twice
    assert only(nested_runs(uri)["clean"]).data.metrics == {"rows": 1.0}
    other = tmp_path / "other"
    other.mkdir()
    (other / "mlflow.db").write_bytes((tmp_path / "tracking" / "mlflow.db").read_bytes())
    client = MlflowClient(tracking_uri=f"sqlite:///{other}/mlflow.db")
    client.delete_run(only(nested_runs(uri)["clean"]).info.run_id)
    RunMirror(f"sqlite:///{other}/mlflow.db", "tests").replay(run_folder, RUN)
    assert only(nested_runs(f"sqlite:///{other}/mlflow.db")["clean"]).data.metrics == {"rows": 1.0}


def test_processes_replaying_one_run_together_create_it_once(uri: str, run_folder: Path) -> None:
    for step in ("clean", "mine"):
        tracker = Tracker(run_folder / "steps" / step)
        for n in range(50):
            tracker.metrics({"loss": n / 2}, step=n)
    script = (
        "import sys; from pathlib import Path; from embedline.registry.tracking import RunMirror;"
        "m = RunMirror(sys.argv[1], 'tests'); sys.stdin.readline(); m.parent('demo-1', {});"
        "m.replay(Path(sys.argv[2]), 'demo-1')"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", script, uri, str(run_folder)], stdin=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for racer in racers:
        racer.communicate("go\n", timeout=120)
    assert [racer.returncode for racer in racers] == [0, 0]
    runs = nested_runs(uri)
    assert {step: len(found) for step, found in runs.items()} == {"parent": 1, "clean": 1, "mine": 1}
    assert metric_history(uri, runs["mine"][0], "loss") == [(n, n / 2) for n in range(50)]


def test_a_deleted_experiment_is_named(uri: str) -> None:
    client = MlflowClient(tracking_uri=uri)
    client.delete_experiment(client.create_experiment("tests"))
    with pytest.raises(InputError, match=r"'tests' is deleted.*tracking\.experiment"):
        RunMirror(uri, "tests").parent(RUN, {})


def test_artifacts_of_a_sqlite_store_lie_beside_it(uri: str, tmp_path: Path) -> None:
    RunMirror(uri, "tests").parent(RUN, {})
    location = MlflowClient(tracking_uri=uri).get_experiment_by_name("tests").artifact_location
    assert location == (tmp_path / "tracking" / "mlartifacts").as_uri()


def test_prepare_is_idempotent_and_names_an_unusable_folder(uri: str, tmp_path: Path) -> None:
    prepare(uri)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI"):
        prepare(f"sqlite:///{tmp_path}/file/mlflow.db")
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI"):
        prepare(f"sqlite:///{tmp_path}")
    (tmp_path / "text").write_text("this is no database, only text, but long enough" * 20, encoding="utf-8")
    with pytest.raises(InputError, match="not a database"):
        prepare(f"sqlite:///{tmp_path}/text")


def test_unreachable_server_is_an_input_error_within_seconds() -> None:
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9.*MLFLOW_TRACKING_URI"):
        prepare("http://127.0.0.1:9")


def test_failed_replay_is_logged_and_keeps_the_spool(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    spool = Tracker(run_folder / "steps" / "clean")
    spool.metrics({"rows": 1})
    before = spool.path.read_bytes()
    with pytest.raises(TrackingError, match=r"http://127\.0\.0\.1:9"):
        RunMirror("http://127.0.0.1:9", "tests").replay(run_folder, RUN)
    assert spool.path.read_bytes() == before


@pytest.mark.parametrize(
    ("key", "clean"),
    [
        ("ndcg@10", "ndcg_at_10"),
        ("map{x}(y)", "map_x__y_"),
        ("a/b", "a/b"),
        ("/a", "_a"),
        ("a//b", "a__b"),
        ("../x", "__x"),
        (".", "_"),
        ("", "_"),
        ("набор/ndcg", "набор/ndcg"),
    ],
)
def test_clean_key_gives_names_that_mlflow_accepts(key: str, clean: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    assert clean_key(key) == clean
    _validate_metric_name(clean)
