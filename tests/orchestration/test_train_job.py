"""Delegation of a training step to Kubeflow Trainer, against a server with its API."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes import client

from embedline.artifacts.record import StepRecord, write_record
from embedline.config.train_job import TrainJobConfig
from embedline.errors import EmbedlineError, InputError, StepError, Stopped
from embedline.execution.delegation import DelegatedStep
from embedline.orchestration import trainer_api
from embedline.orchestration.train_job import choose_delegate, job_name, manifest, train_in_job

HERE = Path(__file__).parent
CONFIG = TrainJobConfig.model_validate(
    {
        "nodes": 2,
        "processes_per_node": 4,
        "resources": {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "4"},
        "secrets": {"HF_TOKEN": {"name": "hub", "key": "token"}},
        "timeout_s": 3600,
    }
)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(trainer_api, "POLL_S", 0.02)
    monkeypatch.setattr(trainer_api, "POLL_MAX_S", 0.1)
    server = load(HERE / "trainer_server.py").TrainerServer()
    yield server
    server.close()


@pytest.fixture
def delegated(tmp_path: Path) -> DelegatedStep:
    reference = tmp_path / "model.json"
    reference.write_text(json.dumps({"kind": "model", "path": None, "digest": None}))
    return DelegatedStep("pretrain", "k1", "demo-1", tmp_path / "work", "{}", {"model": reference})


def api(server: Any) -> client.CustomObjectsApi:
    return client.CustomObjectsApi(client.ApiClient(client.Configuration(host=server.url)))


def train(server: Any, delegated: DelegatedStep, config: TrainJobConfig = CONFIG) -> None:
    train_in_job(delegated, config, Path("/workspace"), "team-a", api(server))


@given(run=st.text(max_size=80), step=st.sampled_from(["pretrain", "train_unsupervised", "train_supervised"]))
def test_job_name_is_a_stable_label(run: str, step: str) -> None:
    name = job_name(run, step, "key")
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert len(f"{name}-node-0-999-abcde") <= 63  # its pods'
    assert name == job_name(run, step, "key")
    others = {job_name(run + "x", step, "key"), job_name(run, "prune", "key"), job_name(run, step, "key2")}
    assert name not in others


def test_the_manifest_runs_torchrun_with_the_workspace_and_secrets_by_reference(
    delegated: DelegatedStep,
) -> None:
    job = manifest(delegated, CONFIG, Path("/workspace"), "team-a").to_dict()
    assert job["metadata"]["name"] == job_name("demo-1", "pretrain", "k1")
    spec = job["spec"]
    assert spec["runtimeRef"] == {
        "apiGroup": "trainer.kubeflow.org",
        "kind": "TrainingRuntime",
        "name": "embedline-torch",
    }
    trainer = spec["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 4)
    assert trainer["command"][:4] == ["python", "-m", "torch.distributed.run", "--virtual-local-rank"]
    assert trainer["command"][-1] == "/workspace/demo-1/steps/pretrain/delegated"
    assert trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == "4"
    from embedline.components.image import GPU_IMAGE

    assert trainer["image"] == GPU_IMAGE
    assert {"name": "OMP_NUM_THREADS", "value": "2"} in trainer["env"]  # 8 cores of a node, 4 processes
    assert {"name": "RAYON_NUM_THREADS", "value": "2"} in trainer["env"]
    secret = {"secretKeyRef": {"key": "token", "name": "hub"}}
    assert {"name": "HF_TOKEN", "valueFrom": secret} in trainer["env"]
    (patch,) = spec["runtimePatches"]
    (part,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = part["template"]["spec"]["template"]["spec"]
    assert pod["volumes"] == [
        {"name": "workspace", "persistentVolumeClaim": {"claimName": "embedline-workspace"}}
    ]
    assert pod["containers"][0]["volumeMounts"] == [{"name": "workspace", "mountPath": "/workspace"}]
    assert spec["activeDeadlineSeconds"] == 3600


def test_cpu_job_without_a_claim_has_no_resources_and_volumes(delegated: DelegatedStep) -> None:
    config = TrainJobConfig(nodes=2, claim=None, image="other:1")
    spec = manifest(delegated, config, Path("/workspace"), "n").to_dict()["spec"]
    assert "runtimePatches" not in spec
    assert "resourcesPerNode" not in spec["trainer"]
    assert "--virtual-local-rank" not in spec["trainer"]["command"]
    assert spec["trainer"]["image"] == "other:1"


def test_a_secrets_value_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="never the value itself") as error:
        TrainJobConfig.model_validate({"secrets": {"HF_TOKEN": "hf_canary"}})
    assert "never the value" in str(error.value.errors()[0]["msg"])


def test_a_job_is_started_once_and_waited_for(server: Any, delegated: DelegatedStep) -> None:
    server.after = {4: lambda: server.end("Complete")}
    train(server, delegated)
    assert server.requests == [("GET", 404), ("POST", 201), *[("GET", 200)] * 3]
    assert (delegated.folder / "inputs" / "model.json").is_file()


def test_retry_attaches_to_the_job_without_rewriting_the_step(
    server: Any,
    delegated: DelegatedStep,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def sigterm(_: float) -> None:
        raise Stopped("stopped by SIGTERM.")

    with monkeypatch.context() as patch:
        patch.setattr(trainer_api.time, "sleep", sigterm)
        with pytest.raises(Stopped):
            train(server, delegated)
    record = StepRecord(step="pretrain", status="running")
    write_record(delegated.folder, record)
    server.end("Complete")
    server.requests.clear()
    train(server, delegated)
    assert server.requests == [("GET", 200), ("GET", 200)]  # nothing deleted, nothing started
    assert delegated.record() == record
    assert "attached to TrainJob team-a/pretrain-demo-1-" in capsys.readouterr().out


def test_concurrently_started_job_is_attached_to(server: Any, delegated: DelegatedStep) -> None:
    train_it = manifest(delegated, CONFIG, Path("/workspace"), "team-a").to_dict()
    server.troubles = [404]
    server.jobs["team-a", train_it["metadata"]["name"]] = {**train_it, "status": {}}
    server.after = {2: lambda: server.end("Complete")}
    train(server, delegated)
    assert server.requests[:2] == [("GET", 404), ("POST", 409)]
    assert len(server.jobs) == 1


@pytest.mark.parametrize("troubles", [[500, 500], [503, 429], [-1, 502]])
def test_temporary_failures_of_the_api_are_retried(
    server: Any, delegated: DelegatedStep, troubles: list[int]
) -> None:
    server.troubles = list(troubles)
    server.after = {3: lambda: server.troubles.extend(troubles), 5: lambda: server.end("Complete")}
    train(server, delegated)
    assert len([request for request in server.requests if request == ("POST", 201)]) == 1
    assert [status for _, status in server.requests if status in {500, 502, 503, 429, -1}]


def test_unreachable_api_is_an_error_that_can_be_retried(
    server: Any, delegated: DelegatedStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_api, "UNREACHABLE_S", 0.2)
    server.troubles = [500] * 1000
    with pytest.raises(EmbedlineError, match=r"has not answered.*next try attaches") as error:
        train(server, delegated)
    assert type(error.value) is EmbedlineError  # worth another try


@pytest.mark.parametrize(("status", "advice"), [(403, "service account"), (401, "token"), (422, "train_job")])
def test_refusal_is_raised_without_retries(
    server: Any, delegated: DelegatedStep, status: int, advice: str
) -> None:
    server.after = {1: lambda: server.troubles.append(status)}
    with pytest.raises(InputError, match=advice) as error:
        train(server, delegated)
    assert f"({status})" in str(error.value)
    assert f"told to answer {status}" in str(error.value)
    assert server.requests == [("GET", 404), ("POST", status)]


def test_a_cluster_without_the_trainer_is_named(server: Any, delegated: DelegatedStep) -> None:
    server.after = {1: lambda: server.troubles.append(404)}
    with pytest.raises(InputError, match="Kubeflow Trainer is installed"):
        train(server, delegated)


def test_failure_has_the_jobs_reason(server: Any, delegated: DelegatedStep) -> None:
    server.after = {3: lambda: server.end("Failed", "DeadlineExceeded", "job ran for too long.")}
    with pytest.raises(EmbedlineError, match=r"failed \(DeadlineExceeded\): job ran for too long\.") as error:
        train(server, delegated)
    assert type(error.value) is EmbedlineError


@pytest.mark.parametrize(("final", "kind"), [(True, StepError), (False, EmbedlineError)])
def test_failure_has_the_first_processs_error(
    server: Any, delegated: DelegatedStep, final: bool, kind: type[EmbedlineError]
) -> None:
    def fail() -> None:
        said = {"status": "failed", "error": "no negative.", "exit_code": 2, "final": final}
        write_record(delegated.folder, StepRecord.model_validate({"step": "pretrain", **said}))
        server.end("Failed", "JobsFailed", "one or more jobs failed")

    server.after = {3: fail}
    with pytest.raises(
        EmbedlineError, match=r"JobsFailed.*no negative\..*delete it to start another"
    ) as error:
        train(server, delegated)
    assert type(error.value) is kind
    assert error.value.exit_code == 2


def test_deleted_job_is_an_error(server: Any, delegated: DelegatedStep) -> None:
    server.after = {3: server.jobs.clear}
    with pytest.raises(EmbedlineError, match="was deleted"):
        train(server, delegated)


def config_json(enabled: bool = True, **train_job: Any) -> str:
    config = {"pretrain": {"enabled": enabled}, "runtime": {"processes": 1}}
    return json.dumps({"config": config, "train_job": train_job})


def test_only_multi_node_training_on_a_cluster_is_delegated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubernetes.config.load_incluster_config", lambda: None)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    asked = config_json(nodes=2, namespace="n")
    assert choose_delegate("pretrain", asked, tmp_path) is None
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert choose_delegate("pretrain", asked, tmp_path) is not None
    assert choose_delegate("pretrain", config_json(), tmp_path) is None
    assert choose_delegate("pretrain", config_json(enabled=False, nodes=2, namespace="n"), tmp_path) is None
    assert choose_delegate("prune_after", asked, tmp_path) is None


def test_task_without_a_token_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    with pytest.raises(InputError, match=r"train_job\.nodes: the task cannot start.*token"):
        choose_delegate("pretrain", config_json(nodes=2), tmp_path)


@pytest.mark.slow
def test_the_component_trains_on_two_nodes_and_takes_the_result_from_the_store(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run the component's own body; the server runs the manifest's command, one agent per node."""
    server.runs_them = True
    step = load(HERE.parent / "faults" / "one_step.py")
    stage = {"steps": 6, "batch": 16, "objective": "unified", "batch_tokens": 128, "log_every": 2}
    step.prepare(tmp_path, supervised=stage)
    given = json.loads((tmp_path / "slice.json").read_text())
    given["train_job"] = {"nodes": 2, "namespace": "team-a"}

    def in_cluster() -> None:
        client.Configuration.set_default(client.Configuration(host=server.url))

    monkeypatch.setattr("kubernetes.config.load_incluster_config", in_cluster)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    from embedline.components.train_supervised.component import train_supervised

    made = SimpleNamespace(path=str(tmp_path / "made.json"), metadata={})
    told: dict[str, float] = {}
    try:
        train_supervised.python_func(
            config_json=json.dumps(given),
            workspace=str(tmp_path),
            run="r",
            model=SimpleNamespace(path=str(tmp_path / "references" / "model.json")),
            triplets=SimpleNamespace(path=str(tmp_path / "references" / "triplets.json")),
            trained=made,
            metrics=SimpleNamespace(log_metric=told.__setitem__),
            summary=SimpleNamespace(path=str(tmp_path / "summary.md")),
            curves=SimpleNamespace(path=str(tmp_path / "curves.html")),
        )
    finally:
        client.Configuration.set_default(None)
        outputs = [agent.communicate(timeout=60)[0] for agent in server.agents]
    assert len(server.agents) == 2, outputs
    assert len(server.jobs) == 1
    record = json.loads((tmp_path / "r" / "steps" / "train_supervised" / "record.json").read_text())
    assert (record["status"], record["cache_hit"]) == ("done", False)
    assert (tmp_path / record["outputs"]["model"]["path"] / "model.safetensors").is_file()
    assert made.metadata["digest"] == record["outputs"]["model"]["digest"]
    assert "6 steps of 16 pairs" in (tmp_path / "summary.md").read_text()
    spool = (tmp_path / "r" / "steps" / "train_supervised" / "spool.jsonl").read_text()
    assert "dense_loss" in spool
    assert "dense" in (tmp_path / "curves.html").read_text()
