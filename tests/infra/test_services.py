"""Demo pipeline against PostgreSQL, an S3 server and MLflow, which fail one after the other.

One story is told, because a run takes minutes: MLflow goes away while the pipeline trains and comes back; the
object store is down when the model is registered, so the run fails; the same command again succeeds.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psycopg2
import pytest
from stack import Stack, postgres_programs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

UP = Path(__file__).parents[2] / "infra" / "services" / "up.py"
PATIENCE_S = 900
GOES_ON = "The run continues; its metrics stay in the spool until the server answers."
FAST = {"OMP_NUM_THREADS": "2", "EMBEDLINE_MIRROR_EVERY_S": "1"}  # an outage of seconds is met, too
SHORT = {
    **{f"data.sources.{n}.limit": 150 for n in range(8)},
    **{f"data.corpus.{n}.limit": 200 for n in range(2)},
    "model.settings.hidden_size": 64,
    "model.dims": "[32]",
    "pretrain.steps": 40,
    "pretrain.log_every": 1,
    "unsupervised.steps": 6,
    "unsupervised.batch": 32,
    "supervised.steps": 6,
    "supervised.batch": 16,
    "prune.when": "never",
    "export.int8": "false",
    "export.parity_texts": 4,
    "evaluate.stage_sets": "[SupportSTS]",
    "evaluate.onnx_sets": "[]",
    "evaluate.score_champion": "false",
    "evaluate.bootstrap": 0,
    "gate.mode": "dry_run",
    "gate.rules": "[]",
    "gate.require_parity": "false",
}


@dataclass
class Story:
    """Results of the run, for the tests."""

    stack: Stack
    work: Path
    elsewhere: Path
    first: subprocess.CompletedProcess[str]
    second: subprocess.CompletedProcess[str]
    registry_between: dict[str, list[tuple[Any, ...]]]
    points_without_mlflow: int

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return sql(self.stack, query, *values)

    def runs(self) -> list[Path]:
        return sorted(path.parent for path in self.work.glob("demo-*/run.json"))

    def nested(self, run: Path, step: str) -> str:
        """Return the MLflow id of a step's only run, from the database."""
        query = """
            SELECT t.run_uuid FROM tags t
            JOIN tags p ON p.run_uuid = t.run_uuid AND p.key = 'mlflow.parentRunId'
            JOIN tags r ON r.run_uuid = p.value AND r.key = 'embedline.run_id' AND r.value = %s
            WHERE t.key = 'embedline.step' AND t.value = %s"""
        ((found,),) = self.sql(query, run.name, step)
        return str(found)


def sql(stack: Stack, query: str, *values: Any) -> list[tuple[Any, ...]]:
    given = stack.environment
    connection = psycopg2.connect(
        host=given["PGHOST"], port=given["PGPORT"], dbname=given["PGDATABASE"],
        user=given["PGUSER"], password=given["PGPASSWORD"],
    )  # fmt: skip
    try:
        with connection.cursor() as cursor:
            cursor.execute(query, values)
            return cursor.fetchall()
    finally:
        connection.close()


