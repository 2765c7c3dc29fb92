"""A run on a bad day: its tracking server goes away in the middle of training, and it carries secrets."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

CANARIES = {
    "MLFLOW_TRACKING_PASSWORD": "canary-password-7c1e",
    "EMBEDLINE_TEST_TOKEN": "canary-token-93fa",
    "HF_TOKEN": "hf_canaryHubToken51d0",
    "AWS_SECRET_ACCESS_KEY": "canary/aws+key/20be",
    "WEBHOOK_SECRET": "canary-webhook-e4d8",
}


def holding(folder: Path, words: list[str]) -> list[str]:
    """Files below a folder that hold one of the words; links are followed once, from their target."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            found += [f"{path}: {word}" for word in words if word.encode() in content]
    return found


def wait_for(line: Any, process: subprocess.Popen[str], step: str, status: str) -> None:
    deadline = time.monotonic() + 1800
    while time.monotonic() < deadline:
        for record in line.work.glob(f"demo-*/steps/{step}/record.json"):
            if json.loads(record.read_text(encoding="utf-8"))["status"] == status:
                return
        assert process.poll() is None, f"the run ended before {step} was {status}"
        time.sleep(0.05)
    pytest.fail(f"{step} was not {status} in time")


def test_training_outlives_its_tracking_server_and_no_secret_is_written_down(
    line: Any, serve: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    server = serve(tmp_path_factory.mktemp("server"))
    often = {"EMBEDLINE_MIRROR_EVERY_S": "0.5"}  # the stage is short: the outage has to be noticed in it
    environment = {**line.environment(), **often, **CANARIES, "MLFLOW_TRACKING_USERNAME": "me"}
    command = line.command(tracking__uri=server.uri, tracking__token="env:EMBEDLINE_TEST_TOKEN")
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    wait_for(line, process, "train_unsupervised", "running")
    server.stop()
    wait_for(line, process, "train_unsupervised", "done")  # while nobody listens
    wait_for(line, process, "train_supervised", "running")
    server.start()
    said, _ = process.communicate(timeout=1800)
    assert process.returncode == 0, said

    spool = line.work / "latest" / "steps" / "train_unsupervised" / "spool.jsonl"
    lines = [json.loads(text) for text in spool.read_text(encoding="utf-8").splitlines()]
    wanted = [(x["step"], x["value"]) for x in lines if x["type"] == "metric" and x["key"] == "loss"]
    assert len(wanted) > 1
    assert metrics_there(server.uri, "train_unsupervised", "loss") == sorted(wanted)
    log = (line.work / "latest" / "log.txt").read_text("utf-8")
    assert "The run continues; its metrics stay in the spool" in log

    basic = base64.b64encode(f"me:{CANARIES['MLFLOW_TRACKING_PASSWORD']}".encode()).decode()
    words = [*CANARIES.values(), basic]
    server.stop()  # what its database holds in memory is on the disk
    assert [word for word in words if word in said] == []
    assert holding(line.work, words) == []
    assert holding(server.folder, words) == []
    assert server.database.stat().st_size > 0
    probe = line.work / "probe"  # the search does find what is there
    probe.write_text(words[0], encoding="utf-8")
    assert len(holding(line.work, words)) == 1
    shutil.rmtree(line.work)


def metrics_there(uri: str, step: str, key: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("embedline")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], f"tags.`embedline.step` = '{step}'")
    assert len(runs) == 1
    return sorted((m.step, m.value) for m in client.get_metric_history(runs[0].info.run_id, key))
