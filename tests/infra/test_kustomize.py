"""Each overlay builds, is what Kubernetes and the Trainer accept, and every reference in it resolves."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import kubernetes_validate
import pytest
from kubeflow_trainer_api.models import TrainerV1alpha1TrainingRuntime

VERSIONS = ("1.31", kubernetes_validate.latest_version())
STRANGERS = {"TrainingRuntime"}  # no schema in Kubernetes itself


def validate(doc: dict[str, Any]) -> None:
    for version in VERSIONS:
        kubernetes_validate.validate(doc, version, strict=True)


def test_every_document_is_valid_kubernetes(cluster: Any) -> None:
    assert len(cluster.docs) > 15
    assert {doc["kind"] for doc in cluster.docs} >= {
        "Deployment",
        "NetworkPolicy",
        "ResourceQuota",
        *STRANGERS,
    }
    for doc in cluster.docs:
        if doc["kind"] not in STRANGERS:
            validate(doc)


def test_a_misspelt_field_would_be_refused(cluster: Any) -> None:
    doc = copy.deepcopy(cluster.get("Deployment", "mlflow"))
    doc["spec"]["template"]["spec"]["securityContext"]["runAsNonroot"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="runAsNonroot"):
        validate(doc)


def test_the_training_runtime_is_what_the_trainer_knows(cluster: Any) -> None:
    (doc,) = cluster.of("TrainingRuntime")
    assert doc["apiVersion"] == "trainer.kubeflow.org/v1alpha1"
    read = TrainerV1alpha1TrainingRuntime.from_dict(doc)
    assert read is not None
    kept = read.to_dict()
    assert _missing(doc, kept) == []  # the model drops what it does not know
    wrong = copy.deepcopy(doc)
    wrong["spec"]["template"]["spec"]["failurePolicy"]["maxRestart"] = 2
    again = TrainerV1alpha1TrainingRuntime.from_dict(wrong)
    assert again is not None
    assert _missing(wrong, again.to_dict()) == [".spec.template.spec.failurePolicy.maxRestart"]


def _missing(given: Any, kept: Any, path: str = "") -> list[str]:
    """Return the paths that are in `given` and not in `kept`."""
    if isinstance(given, dict) and isinstance(kept, dict):
        return [gone for key in given for gone in _missing(given[key], kept.get(key), f"{path}.{key}")]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        return [gone for n, value in enumerate(given) for gone in _missing(value, kept[n], f"{path}[{n}]")]
    return [] if given == kept else [path]


def test_everything_lies_in_the_overlays_namespace(cluster: Any) -> None:
    assert cluster.namespace == {"dev": "embedline-dev", "prod": "embedline"}[cluster.overlay]
    for doc in cluster.docs:
        if doc["kind"] != "Namespace":
            assert doc["metadata"]["namespace"] == cluster.namespace, doc["metadata"]["name"]


def test_every_reference_resolves(cluster: Any, secret_commands: dict[str, set[str]]) -> None:
    claims = {
        claim["metadata"]["name"]
        for doc in cluster.of("StatefulSet")
        for claim in doc["spec"]["volumeClaimTemplates"]
    }
    used = set()
    for name, spec, container in cluster.containers():
        for source in container.get("envFrom", []):
            if "secretRef" in source:
                used.add(source["secretRef"]["name"])
            else:
                assert cluster.get("ConfigMap", source["configMapRef"]["name"]), (name, source)
        for entry in container.get("env", []):
            wanted = entry.get("valueFrom", {})
            if key := wanted.get("secretKeyRef"):
                assert key["key"] in secret_commands[key["name"]], (name, key)
                used.add(key["name"])
            if key := wanted.get("configMapKeyRef"):
                assert key["key"] in cluster.get("ConfigMap", key["name"])["data"], (name, key)
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        for mount in container.get("volumeMounts", []):
            volume = volumes.get(mount["name"])
            assert volume or mount["name"] in claims, (name, mount)
            if volume and (claim := volume.get("persistentVolumeClaim")):
                assert cluster.get("PersistentVolumeClaim", claim["claimName"]), (name, claim)
            if volume and (config := volume.get("configMap")):
                assert cluster.get("ConfigMap", config["name"]), (name, config)
        assert cluster.get("ServiceAccount", spec["serviceAccountName"]), name
    assert used == set(secret_commands), "the page documents exactly the secrets that are used"


def test_addresses_in_the_settings_are_services_of_the_build_or_outside(cluster: Any) -> None:
    settings: dict[str, str] = {}
    for doc in cluster.of("ConfigMap"):
        settings |= doc["data"]
    hosts = [settings["PGHOST"]]
    for key in ("MLFLOW_S3_ENDPOINT_URL", "MLFLOW_TRACKING_URI"):
        hosts.append(urlparse(settings[key]).hostname or "")
    for host in hosts:
        service = cluster.get("Service", host)
        assert service or "." in host, host
        assert bool(service) == (cluster.overlay == "dev" or host == "mlflow")


def test_services_target_a_port_of_their_pods(cluster: Any) -> None:
    templates = list(cluster.templates())
    for service in cluster.of("Service"):
        pods = [
            template
            for _, template in templates
            if service["spec"]["selector"].items() <= template.get("metadata", {}).get("labels", {}).items()
        ]
        assert len(pods) == 1, service["metadata"]["name"]
        open_ports = {port["name"] for c in pods[0]["spec"]["containers"] for port in c["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= open_ports


def test_workspace_is_shared_and_servers_fit_the_quota(cluster: Any) -> None:
    workspace = cluster.get("PersistentVolumeClaim", "embedline-workspace")
    assert workspace["spec"]["accessModes"] == ["ReadWriteMany"]
    (quota,) = (doc["spec"]["hard"] for doc in cluster.of("ResourceQuota"))
    standing = [c for name, _, c in cluster.containers() if not name.startswith("embedline-torch")]
    assert sum(_cores(c["resources"]["limits"]["cpu"]) for c in standing) < _cores(quota["limits.cpu"]) / 2
    (training,) = (c for name, _, c in cluster.containers() if name.startswith("embedline-torch"))
    (runtime,) = cluster.of("TrainingRuntime")
    nodes = runtime["spec"]["mlPolicy"]["numNodes"]
    assert nodes * _cores(training["resources"]["limits"]["cpu"]) < _cores(quota["limits.cpu"]) / 2


def test_quota_does_not_count_objects_that_are_never_removed(cluster: Any) -> None:
    """A quota of objects also counts ended ones: every further training would be refused."""
    (quota,) = (doc["spec"]["hard"] for doc in cluster.of("ResourceQuota"))
    assert {"limits.cpu", "pods", "requests.nvidia.com/gpu"} <= set(quota), "what runs is limited"
    assert [key for key in quota if "trainjob" in key] == []


def _cores(text: str) -> float:
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def test_images_are_pinned_to_what_is_tested(cluster: Any, infra: Path) -> None:
    pins = (infra.parent / "constraints.txt").read_text(encoding="utf-8")
    for name, _, container in cluster.containers():
        image = container.get("image")
        if name.startswith("embedline-torch"):
            assert image is None, "the TrainJob names the image: it is the run's code version"
            continue
        assert re.fullmatch(r"[a-z0-9.]+/[\w./-]+:v?\d[\w.-]*(@sha256:[0-9a-f]{64})?", image), (name, image)
        if "mlflow" in image:
            version = re.search(r":v([\d.]+)-full$", image)
            assert version is not None
            assert f"mlflow=={version[1]}\n" in pins