def environment(stack: Stack) -> dict[str, str]:
    """As on a cluster: a pipeline has MLflow's address and not those of its stores."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "AWS_", "PG"))}
    return {**ours, "MLFLOW_TRACKING_URI": stack.environment["MLFLOW_TRACKING_URI"], **FAST}


def start(stack: Stack, work: Path, elsewhere: Path) -> subprocess.Popen[str]:
    options = [part for key, value in SHORT.items() for part in ("-o", f"{key}={value}")]
    command = [sys.executable, "-m", "embedline.cli", "run", "demo", "--work", str(work), *options]
    return subprocess.Popen(
        command,
        cwd=elsewhere,
        env=environment(stack),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    output, _ = process.communicate(timeout=PATIENCE_S)
    return subprocess.CompletedProcess(process.args, process.returncode, output)


def wait_for(what: Any, process: subprocess.Popen[str], name: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, f"{name}: not in time"
        if process.poll() is not None:
            pytest.fail(f"{name}: the run ended before:\n{finished(process).stdout}")
        time.sleep(0.1)


def points(work: Path) -> int:
    """Return the metrics of the training so far, sent or not."""
    return sum(path.read_text().count('"loss"') for path in work.glob("demo-*/steps/*train*/spool.jsonl"))


def log(work: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in work.glob("demo-*/log.txt"))


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    need_postgres()
    work, elsewhere = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("elsewhere")
    with Stack() as stack:
        running = start(stack, work, elsewhere)
        try:
            wait_for(lambda: points(work) >= 3, running, "training begins")
            stack.mlflow.stop()
            at_first = points(work)
            wait_for(lambda: GOES_ON in log(work), running, "a step misses MLflow")
            wait_for(lambda: points(work) > at_first + 3, running, "training goes on")
            without = points(work) - at_first
            stack.s3.stop()
            stack.start_mlflow()
            first = finished(running)
        finally:
            running.kill()
        between = {
            name: sql(stack, f"SELECT * FROM {name}")
            for name in ("model_versions", "registered_model_aliases")
        }
        stack.start_s3()
        stack.prepare()
        second = finished(start(stack, work, elsewhere))
        yield Story(stack, work, elsewhere, first, second, between, without)


def need_postgres() -> None:
    if postgres_programs():
        return
    if os.environ.get("EMBEDLINE_REQUIRE_POSTGRES") == "1":
        pytest.fail("EMBEDLINE_REQUIRE_POSTGRES is set and PostgreSQL's server programs are not here")
    pytest.skip("needs PostgreSQL's server programs: apt-get install postgresql")


def test_training_continues_without_mlflow_and_loses_nothing(story: Story) -> None:
    assert story.points_without_mlflow > 3
    run = story.runs()[0]
    compared = 0
    for spool in run.glob("steps/*/spool.jsonl"):
        said = [json.loads(line) for line in spool.read_text(encoding="utf-8").splitlines()]
        nested = story.nested(run, spool.parent.name)
        kept = story.sql("SELECT key, step, value, timestamp FROM metrics WHERE run_uuid = %s", nested)
        metrics = [line for line in said if line["type"] == "metric"]
        expected = [
            (line["key"].replace("@", "_at_"), line["step"], line["value"], line["at"]) for line in metrics
        ]
        assert sorted(kept) == sorted(expected), spool.parent.name
        params = {line["key"] for line in said if line["type"] == "param"}
        assert {key for (key,) in story.sql("SELECT key FROM params WHERE run_uuid = %s", nested)} == params
        compared += len(kept)
    assert compared > 60


def test_without_the_object_store_the_run_fails_with_one_message(story: Story) -> None:
    assert story.first.returncode == 1, story.first.stdout
    assert "Traceback" not in story.first.stdout
    record = json.loads((story.runs()[0] / "run.json").read_text(encoding="utf-8"))
    steps = {step["step"]: step for step in record["steps"]}
    ends = [steps[name]["status"] for name in ("evaluate", "gate", "promote")]
    assert ends == ["done", "done", "failed"]
    address = story.stack.environment["MLFLOW_TRACKING_URI"]
    said = f"{address}: the server answers, but the artefact store behind it failed"
    assert said in steps["promote"]["error"]
    assert said in story.first.stdout


def test_failed_registration_leaves_no_version(story: Story) -> None:
    assert story.registry_between == {"model_versions": [], "registered_model_aliases": []}


def test_repeated_command_registers_the_trained_model(story: Story) -> None:
    assert story.second.returncode == 0, story.second.stdout
    assert len(story.runs()) == 2
    record = json.loads((story.runs()[1] / "run.json").read_text(encoding="utf-8"))
    steps = {step["step"]: step for step in record["steps"]}
    assert all(
        steps[name]["cache_hit"] for name in ("pretrain", "train_unsupervised", "train_supervised", "export")
    )
    assert story.sql("SELECT name, version FROM model_versions") == [("demo", 1)]
    assert ("champion", 1) in story.sql(
        "SELECT alias, version FROM registered_model_aliases WHERE name = 'demo'"
    )


def test_every_run_of_the_line_is_closed_with_its_true_status(story: Story) -> None:
    query = """
        SELECT t.value, r.status FROM runs r JOIN tags t USING (run_uuid)
        WHERE t.key = 'embedline.run_id'
        AND r.run_uuid NOT IN (SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId')"""
    first, second = story.runs()
    assert dict(story.sql(query)) == {first.name: "FAILED", second.name: "FINISHED"}
    assert story.sql("SELECT count(*) FROM runs WHERE status = 'RUNNING'") == [(0,)]


def test_the_registered_files_lie_in_the_bucket(story: Story, tmp_path: Path) -> None:
    given = story.stack.environment
    client = boto3.client(
        "s3",
        endpoint_url=given["MLFLOW_S3_ENDPOINT_URL"],
        aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
        region_name=given["AWS_DEFAULT_REGION"],
    )
    keys = [item["Key"] for item in client.list_objects_v2(Bucket="mlflow")["Contents"]]
    ((source,),) = story.sql("SELECT source FROM model_versions")
    folders = {key.split("/artifacts/")[0] for key in keys}
    (folder,) = (folder for folder in folders if folder.endswith(source.removeprefix("models:")))
    manifest = json.loads(
        client.get_object(Bucket="mlflow", Key=f"{folder}/artifacts/manifest.json")["Body"].read()
    )
    assert {file["path"] for file in manifest["files"]} >= {"model.safetensors", "tokenizer.json"}
    for file in manifest["files"]:
        copy = tmp_path / "copy"
        client.download_file("mlflow", f"{folder}/artifacts/{file['path']}", str(copy))
        assert hashlib.sha256(copy.read_bytes()).hexdigest() == file["sha256"], file["path"]
    assert f"{folder}/artifacts/onnx/model.onnx" in keys
    assert manifest["kind"] == "model"


def test_no_local_database_or_artifact_folder_is_created(story: Story) -> None:
    assert not [
        path
        for path in story.work.rglob("*")
        if path.suffix == ".db" or path.name in {"mlruns", "mlartifacts"}
    ]
    assert list(story.elsewhere.iterdir()) == []
    assert list(story.stack.folder.glob("ml*")) == [story.stack.mlflow.log]


def test_unknown_host_header_is_refused(story: Story) -> None:
    address = story.stack.environment["MLFLOW_TRACKING_URI"]
    api = f"{address}/api/2.0/mlflow/experiments/search?max_results=1"
    assert urllib.request.urlopen(api, timeout=30).status == 200
    foreign = urllib.request.Request(api, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(foreign, timeout=30)
    assert refused.value.code == 403


@pytest.fixture
def anybodys_folder() -> Iterator[Path]:
    """Make a folder that PostgreSQL's user can read: pytest's own folders are closed to it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_servers_end_with_their_launcher(anybodys_folder: Path) -> None:
    need_postgres()
    shell = 'echo "$MLFLOW_TRACKING_URI $PGPORT $MLFLOW_S3_ENDPOINT_URL"; exec sleep 600'
    process = subprocess.Popen(
        [sys.executable, str(UP), "--", "bash", "-c", shell],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(anybodys_folder)},
    )
    assert process.stdout is not None
    mlflow, postgres, s3 = process.stdout.readline().split()  # all three have answered by now
    assert urllib.request.urlopen(f"{mlflow}/health", timeout=30).status == 200
    assert list(anybodys_folder.iterdir())
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 130
    assert list(anybodys_folder.iterdir()) == []
    for address in (mlflow, s3, f"http://127.0.0.1:{postgres}"):
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(address, timeout=5)
