"""Overlays as kubectl builds them, and the connections that their network policies allow."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

INFRA = Path(__file__).parents[2] / "infra"
OVERLAYS = ("dev", "prod")
Doc = dict[str, Any]


def need(tool: str, found: object, how: str) -> None:
    """Skip without a tool; fail where it is required."""
    if found:
        return
    if os.environ.get(f"EMBEDLINE_REQUIRE_{tool.upper()}") == "1":
        pytest.fail(f"EMBEDLINE_REQUIRE_{tool.upper()} is set and {tool} is not here: {how}")
    pytest.skip(f"needs {tool}: {how}")


def tool_path() -> str:
    """Return the search path of programs: .ci/run installs kubectl beside Python."""
    return f"{os.environ['PATH']}:{Path(sys.executable).parent}"


@cache
def kustomize(folder: Path) -> list[Doc]:
    kubectl = shutil.which("kubectl", path=tool_path())
    need("kubectl", kubectl, "infra/get-kubectl.sh .venv/bin/kubectl")
    command = [str(kubectl), "kustomize", str(folder)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    assert not built.stderr.strip(), built.stderr  # deprecations are said there
    return [doc for doc in yaml.safe_load_all(built.stdout) if doc]


@dataclass(frozen=True)
class Peer:
    """A pod (labels of its own and of its namespace, named ports) or an address outside."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = ""
    namespace_labels: dict[str, str] = field(default_factory=dict)
    address: str = ""
    ports: dict[str, int] = field(default_factory=dict)


