"""Section `cluster` of presets, read back from the compiled YAML."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2
from kubernetes.utils.quantity import parse_quantity

from embedline.components.image import GPU_IMAGE, IMAGE
from embedline.config.cluster import GROUPS, NEVER_CACHED, PER_RUN, TASKS, ClusterConfig
from embedline.config.load import load_config, preset_names
from embedline.dag import STEPS
from embedline.errors import InputError
from embedline.orchestration.compile import compile_pipeline

EXECUTORS = {
    name: {"prune_before": "prune", "prune_after": "prune-2"}.get(name, name.replace("_", "-"))
    for name in TASKS
}


class Compiled:
    """A compiled pipeline: each task's specification, container and Kubernetes settings."""

    def __init__(self, *overrides: str, workspace: str | None = None) -> None:
        self.text = compile_pipeline("demo", overrides, workspace)
        documents = [dict(value) for value in yaml.safe_load_all(self.text)]
        self.spec, self.platform = documents[0], (documents[1:] or [{}])[0]

    def task(self, name: str) -> dict[str, Any]:
        dags = [self.spec["root"]["dag"], self.spec["components"]["comp-exit-handler-1"]["dag"]]
        return next(dag["tasks"][EXECUTORS[name]] for dag in dags if EXECUTORS[name] in dag["tasks"])

    def container(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.spec["deploymentSpec"]["executors"][f"exec-{EXECUTORS[name]}"][
            "container"
        ]
        return found

    def kubernetes(self, name: str) -> dict[str, Any]:
        """Read with the engine's own message type, which refuses unknown fields."""
        asked = self.platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {})
        given = asked.get("executors", {}).get(f"exec-{EXECUTORS[name]}", {})
        message = json_format.ParseDict(given, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
        return json_format.MessageToDict(message)

    def all(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for name in TASKS:
            yield name, self.kubernetes(name)


def test_tasks_are_the_steps_with_preflight_and_finish() -> None:
    assert set(TASKS) == {*STEPS, "preflight", "finish"}
    assert all(set(group) <= set(TASKS) for group in GROUPS.values())
    training = ("pretrain", "train_unsupervised", "train_supervised")
    assert GROUPS["training"] == training
    assert {*training, "prune_before", "prune_after", "mine", "evaluate"} == set(GROUPS["computing"])


def test_defaults_of_every_task() -> None:
    made = Compiled()
    for name in TASKS:
        assert not made.task(name)["cachingOptions"].get("enableCache"), name
        retried = name in {*GROUPS["computing"], *GROUPS["reaching"]}
        assert ("retryPolicy" in made.task(name)) == retried, name
        resources = made.container(name).get("resources", {})
        assert resources["resourceMemoryRequest"] == ("4G" if name in GROUPS["computing"] else "2G")
        for limit in ("resourceMemoryLimit", "resourceCpuLimit", "resourceCpuRequest"):
            assert resources[limit], "a quota refuses a pod without"
        days = 14 if name in GROUPS["computing"] else 1
        assert made.kubernetes(name)["activeDeadlineSeconds"] == str(days * 86_400), name
        mounts = made.kubernetes(name).get("emptyDirMounts", [])
        assert [mount["mountPath"] for mount in mounts] == (
            ["/dev/shm"] if name in GROUPS["training"] else []
        )
        (volume,), (config,) = made.kubernetes(name)["pvcMount"], made.kubernetes(name)["configMapAsEnv"]
        assert (volume["constant"], volume["mountPath"]) == ("embedline-workspace", "/workspace")
        assert (config["configMapName"], config["optional"]) == ("embedline-tracking", True)


def test_narrower_entry_overrides_a_wider_one() -> None:
    made = Compiled(
        "cluster.tasks.all={memory_request: 1Gi, cpu_limit: 500m, timeout_s: 600}",
        "cluster.tasks.computing={memory_request: 8Gi, retries: 5, backoff_s: 30, backoff_max_s: 600}",
        "cluster.tasks.train_supervised={memory_request: 32Gi, memory_limit: 64Gi, timeout_s: 86400}",
    )
    expected = {"gate": "1Gi", "finish": "1Gi", "mine": "8Gi", "pretrain": "8Gi", "train_supervised": "32Gi"}
    for name, memory in expected.items():
        resources = made.container(name)["resources"]
        assert resources["resourceMemoryRequest"] == memory
        assert resources["resourceCpuLimit"] == "500m"
    assert made.container("train_supervised")["resources"]["resourceMemoryLimit"] == "64Gi"
    seconds = {name: asked["activeDeadlineSeconds"] for name, asked in made.all()}
    assert seconds == {name: "86400" if name == "train_supervised" else "600" for name in TASKS}
    assert made.task("mine")["retryPolicy"] == {
        "maxRetryCount": 5,
        "backoffDuration": "30s",
        "backoffFactor": 2.0,
        "backoffMaxDuration": "600s",
    }
    assert made.task("ingest")["retryPolicy"]["maxRetryCount"] == 2
    assert "retryPolicy" not in made.task("finish")


def test_accelerators_nodes_and_taints() -> None:
    made = Compiled(
        "cluster.tasks.training={accelerator: nvidia.com/gpu, accelerators: 2, node_selector: {pool: gpu}, "
        "tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]}",
        "cluster.tasks.pretrain={accelerators: 0, node_selector: {zone: a}, tolerations: []}",
    )
    resources = made.container("train_supervised")["resources"]
    accelerator = resources["accelerator"]
    assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("nvidia.com/gpu", "2")
    asked = made.kubernetes("train_supervised")
    assert asked["nodeSelector"]["labels"] == {"pool": "gpu"}
    assert asked["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "accelerator" not in made.container("pretrain")["resources"]
    assert made.container("train_supervised")["image"] == GPU_IMAGE
    assert made.container("pretrain")["image"] == IMAGE
    assert made.kubernetes("pretrain")["nodeSelector"]["labels"] == {"pool": "gpu", "zone": "a"}
    assert "tolerations" not in made.kubernetes("pretrain")
    assert "nodeSelector" not in made.kubernetes("mine")


def test_secrets_and_config_maps_are_references() -> None:
    made = Compiled(
        "cluster.tasks.all.secrets={MLFLOW_TRACKING_PASSWORD: {name: mlflow, key: password}}",
        "cluster.tasks.all.config_maps={MLFLOW_TRACKING_URI: {name: embedline, key: tracking-uri}}",
        "cluster.tasks.promote.secrets={HOOK_KEY: {name: hook, key: hmac, optional: true}}",
    )
    for name, asked in made.all():
        secrets = {entry["secretName"]: entry for entry in asked["secretAsEnv"]}
        pairs = [("password", "MLFLOW_TRACKING_PASSWORD")]
        assert [(p["secretKey"], p["envVar"]) for p in secrets["mlflow"]["keyToEnv"]] == pairs
        assert ("hook" in secrets) == (name == "promote")
        (config,) = asked["configMapAsEnv"]
        assert config["configMapName"] == "embedline"
        assert config["keyToEnv"] == [{"configMapKey": "tracking-uri", "envVar": "MLFLOW_TRACKING_URI"}]
    assert secrets["mlflow"].get("optional") in {None, False}
    entries = {entry["secretName"]: entry for entry in made.kubernetes("promote")["secretAsEnv"]}
    assert entries["hook"]["optional"] is True


def test_a_secret_that_the_config_refers_to_is_mounted_where_it_is_read() -> None:
    made = Compiled("tracking.token=secret:mlflow/token")
    for _, asked in made.all():
        (volume,) = asked["secretAsVolume"]
        assert (volume["secretName"], volume["mountPath"]) == ("mlflow", "/run/secrets/embedline/mlflow")


@pytest.mark.parametrize(("workspace", "place"), [(None, "/volume"), ("/mnt/work", "/mnt/work")])
def test_an_existing_claim_is_mounted_at_the_workspace_in_every_task(
    workspace: str | None, place: str
) -> None:
    made = Compiled("cluster.workspace={claim: embedline, path: /volume}", workspace=workspace)
    for name, asked in made.all():
        (mount,) = asked["pvcMount"]
        assert (mount["constant"], mount["mountPath"]) == ("embedline", place), name
    inputs = made.spec["root"]["inputDefinitions"]["parameters"]
    assert inputs["workspace"]["defaultValue"] == place
    assert "pipelineConfig" not in made.platform["platforms"]["kubernetes"]


def test_volume_of_a_run_is_mounted_in_every_task() -> None:
    made = Compiled("cluster.workspace={size: 50Gi, storage_class: fast, access_mode: ReadWriteMany}")
    asked = made.platform["platforms"]["kubernetes"]["pipelineConfig"]["workspace"]
    assert asked["size"] == "50Gi"
    assert asked["kubernetes"]["pvcSpecPatch"] == {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "fast",
    }
    # the engine mounts it into every task that is handed a path in it
    inputs = made.spec["root"]["inputDefinitions"]["parameters"]
    assert inputs["workspace"]["defaultValue"] == PER_RUN
    for name in TASKS:
        given = made.task(name)["inputs"]["parameters"]["workspace"]["componentInputParameter"]
        assert given in {"workspace", "pipelinechannel--workspace"}, name
    assert not any("pvcMount" in asked for _, asked in made.all())
    with pytest.raises(InputError, match=PER_RUN):
        compile_pipeline("demo", ["cluster.workspace.size=50Gi"], "/workspace")


def test_image_pull_secrets_are_set_on_every_task() -> None:
    made = Compiled("cluster.image_pull_secrets=[registry]")
    assert all([s["secretName"] for s in asked["imagePullSecret"]] == ["registry"] for _, asked in made.all())


def test_engine_cache_is_allowed_by_task_except_never_cached_ones() -> None:
    made = Compiled("cluster.tasks.ingest.engine_cache=true", "cluster.tasks.clean.engine_cache=true")
    cached = {name for name in TASKS if made.task(name)["cachingOptions"].get("enableCache")}
    assert cached == {"ingest", "clean"}
    for name in (*NEVER_CACHED, "all"):
        with pytest.raises(InputError, match="never cached"):
            load_config("demo", [f"cluster.tasks.{name}.engine_cache=true"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cluster.tasks.trian={}", "none of all, reaching"),
        ("cluster.tasks.mine.memory_request=4 GB", "memory_request"),
        ("cluster.tasks.mine.cpu_request='two'", "cpu_request"),
        ("cluster.tasks.mine.accelerators=1", "no accelerator"),
        ("cluster.tasks.mine.secrets={PASSWORD: hunter2}", "PASSWORD: .*never the value itself"),
        ("cluster.tasks.mine.secrets={PASSWORD: {name: x, value: hunter2}}", "unknown key"),
        ("cluster.tasks.mine.secrets={'A B': {name: x, key: y}}", "A B"),
        ("cluster.tasks.finish.retries=1", "exit handler"),
        ("cluster.workspace={claim: a, size: 5Gi}", "exclude each other"),
        ("cluster.workspace={size: 5Gi, path: /elsewhere}", PER_RUN),
        ("cluster.workspace.claim=Not_A_Name", "claim"),
        ("cluster.image_pull_secrets=['../x']", "image_pull_secrets"),
        ("cluster.tasks.mine.timeout=5", "did you mean 'timeout_s'"),
        ("cluster.tasks.mine={memory_request: 32Gi, memory_limit: 16G}", "mine has a memory_request of 32Gi"),
        ("cluster.tasks={all: {cpu_limit: 500m}, gate: {cpu_request: '1'}}", "gate has a cpu_request of 1"),
        ("cluster.tasks.mine.memory_request=100K", "memory_request"),
        ("cluster.tasks.mine.accelerator=gpu", "accelerator"),
        ("cluster.tasks.mine.node_selector={'a b': c}", "node_selector"),
        ("cluster.tasks.mine.node_selector={a: 'b c'}", "node_selector.a"),
        ("cluster.tasks.mine.tolerations=[{key: a, operator: Exists, value: b}]", "is not compared"),
        ("cluster.tasks.mine.tolerations=[{value: b}]", "key: is missing"),
        (
            "cluster.tasks.mine.tolerations=[{key: a, effect: NoSchedule, seconds: 5}]",
            "effect: NoExecute",
        ),
        (
            "cluster.tasks.mine={secrets: {A: {name: x, key: y}}, config_maps: {A: {name: x, key: y}}}",
            "mine takes A from a secret and from a config map",
        ),
    ],
)
def test_settings_that_kubernetes_refuses_are_refused_first(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        load_config("demo", [override])
    assert "hunter2" not in str(refused.value), "what is taken for a name may be the secret"


def test_default_resources_follow_the_preset() -> None:
    """A request above its limit is a pod that Kubernetes never starts."""
    made = Compiled(
        "cluster.tasks.training={memory_request: 32Gi}",
        "cluster.tasks.mine={cpu_limit: 1, memory_limit: 2Gi}",
        "cluster.tasks.evaluate={memory_request: 4G, memory_limit: 4G}",
    )
    wanted = {
        "pretrain": ("2", "8", "32Gi", "32Gi"),
        "mine": ("1", "1", "2Gi", "2Gi"),
        "evaluate": ("2", "8", "4G", "4G"),
        "prune_after": ("2", "8", "4G", "16G"),
    }
    for name, sizes in wanted.items():
        resources = made.container(name)["resources"]
        keys = ("CpuRequest", "CpuLimit", "MemoryRequest", "MemoryLimit")
        assert tuple(resources[f"resource{key}"] for key in keys) == sizes, name
    for preset in preset_names():
        for name in TASKS:
            task = load_config(preset).cluster.task(name)
            for kind in ("cpu", "memory"):
                request, limit = (getattr(task, f"{kind}_{side}") for side in ("request", "limit"))
                assert parse_quantity(request) <= parse_quantity(limit), (preset, name)


def test_secret_replaces_the_default_config_map() -> None:
    made = Compiled("cluster.tasks.promote.secrets={MLFLOW_TRACKING_URI: {name: mlflow, key: uri}}")
    assert "configMapAsEnv" not in made.kubernetes("promote")
    assert made.kubernetes("mine")["configMapAsEnv"][0]["configMapName"] == "embedline-tracking"


@pytest.mark.parametrize(
    ("overrides", "place"),
    [
        ((), "/workspace"),
        (("cluster.workspace.path=/volume",), "/volume"),
        (("cluster.workspace.size=5Gi",), PER_RUN),
    ],
)
def test_hub_cache_is_shared_by_all_pods(overrides: Any, place: str) -> None:
    """Preflight passes the paths of downloaded models to all steps: they must be on the shared volume."""
    made = Compiled(*overrides)
    for name in TASKS:
        environment = {entry["name"]: entry["value"] for entry in made.container(name)["env"]}
        assert environment["HF_HOME"] == f"{place}/.embedline/huggingface", name


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_compiles_to_what_the_engine_reads(preset: str) -> None:
    """With its name as the default input, and its `cluster` settings in the tasks."""
    spec, platform = yaml.safe_load_all(compile_pipeline(preset))
    read = json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    assert read.root.input_definitions.parameters["preset"].default_value.string_value == preset
    cluster = load_config(preset).cluster
    asked = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for name in TASKS:
        container = read.deployment_spec["executors"][f"exec-{EXECUTORS[name]}"]["container"]
        wanted, resources = cluster.task(name), container["resources"]
        assert resources["resourceMemoryLimit"] == wanted.memory_limit, name
        assert ("accelerator" in resources) == bool(wanted.accelerator), name
        assert container["image"] == (GPU_IMAGE if wanted.accelerator else IMAGE), name
        shared = [mount["sizeLimit"] for mount in asked[f"exec-{EXECUTORS[name]}"].get("emptyDirMounts", [])]
        assert shared == ([wanted.shared_memory] if wanted.shared_memory else []), name


def test_the_same_preset_gives_the_same_bytes() -> None:
    asked = ["cluster.tasks.all.node_selector={b: '1', a: '2'}", "cluster.workspace.claim=w"]
    assert compile_pipeline("demo", asked) == compile_pipeline("demo", asked)
    assert ClusterConfig().task("finish").retries == 0


def test_the_pipeline_stays_small_enough_for_the_engine() -> None:
    """Argo keeps a workflow in an object of at most 1.5 MB; pipelines above 256 KB were seen to fail."""
    everything = [
        "cluster.tasks.all={cpu_request: '2', node_selector: {pool: gpu}, timeout_s: 600, "
        "secrets: {A: {name: a, key: a}, B: {name: b, key: b}}, config_maps: {C: {name: c, key: c}}}",
        "cluster.workspace.claim=w",
        "cluster.image_pull_secrets=[registry]",
    ]
    assert len(Compiled(*everything).text.encode()) < 160_000
