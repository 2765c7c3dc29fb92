"""Tracking and registry against a real `mlflow server` process that stops and starts again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from embedline.artifacts.manifest import Artifact
from embedline.artifacts.tracker import Tracker
from embedline.errors import InputError
from embedline.registry.download import download
from embedline.registry.promotion import promote, rollback
from embedline.registry.server import TrackingError, prepare
from embedline.registry.tracking import RunMirror
from embedline.registry.versions import aliases, get_champion, register


def nested_run(server: Any, experiment: str, step: str):
    client = MlflowClient(tracking_uri=server.uri)
    experiment_id = client.get_experiment_by_name(experiment).experiment_id
    (found,) = client.search_runs([experiment_id], f"tags.`embedline.step` = '{step}'")
    return found


def test_a_run_is_mirrored_to_the_server(server: Any, run_folder: Path) -> None:
    prepare(server.uri)
    tracker = Tracker(run_folder / "steps" / "clean")
    tracker.params({f"порог {n}": "я" * 3000 for n in range(120)})
    for step in range(1500):
        tracker.metrics({"ndcg@10": step / 7}, step=step)
    mirror = RunMirror(server.uri, "mirrored")
    mirror.replay(run_folder, "demo-1")
    assert RunMirror(server.uri, "mirrored").replay(run_folder, "demo-1") == 0
    mirror.end_step("demo-1", "clean", "FINISHED")
    mirror.close("demo-1", "FINISHED")
    nested = nested_run(server, "mirrored", "clean")
    client = MlflowClient(tracking_uri=server.uri)
    history = client.get_metric_history(nested.info.run_id, "ndcg_at_10")
    assert [(m.step, m.value) for m in history] == [(step, step / 7) for step in range(1500)]
    assert len(nested.data.params) == 120
    parent = client.get_run(nested.data.tags["mlflow.parentRunId"])
    assert (nested.info.status, parent.info.status) == ("FINISHED", "FINISHED")


def test_conflicting_parameter_does_not_lose_the_others(server: Any, run_folder: Path) -> None:
    mirror = RunMirror(server.uri, "conflict")
    tracker = Tracker(run_folder / "steps" / "gate")
    tracker.params({"mode": "enabled"})
    mirror.replay(run_folder, "demo-1")
    with tracker.path.open("a", encoding="utf-8") as file:
        file.write('{"type": "param", "key": "mode", "value": "dry_run"}\n')
        file.write('{"type": "param", "key": "rules", "value": "3"}\n')
    mirror.replay(run_folder, "demo-1")
    nested = nested_run(server, "conflict", "gate")
    assert nested.data.params == {"mode": "enabled", "rules": "3"}
    assert nested.data.tags["param_conflict.mode"] == "dry_run"


def test_models_go_through_the_server_and_back(server: Any, make_model, tmp_path: Path) -> None:
    def registered(artifact: Artifact) -> int:
        tags = {"verdict": "passed"}
        return register("demo", artifact.path, digest=artifact.digest, tags=tags, uri=server.uri)

    one, two = make_model("one"), make_model("two")
    assert [registered(one), registered(two), registered(one)] == [1, 2, 1]
    promote("demo", 1, reason="first", by="me", uri=server.uri)
    promote("demo", 2, reason="second", by="me", uri=server.uri)
    champion = get_champion("demo", uri=server.uri)
    assert champion is not None
    assert (champion.version, champion.digest, champion.path) == (2, two.digest, None)
    copy = download("demo", 2, tmp_path / "copy", uri=server.uri)
    assert (copy / "model.safetensors").read_bytes() == b"two" * 100
    assert rollback("demo", by="me", uri=server.uri).version == 1
    assert aliases("demo", uri=server.uri) == {"champion": 1, "previous_champion": 2}
    with pytest.raises(InputError, match="has no version 7"):
        promote("demo", 7, reason="", by="me", uri=server.uri)
    assert get_champion("nobody", uri=server.uri) is None
    with pytest.raises(InputError, match="a/b"):
        register("a/b", one.path, digest=one.digest, tags={}, uri=server.uri)


@contextmanager
def answering(status: int, body: str) -> Iterator[tuple[str, list[str | None]]]:
    """Serve one answer to every request; yield the address, and the Authorization headers that arrive."""
    sent: list[str | None] = []

    class Answer(BaseHTTPRequestHandler):
        def answer(self) -> None:
            sent.append(self.headers["Authorization"])
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as site:
        threading.Thread(target=site.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{site.server_port}", sent
        site.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "said", "fix"),
    [
        (401, "You are not authenticated.", "expired (401)", "MLFLOW_TRACKING_TOKEN"),
        (401, '{"error_code": "UNAUTHENTICATED", "message": "no"}', "expired (401)", "MLFLOW_TRACKING_TOKEN"),
        (403, '{"error_code": "PERMISSION_DENIED", "message": "Permission denied"}', "may not", "an account"),
        (403, "Invalid Host header", "may not do that (", "MLFLOW_SERVER_ALLOWED_HOSTS"),
        (404, "<html>nothing here</html>", "nothing here", "MLFLOW_TRACKING_URI"),
        (200, "<html>Sign in</html>", "Sign in", "a sign-in page needs MLFLOW_TRACKING_TOKEN"),
        (502, "<html>Bad Gateway</html>", "fails with 502", "try again later"),
    ],
)
def test_refusal_of_the_server_is_not_reported_as_an_outage(
    status: int, body: str, said: str, fix: str
) -> None:
    """An expired token is not reported as a wrong address; every failure is one line."""
    with answering(status, body) as (uri, _):
        for act, kind in (
            (lambda: prepare(uri), InputError),
            (lambda: promote("demo", 1, reason="", by="me", uri=uri), TrackingError),
        ):
            with pytest.raises(kind) as failed:
                act()
            text = str(failed.value)
            assert "\n" not in text
            assert (said in text, fix in text, uri in text) == (True, True, True), text
            assert "does not answer" not in text


def test_metrics_logged_during_an_outage_are_sent_afterwards(
    server: Any, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    tracker = Tracker(run_folder / "steps" / "pretrain")
    tracker.metrics({"loss": 3.0}, step=1)
    mirror = RunMirror(server.uri, "outage")
    mirror.replay(run_folder, "demo-1")
    server.stop()
    try:
        tracker.metrics({"loss": 2.0}, step=2)
        with pytest.raises(TrackingError, match=str(server.port)):
            mirror.replay(run_folder, "demo-1")
        with pytest.raises(InputError, match=str(server.port)):
            prepare(server.uri)
        tracker.metrics({"loss": 1.0}, step=3)
    finally:
        server.start()
    RunMirror(server.uri, "outage").replay(run_folder, "demo-1")
    nested = nested_run(server, "outage", "pretrain")
    history = MlflowClient(tracking_uri=server.uri).get_metric_history(nested.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 3.0), (2, 2.0), (3, 1.0)]


@pytest.mark.parametrize("body", ["{}", ""])
def test_a_server_of_empty_answers_is_not_taken_for_mlflow(body: str) -> None:
    with (
        answering(200, body) as (uri, _),
        pytest.raises(InputError, match="answers with empty JSON, not as MLflow does"),
    ):
        prepare(uri)


def test_a_line_break_at_a_token_is_neither_sent_nor_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """requests refuses the header, and its message holds it."""
    experiments = '{"experiments": [{"experiment_id": "0"}]}'
    with answering(200, experiments) as (uri, sent):
        for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cret-token\n")
        prepare(uri)
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cret\ntoken-part")
        with pytest.raises(InputError) as failed:
            prepare(uri)
    assert sent == ["Bearer s3cret-token"]
    assert "Bearer ***" in str(failed.value)
    assert "token-part" not in str(failed.value)