class Cluster:
    """Objects of one overlay."""

    def __init__(self, overlay: str, docs: list[Doc]) -> None:
        self.overlay, self.docs = overlay, docs
        (self.namespace,) = (doc["metadata"]["name"] for doc in self.of("Namespace"))

    def of(self, *kinds: str) -> list[Doc]:
        return [doc for doc in self.docs if doc["kind"] in kinds]

    def get(self, kind: str, name: str) -> Doc | None:
        return next((doc for doc in self.of(kind) if doc["metadata"]["name"] == name), None)

    def templates(self) -> Iterator[tuple[str, Doc]]:
        """Yield every pod template, the training runtime's included."""
        for doc in self.of("Deployment", "StatefulSet", "DaemonSet", "Job"):
            yield doc["metadata"]["name"], doc["spec"]["template"]
        for doc in self.of("TrainingRuntime"):
            for job in doc["spec"]["template"]["spec"]["replicatedJobs"]:
                yield doc["metadata"]["name"], job["template"]["spec"]["template"]

    def containers(self) -> Iterator[tuple[str, Doc, Doc]]:
        """Yield (`pod/container`, pod spec, container), init containers included."""
        for name, template in self.templates():
            spec = template["spec"]
            for container in [*spec.get("initContainers", []), *spec["containers"]]:
                yield f"{name}/{container['name']}", spec, container

    def peers(self) -> list[Peer]:
        """Return the pods of this build, the pods that Kubeflow makes, and the other peers."""
        here = {"kubernetes.io/metadata.name": self.namespace}
        found = []
        for name, template in self.templates():
            if name != "embedline-torch":
                ports = [port for c in template["spec"]["containers"] for port in c["ports"]]
                numbers = {port["name"]: port["containerPort"] for port in ports}
                labels = template["metadata"]["labels"]
                found.append(Peer(name, labels, self.namespace, here, ports=numbers))
        found += [
            Peer("pipeline pod", {"workflows.argoproj.io/workflow": "x"}, self.namespace, here),
            Peer("training pod", {"jobset.sigs.k8s.io/jobset-name": "x"}, self.namespace, here),
            Peer("UI's artefact pod", {"app": "ml-pipeline-ui-artifact"}, self.namespace, here),
            Peer("other pod", {}, self.namespace, here),
        ]

        def elsewhere(name: str, namespace: str, labels: dict[str, str] | None = None, **more: str) -> Peer:
            return Peer(name, labels or {}, namespace, {"kubernetes.io/metadata.name": namespace, **more})

        return [
            *found,
            elsewhere("cluster DNS", "kube-system", {"k8s-app": "kube-dns"}),
            elsewhere("kube-system pod", "kube-system"),
            elsewhere("Kubeflow", "kubeflow"),
            elsewhere("gateway", "gateways", **{"embedline.dev/mlflow-gateway": "true"}),
            elsewhere("other namespace", "default"),
            Peer("node DNS cache", address="169.254.20.10"),
            Peer("private address", address="10.7.7.7"),
            Peer("public address", address="93.184.216.34"),
            Peer("metadata service", address="169.254.169.254"),
        ]

    def allows(self, source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
        """Return whether a connection is allowed, as the NetworkPolicy API defines it."""
        return self._side("Egress", source, target, target, port, protocol) and self._side(
            "Ingress", target, source, target, port, protocol
        )

    def _side(self, side: str, subject: Peer, other: Peer, target: Peer, port: int, protocol: str) -> bool:
        if subject.namespace != self.namespace:
            return True
        policies = [
            doc["spec"]
            for doc in self.of("NetworkPolicy")
            if side in doc["spec"]["policyTypes"] and selects(doc["spec"]["podSelector"], subject.labels)
        ]
        rules = [rule for spec in policies for rule in spec.get(side.lower(), [])]
        whom = "to" if side == "Egress" else "from"
        named = [rule for rule in rules if _names(rule.get(whom), other, self.namespace)]
        return not policies or any(_opens(rule.get("ports"), target, port, protocol) for rule in named)


def selects(selector: Doc, labels: dict[str, str]) -> bool:
    known = {"matchLabels", "matchExpressions"}
    assert set(selector) <= known
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "Exists"
        if expression["key"] not in labels:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def _names(peers: list[Doc] | None, other: Peer, namespace: str) -> bool:
    if not peers:
        return True
    for peer in peers:
        if block := peer.get("ipBlock"):
            outside = other.address and ipaddress.ip_address(other.address)
            inside = outside and outside in ipaddress.ip_network(block["cidr"])
            if inside and not any(outside in ipaddress.ip_network(no) for no in block.get("except", [])):
                return True
            continue
        if other.address:
            continue
        space = peer.get("namespaceSelector")
        there = other.namespace == namespace if space is None else selects(space, other.namespace_labels)
        if there and selects(peer.get("podSelector", {}), other.labels):
            return True
    return False


def _opens(ports: list[Doc] | None, target: Peer, port: int, protocol: str) -> bool:
    if not ports:
        return True
    return any(
        target.ports.get(entry["port"], entry["port"]) == port and entry.get("protocol", "TCP") == protocol
        for entry in ports
    )


@pytest.fixture(params=OVERLAYS)
def cluster(request: pytest.FixtureRequest) -> Cluster:
    return Cluster(request.param, kustomize(INFRA / "kustomize" / "overlays" / request.param))


@pytest.fixture(scope="session")
def infra() -> Path:
    return INFRA


@pytest.fixture(scope="session")
def operator_page() -> str:
    return (INFRA / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def secret_commands(operator_page: str) -> dict[str, set[str]]:
    """Return secret → keys, as the operator page's own commands make them."""
    blocks = re.findall(r"```sh\n(.*?)```", operator_page, re.DOTALL)
    (commands,) = (block for block in blocks if "secret generic" in block)
    dry = 'kubectl() { command kubectl "$@" --dry-run=client -o yaml; echo ---; }\n'
    environment = {**os.environ, "PATH": tool_path(), "KUBECONFIG": "/dev/null"}
    made = subprocess.run(
        ["bash", "-euc", dry + commands], env=environment, capture_output=True, text=True, timeout=60
    )
    assert made.returncode == 0, made.stderr
    secrets = [doc for doc in yaml.safe_load_all(made.stdout) if doc]
    assert all(value for secret in secrets for value in secret["data"].values())
    return {secret["metadata"]["name"]: set(secret["data"]) for secret in secrets}


sys.path.insert(0, str(INFRA / "services"))  # scripts, not a package
