"""compose.yaml is valid and closed; MLflow has the same settings on a cluster, in compose, from packages."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import stack
import yaml
from stack import BASE, Stack, read_env

from embedline.errors import InputError

SERVER = BASE / "server.env"


@pytest.fixture(scope="module")
def compose(infra: Path) -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load((infra / "compose.yaml").read_text(encoding="utf-8"))
    return value


def check_schema(file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_compose_follows_the_compose_specification(infra: Path, tmp_path: Path) -> None:
    checked = check_schema(infra / "compose.yaml")
    assert checked.returncode == 0, checked.stdout
    wrong = tmp_path / "compose.yaml"
    wrong.write_text((infra / "compose.yaml").read_text().replace("mem_limit", "memory_limit"))
    assert check_schema(wrong).returncode != 0


def test_compose_publishes_only_mlflow_on_loopback(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "mlflow": ["127.0.0.1:5000:5000"]
    }
    assert compose["networks"]["stores"] == {"internal": True}
    assert services["postgres"]["networks"] == services["object-store"]["networks"] == ["stores"]


def test_compose_waits_for_health_and_keeps_its_data(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert ("healthcheck" in service) == (name != "prepare")  # that one ends
    assert services["prepare"]["depends_on"] == {
        "postgres": {"condition": "service_healthy"},
        "object-store": {"condition": "service_healthy"},
    }
    assert services["mlflow"]["depends_on"] == {"prepare": {"condition": "service_completed_successfully"}}
    kept = {
        volume.split(":")[0] for name in ("postgres", "object-store") for volume in services[name]["volumes"]
    }
    assert kept == set(compose["volumes"])


def test_compose_variables_match_the_example_and_env_is_ignored(infra: Path) -> None:
    asked = set(re.findall(r"\$\{(\w+):\?", (infra / "compose.yaml").read_text(encoding="utf-8")))
    example = read_env(infra / ".env.example")
    assert asked == set(example)
    assert not any(example.values())
    ignored = subprocess.run(["git", "check-ignore", "-q", "infra/.env"], cwd=infra.parent, timeout=30)
    assert ignored.returncode == 0


def test_compose_runs_the_images_of_the_cluster(cluster: Any, compose: dict[str, Any]) -> None:
    there = {container["image"] for _, _, container in cluster.containers() if "image" in container}
    here = {service["image"] for service in compose["services"].values()}
    assert there == here if cluster.overlay == "dev" else there < here


def test_mlflow_settings_are_the_same_everywhere(cluster: Any, compose: dict[str, Any], infra: Path) -> None:
    settings = read_env(SERVER)
    assert len(settings) > 5
    deployment = cluster.get("Deployment", "mlflow")["spec"]["template"]["spec"]
    for container, service in (
        (deployment["initContainers"][0], "prepare"),
        (deployment["containers"][0], "mlflow"),
    ):
        name = container["envFrom"][0]["configMapRef"]["name"]
        assert cluster.get("ConfigMap", name)["data"] == settings
        assert compose["services"][service]["env_file"] == [str(SERVER.relative_to(infra))]
        assert container["command"] == compose["services"][service]["command"]
        assert not settings.keys() & compose["services"][service]["environment"].keys()
        assert not settings.keys() & {entry["name"] for entry in container["env"]}
    script = cluster.get("ConfigMap", deployment["volumes"][1]["configMap"]["name"])["data"]["prepare.py"]
    assert script == (BASE / "prepare.py").read_text(encoding="utf-8")
    (mounted,) = compose["services"]["prepare"]["volumes"]
    assert (infra / mounted.split(":")[0]).read_text(encoding="utf-8") == script


def test_servers_from_packages_differ_only_in_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "postgres_programs", lambda: Path("/usr/lib/postgresql/15/bin"))
    monkeypatch.setenv("MLFLOW_WORKERS", "9")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://elsewhere")
    made = Stack()
    try:
        given = made.mlflow.options["env"]
        assert isinstance(given, dict)
        own = {key: value for key, value in given.items() if key.startswith("MLFLOW_")}
        settings = read_env(SERVER)
        assert {key for key in settings if own[key] != settings[key]} == {"MLFLOW_HOST", "MLFLOW_PORT"}
        assert own.keys() - settings.keys() == {"MLFLOW_S3_ENDPOINT_URL"}
        assert own["MLFLOW_HOST"] == "127.0.0.1"
    finally:
        made.close()
    assert not made.folder.exists()


def test_missing_postgresql_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "postgres_programs", lambda: None)
    with pytest.raises(InputError, match="apt-get install postgresql"):
        Stack()


def test_mlflow_accepts_only_allowed_hosts(cluster: Any) -> None:
    from mlflow.server.security_utils import is_allowed_host_header, should_block_cors_request

    settings: dict[str, str] = {}
    for source in cluster.get("Deployment", "mlflow")["spec"]["template"]["spec"]["containers"][0]["envFrom"]:
        if "configMapRef" in source:
            settings |= cluster.get("ConfigMap", source["configMapRef"]["name"])["data"]
    allowed = settings["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    uri = cluster.get("ConfigMap", "embedline-tracking")["data"]["MLFLOW_TRACKING_URI"]
    names = [
        uri.removeprefix("http://"),
        f"mlflow.{cluster.namespace}.svc.cluster.local:5000",
        "localhost:5000",
    ]
    assert all(is_allowed_host_header(allowed, name) for name in names)
    for name in ("evil.example", "mlflow.evil.example:5000", "mlflow.svc.evil.example:5000", "10.0.0.7:5000"):
        assert not is_allowed_host_header(allowed, name), name
    if cluster.overlay == "prod":  # a name that people type, which must be known in both places
        public = allowed[-1]
        assert is_allowed_host_header(allowed, public)
        origins = settings["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
        assert not should_block_cors_request(f"https://{public}", "POST", origins)
