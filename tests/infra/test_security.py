"""Permissions, secrets and network of the overlays."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|(^|_)KEY(_|$)|CREDENTIAL", re.IGNORECASE)
URI_WITH_PASSWORD = re.compile(r"://[^/\s:@]+:[^/\s@]+@")


def test_every_container_is_restricted_and_has_limits(cluster: Any) -> None:
    seen = 0
    for name, pod, container in cluster.containers():
        seen += 1
        of_pod, own = pod["securityContext"], container["securityContext"]
        assert of_pod["runAsNonRoot"] is True, name
        assert of_pod["runAsUser"] > 0, name
        assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert own["allowPrivilegeEscalation"] is False, name
        assert own["readOnlyRootFilesystem"] is True, name
        assert own["capabilities"] == {"drop": ["ALL"]}, name
        assert set(own) == {"allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"}, name
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= container["resources"][kind].keys(), name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), name
        assert not any("hostPath" in volume for volume in pod.get("volumes", [])), name
    assert seen == {"dev": 5, "prod": 3}[cluster.overlay]


def test_data_loading_pod_is_restricted(cluster: Any, operator_page: str) -> None:
    """As the page creates it: admitted, with the image's user, at the volume that pipeline pods read."""
    (text,) = re.findall(r"<<'EOF'\n(apiVersion: v1\nkind: Pod\n.*?)EOF", operator_page, re.DOTALL)
    pod = yaml.safe_load(text)
    for version in ("1.31", kubernetes_validate.latest_version()):
        kubernetes_validate.validate(pod, version, strict=True)
    (container,) = pod["spec"]["containers"]
    ours, others = pod["spec"]["securityContext"], list(cluster.containers())
    training, own = next((spec, one) for name, spec, one in others if name.startswith("embedline-torch"))
    assert ours.items() <= training["securityContext"].items()
    assert container["securityContext"] == own["securityContext"]
    assert pod["spec"]["automountServiceAccountToken"] is False
    (volume,), (mount,) = pod["spec"]["volumes"], container["volumeMounts"]
    assert cluster.get("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
    assert f"workspace:{mount['mountPath']}/my-search" in operator_page
    assert f"data.root={mount['mountPath']}/my-search" in operator_page


def test_long_running_pods_have_probes(cluster: Any) -> None:
    for doc in cluster.of("Deployment", "StatefulSet"):
        for container in doc["spec"]["template"]["spec"]["containers"]:
            probes = {"startupProbe", "readinessProbe", "livenessProbe"}
            assert probes <= container.keys(), doc["metadata"]["name"]


def test_only_pipeline_pods_get_a_token(cluster: Any) -> None:
    accounts = cluster.of("ServiceAccount")
    mounted = {doc["metadata"]["name"] for doc in accounts if doc.get("automountServiceAccountToken", True)}
    assert mounted == {"embedline-runner"}
    for name, pod, _ in cluster.containers():
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["serviceAccountName"] not in {"default", "embedline-runner", "embedline-submitter"}, name


def test_roles_have_exactly_these_rules(cluster: Any) -> None:
    assert not cluster.of("ClusterRole", "ClusterRoleBinding")
    rights = {
        (doc["metadata"]["name"], group, resource, verb): tuple(rule.get("resourceNames", ()))
        for doc in cluster.of("Role")
        for rule in doc["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert not any("*" in part for right in rights for part in right)
    assert {right[1:]: names for right, names in rights.items() if right[0] == "embedline-runner"} == {
        **{("trainer.kubeflow.org", "trainjobs", verb): () for verb in ("create", "get", "list", "watch")},
        **{("argoproj.io", "workflowtaskresults", verb): () for verb in ("create", "patch")},
        ("", "configmaps", "get"): ("kfp-launcher",),
        ("", "secrets", "get"): ("mlpipeline-minio-artifact",),
    }
    assert {right[1:]: names for right, names in rights.items() if right[0] == "embedline-submitter"} == {
        ("pipelines.kubeflow.org", resource, verb): ()
        for resource, verbs in {
            "pipelines": ("create", "get", "list"),
            "pipelines/versions": ("create", "get", "list"),
            "experiments": ("create", "get", "list"),
            "runs": ("create", "get", "list", "terminate"),
            "jobs": ("create", "disable", "get", "list"),
        }.items()
        for verb in verbs
    }
    for binding in cluster.of("RoleBinding"):
        assert cluster.get(binding["roleRef"]["kind"], binding["roleRef"]["name"])
        (subject,) = binding["subjects"]
        assert subject["namespace"] == cluster.namespace
        assert cluster.get("ServiceAccount", subject["name"])


def test_no_secret_has_a_value(cluster: Any, infra: Path) -> None:
    assert not cluster.of("Secret")
    for name, _, container in cluster.containers():
        for entry in container.get("env", []):
            assert not (SECRET_NAME.search(entry["name"]) and "value" in entry), (name, entry)
    for doc in cluster.of("ConfigMap"):
        for key, value in doc["data"].items():
            assert not SECRET_NAME.search(key), key
            assert not URI_WITH_PASSWORD.search(value), key
    compose = yaml.safe_load((infra / "compose.yaml").read_text(encoding="utf-8"))
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            if SECRET_NAME.search(key):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), (name, key)


def test_namespace_enforces_pod_security(cluster: Any) -> None:
    (namespace,) = cluster.of("Namespace")
    level = "pod-security.kubernetes.io/"
    labels = namespace["metadata"]["labels"]
    assert (labels[level + "enforce"], labels[level + "warn"]) == ("baseline", "restricted")


def test_network_policies_match_the_documented_table(cluster: Any, operator_page: str) -> None:
    deny = cluster.get("NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    rows = table(operator_page, cluster)
    ports = sorted({22, 80, 29500} | {port for *_, port in rows if port})
    peers = cluster.peers()
    inside = {peer.name for peer in peers if peer.namespace == cluster.namespace}

    def open_pairs(numbers: list[int], protocol: str = "TCP") -> set[tuple[str, str, int]]:
        return {
            (source.name, target.name, port)
            for source in peers
            for target in peers
            if inside & {source.name, target.name}  # the rest is no business of this namespace
            for port in numbers
            if cluster.allows(source, target, port, protocol)
        }

    documented = {(a, b, port) for a, b, rule in rows for port in (ports if rule is None else [rule])}
    assert open_pairs(ports) == documented
    assert open_pairs([53], "UDP") == {row for row in documented if row[2] == 53}  # DNS, and training pods


def table(page: str, cluster: Any) -> list[tuple[str, str, int | None]]:
    """Return (from, to, port; None for any) of this overlay, from the operator page."""
    text = page.split("## Who may talk to whom")[1].split("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    inside = [peer.name for peer in cluster.peers() if peer.namespace == cluster.namespace]
    found: list[tuple[str, str, int | None]] = []
    for source, target, ports, overlays in lines[1:]:
        if cluster.overlay in overlays.split(", "):
            for name in inside if source == "every pod" else [source]:
                found += [(name, target, None if port == "any" else int(port)) for port in ports.split(", ")]
    assert len(found) > 10
    return found
