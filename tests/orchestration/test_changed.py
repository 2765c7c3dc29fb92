"""submit --if-changed: one run for each train key, with concurrent processes and failing servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from kfp_server import KfpServer
from mlflow import MlflowClient
from tracking_server import tracking_server

from embedline.errors import EmbedlineError
from embedline.orchestration import changed, server
from embedline.orchestration.changed import WITHDRAWN, start_if_new
from embedline.orchestration.submit import submit_run
from embedline.registry import claims as claims_module
from embedline.registry.claims import Claims
from embedline.registry.server import default_uri, prepare

pytestmark = pytest.mark.timeout(600)
KEY = "5a" * 32
Submit = Callable[..., dict[str, str]]


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = default_uri(tmp_path_factory.mktemp("mlflow"))
    prepare(uri)
    return uri


@pytest.fixture
def kfp() -> Iterator[KfpServer]:
    with KfpServer() as running:
        yield running


@pytest.fixture
def name() -> str:
    return f"model-{uuid.uuid4().hex[:8]}"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PAUSES_S", (0.01, 0.01, 0.01, 0.01))
    monkeypatch.setattr(changed, "_POLL_S", 0.02)


@pytest.fixture
def submit(kfp: KfpServer, tracking: str, name: str) -> Submit:
    def act(key: str = KEY, start: Callable[[], dict[str, str]] | None = None) -> dict[str, str]:
        return start_if_new(
            key,
            start or (lambda: submit_run("demo", (), None, host=kfp.url, key=key)),
            name=name,
            uri=tracking,
            host=kfp.url,
        )

    return act


def register(tracking: str, name: str, key: str) -> None:
    client = MlflowClient(tracking_uri=tracking, registry_uri=tracking)
    client.create_registered_model(name)
    client.create_model_version(name, "s3://nowhere/1", tags={"embedline.train_key": key})


def test_second_start_is_skipped_until_the_first_run_fails(kfp: KfpServer, submit: Submit) -> None:
    first = submit()
    assert first["what"] == "run"
    (run,) = kfp.all("runs")
    assert KEY in run["description"]
    for state in ("PENDING", "RUNNING", "PAUSED"):
        kfp.finish(first["id"], state)
        second = submit()
        assert (second["what"], second["because"], second["id"]) == ("skipped", "run", first["id"])
        assert first["id"] in second["text"]
    assert submit("6b" * 32)["what"] == "run"  # another key is another matter
    for state in ("FAILED", "CANCELED"):
        kfp.finish(kfp.all("runs")[-1]["run_id"], "SUCCEEDED")
        kfp.finish(first["id"], state)
        first = submit()
        assert first["what"] == "run"
    assert len(kfp.all("runs")) == 4


def test_registered_version_with_the_key_prevents_a_run(
    kfp: KfpServer, submit: Submit, tracking: str, name: str
) -> None:
    register(tracking, name, KEY)
    told = submit()
    assert (told["what"], told["because"], told["id"]) == ("skipped", "version", "1")
    assert told["text"] == f"version 1 of {name} was made from this already"
    assert submit("7c" * 32)["what"] == "run"
    assert [run["display_name"] for run in kfp.all("runs")] == ["demo-7c7c7c7c7c7c"]


def test_an_active_run_is_found_behind_many_others(kfp: KfpServer, submit: Submit) -> None:
    first = submit()
    for _ in range(120):
        kfp.store.keep(
            "runs", "run_id", {**kfp.all("runs")[0], "description": f"with {KEY}", "state": "FAILED"}
        )
    assert submit()["id"] == first["id"]


def test_concurrent_starts_make_one_run(kfp: KfpServer, submit: Submit) -> None:
    together = threading.Barrier(8)

    def ask(_: int) -> dict[str, str]:
        together.wait()
        return submit()

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(ask, range(8)))
    (run,) = kfp.all("runs")
    assert sorted(each["what"] for each in told) == ["run"] + ["skipped"] * 7
    assert {each["id"] for each in told} == {run["run_id"]}


@pytest.mark.slow
def test_concurrent_commands_start_one_run(kfp: KfpServer, tmp_path: Path) -> None:
    with tracking_server(tmp_path / "mlflow") as address:
        _eight_commands(kfp, address, tmp_path)


def _eight_commands(kfp: KfpServer, tracking: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"query": "how", "pos": ["like this"]}\n')
    preset = f"name: m{uuid.uuid4().hex[:8]}\ndata: {{root: {tmp_path}, sources: [{{path: a.jsonl}}]}}\n"
    (tmp_path / "preset.yaml").write_text(preset)
    command = [sys.executable, "-m", "embedline.cli", "submit", str(tmp_path / "preset.yaml"), "--json"]
    started = [
        subprocess.Popen(
            [*command, "--if-changed", "--work", str(tmp_path / str(number))],
            env={**os.environ, "KFP_HOST": kfp.url, "MLFLOW_TRACKING_URI": tracking, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    told: list[dict[str, Any]] = []
    for process in started:
        output, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors + output
        told.append(json.loads(output))
    (run,) = kfp.all("runs")
    assert sorted(each["what"] for each in told) == ["run"] + ["skipped"] * 7
    assert {each["id"] for each in told} == {run["run_id"]}
    assert all(each["train_key"] in run["description"] for each in told)


def test_a_server_that_recovers_gets_one_run(kfp: KfpServer, submit: Submit) -> None:
    kfp.fail("POST .*/runs$", times=2)
    kfp.fail("GET .*/runs$", times=2, status=503)
    assert submit()["what"] == "run"
    assert len(kfp.all("runs")) == 1


def test_run_with_a_lost_response_is_not_started_twice(kfp: KfpServer, submit: Submit) -> None:
    kfp.lose("POST .*/runs$")
    made = submit()
    (run,) = kfp.all("runs")
    assert made["id"] == run["run_id"]
    assert submit()["what"] == "skipped"


def test_failed_submission_does_not_block_the_next(
    kfp: KfpServer, submit: Submit, tracking: str, name: str
) -> None:
    kfp.fail("POST .*/runs$", times=1 + len(server.PAUSES_S))
    with pytest.raises(EmbedlineError, match="the server failed"):
        submit()
    newest = Claims(tracking, name).newest(KEY)
    assert newest is not None
    assert newest.settled == WITHDRAWN
    assert submit()["what"] == "run"


def test_interrupted_submission_withdraws_its_claim(kfp: KfpServer, submit: Submit) -> None:
    def interrupted() -> dict[str, str]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submit(start=interrupted)
    assert submit()["what"] == "run"


def test_pending_claim_is_waited_for(kfp: KfpServer, submit: Submit, tracking: str, name: str) -> None:
    claims = Claims(tracking, name)
    assert claims.take(KEY, 0, "another machine")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(submit)
        time.sleep(0.5)
        assert not waiting.done()
        assert kfp.all("runs") == []
        made = submit_run("demo", (), None, host=kfp.url, key=KEY)
        claims.settle(KEY, 0, made["id"])
        told = waiting.result(timeout=60)
    assert (told["what"], told["id"]) == ("skipped", made["id"])


def test_a_claim_whose_holder_died_expires(
    kfp: KfpServer, submit: Submit, tracking: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Claims(tracking, name).take(KEY, 0, "a machine that is gone")
    monkeypatch.setattr(claims_module, "LEASE_S", 0.5)
    assert submit()["what"] == "run"
    newest = Claims(tracking, name).newest(KEY)
    assert newest is not None
    assert (newest.number, newest.settled) == (1, kfp.all("runs")[0]["run_id"])
