"""A tracking server whose artefact store is down: real mlflow, real S3 protocol."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from mlflow import MlflowClient

from embedline.artifacts.tracker import Tracker
from embedline.registry.download import download
from embedline.registry.promotion import promote
from embedline.registry.server import DATABASE, TrackingError
from embedline.registry.tracking import RunMirror
from embedline.registry.versions import register

pytestmark = pytest.mark.slow  # real servers take their time to start
KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
}


class Store:
    """An S3 server that does not run until it is started."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        devnull = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdout=devnull, stderr=devnull, env={**os.environ, **KEYS})
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    break
            time.sleep(0.2)
        self.client().create_bucket(Bucket="models")

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    yield made
    made.stop()


def test_replay_and_registration_resume_when_the_artifact_store_is_back(
    store: Store,
    serve: Callable[..., Any],
    empty_database: Path,
    tmp_path: Path,
    run_folder: Path,
    make_model: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(empty_database, folder / DATABASE)
    server = serve(folder, artifacts="s3://models/artifacts", MLFLOW_S3_ENDPOINT_URL=store.url, **KEYS)
    model = make_model("one")

    def registered() -> int:
        tags = {"verdict": "passed"}
        return register("demo", model.path, digest=model.digest, tags=tags, uri=server.uri)

    with pytest.raises(TrackingError, match=str(server.port)):
        registered()
    Tracker(run_folder / "steps" / "clean").metrics({"rows": 7.0}, step=1)
    assert RunMirror(server.uri, "outage").replay(run_folder, "demo-1") > 0

    store.start()
    assert registered() == 1
    client = MlflowClient(server.uri, server.uri)
    assert len(client.search_model_versions("name = 'demo'")) == 1
    keys = [item["Key"] for item in store.client().list_objects_v2(Bucket="models")["Contents"]]
    assert any(key.endswith("/model.safetensors") for key in keys)
    assert promote("demo", 1, reason="", by="ann", uri=server.uri).moved

    store.stop()
    with pytest.raises(TrackingError):
        download("demo", 1, tmp_path / "copy", uri=server.uri)
    assert not (tmp_path / "copy").exists()
