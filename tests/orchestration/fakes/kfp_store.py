"""State of the pipelines API: collections, refusals and listings."""

from __future__ import annotations

import re
import threading
import uuid
from datetime import UTC, datetime
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from kfp_listing import FIELDS, RefusedError, matching, number, read_token, sorting, write_token

DNS = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


class Store:
    """Every collection by id; ids are the server's own."""

    def __init__(self, multi_user: bool = False) -> None:
        self.multi_user = multi_user
        self.lock = threading.RLock()
        self.kept: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in FIELDS}
        self._clock = 0

    def get(self, collection: str, key: str) -> dict[str, Any]:
        if key not in self.kept[collection]:
            raise RefusedError(404, f"{collection} {key} not found")
        return self.kept[collection][key]

    def keep(self, collection: str, id_field: str, value: dict[str, Any]) -> dict[str, Any]:
        self._clock += 1  # one microsecond apart, so that sorting by time is an order
        made = datetime(2026, 1, 1, tzinfo=UTC).replace(microsecond=self._clock)
        value = {**value, id_field: str(uuid.uuid4()), "created_at": made.isoformat()}
        self.kept[collection][value[id_field]] = value
        return value

    def create_experiment(self, body: dict[str, Any]) -> dict[str, Any]:
        self._require_namespace(body.get("namespace"))
        self._require_new("experiments", body["display_name"], namespace=body.get("namespace") or "")
        return self.keep(
            "experiments", "experiment_id", {"namespace": "", **body, "storage_state": "AVAILABLE"}
        )

    def create_pipeline(self, body: dict[str, Any]) -> dict[str, Any]:
        self._require_new("pipelines", body["name"], namespace=body.get("namespace") or "")
        return self.keep("pipelines", "pipeline_id", {"namespace": "", "display_name": body["name"], **body})

    def upload_pipeline(self, query: dict[str, str], text: bytes) -> dict[str, Any]:
        spec = parse_package(text)
        name = query.get("name") or spec["pipeline_spec"]["pipelineInfo"]["name"]
        space = query.get("namespace", "")
        self._require_new("pipelines", name, namespace=space)
        named = {"name": name, "display_name": query.get("display_name") or name, "namespace": space}
        made = self.keep("pipelines", "pipeline_id", {**named, "description": query.get("description", "")})
        self._version(made["pipeline_id"], name, query, spec)
        return made

    def upload_version(self, query: dict[str, str], text: bytes) -> dict[str, Any]:
        if not query.get("pipelineid"):
            raise RefusedError(400, "pipeline id in the query parameter is required")
        self.get("pipelines", query["pipelineid"])
        return self._version(query["pipelineid"], query.get("name", ""), query, parse_package(text))

    def _version(
        self, pipeline: str, name: str, query: dict[str, str], spec: dict[str, Any]
    ) -> dict[str, Any]:
        if not DNS.fullmatch(name):
            raise RefusedError(400, f"the version name {name!r} is not a DNS-1123 subdomain")
        self._require_new("versions", name, pipeline_id=pipeline)
        named = {"pipeline_id": pipeline, "name": name, "display_name": query.get("display_name") or name}
        return self.keep(
            "versions",
            "pipeline_version_id",
            {**named, "description": query.get("description", ""), "pipeline_spec": spec},
        )

    def create_run(self, body: dict[str, Any]) -> dict[str, Any]:
        kept = self._job(body)
        return self.keep("runs", "run_id", {**kept, "state": "PENDING", "storage_state": "AVAILABLE"})

    def create_recurring(self, body: dict[str, Any]) -> dict[str, Any]:
        trigger = {key: value for key, value in (body.get("trigger") or {}).items() if value}
        if len(trigger) != 1:
            raise RefusedError(400, "trigger: exactly one of cron_schedule and periodic_schedule is needed")
        if "cron_schedule" in trigger:
            _require_cron(trigger["cron_schedule"].get("cron", ""))
        elif int(trigger["periodic_schedule"].get("interval_second", 0)) < 1:
            raise RefusedError(400, "trigger: the interval is at least one second")
        if not 1 <= int(body["max_concurrency"]) <= 10:
            raise RefusedError(400, "max_concurrency: must be between 1 and 10")
        if body.get("mode") not in {"ENABLE", "DISABLE"}:
            raise RefusedError(400, "mode: is unspecified")
        status = {"ENABLE": "ENABLED", "DISABLE": "DISABLED"}[body["mode"]]
        return self.keep("recurring", "recurring_run_id", {**self._job(body), "status": status})

    def _job(self, body: dict[str, Any]) -> dict[str, Any]:
        """Check the common parts of runs and recurring runs: experiment, pipeline and parameters."""
        experiment = body.get("experiment_id")
        if experiment:
            self.get("experiments", experiment)
        elif self.multi_user:
            raise RefusedError(400, "experiment_id: is needed on a server with several users")
        given, reference = body.get("pipeline_spec"), body.get("pipeline_version_reference")
        if bool(given) == bool(reference):
            raise RefusedError(400, "exactly one of pipeline_spec and pipeline_version_reference is needed")
        spec = parse_package(yaml.safe_dump(given).encode()) if given else self._referred(reference)
        _require_parameters(spec, (body.get("runtime_config") or {}).get("parameters") or {})
        return dict(body)

    def _referred(self, reference: dict[str, str]) -> dict[str, Any]:
        version = self.get("versions", reference.get("pipeline_version_id", ""))
        if version["pipeline_id"] != reference.get("pipeline_id"):
            raise RefusedError(400, "pipeline_version_reference: the version is of another pipeline")
        return dict(version["pipeline_spec"])

    def terminate(self, key: str) -> None:
        run = self.get("runs", key)
        if run["state"] not in {"PENDING", "RUNNING", "PAUSED"}:
            raise RefusedError(400, f"Failed to terminate run {key}: it is {run['state']}")
        run["state"] = "CANCELING"

    def list(self, collection: str, id_field: str, query: dict[str, str], **scope: str) -> dict[str, Any]:
        """Return a page of the items that match the filter, sorted, within `scope`."""
        size = number(query.get("page_size") or "10", "page_size")
        names = {"filter": query.get("filter", ""), "sort_by": query.get("sort_by", ""), **scope}
        offset = read_token(query.get("page_token", ""), names)
        wanted = matching(collection, query.get("filter", ""))
        field, reverse = sorting(collection, query.get("sort_by", ""))
        found = [
            value
            for value in self.kept[collection].values()
            if wanted(value) and all(value.get(key, "") == limit for key, limit in scope.items())
        ]
        found.sort(key=lambda value: (str(value.get(field, "")), value[id_field]), reverse=reverse)
        page = found[offset : offset + size]
        more = offset + size < len(found)
        token = write_token(offset + size, names) if more else ""
        return {"found": page, "total_size": len(found), "next_page_token": token}

    def _require_namespace(self, namespace: str | None) -> None:
        if self.multi_user != bool(namespace):
            kind = "needs a" if self.multi_user else "takes no"
            raise RefusedError(400, f"namespace: a request to this server {kind} namespace")

    def _require_new(self, collection: str, name: str, **scope: str) -> None:
        for value in self.kept[collection].values():
            if value.get("name", value["display_name"]) == name and scope.items() <= value.items():
                raise RefusedError(409, f"Already exist error: the name {name} already exists")


def parse_package(text: bytes) -> dict[str, Any]:
    """Read a compiled pipeline as the server does: into protobuf messages, unknown fields refused."""
    try:
        documents = [value for value in yaml.safe_load_all(text) if value]
        if len(documents) == 1 and "pipeline_spec" in documents[0]:
            documents = [documents[0]["pipeline_spec"], documents[0].get("platform_spec") or {}]
        spec = json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
        platform = json_format.ParseDict(
            documents[1] if documents[1:] else {}, pipeline_spec_pb2.PlatformSpec()
        )
    except (yaml.YAMLError, json_format.ParseError, IndexError, TypeError, AttributeError) as error:
        raise RefusedError(400, f"the pipeline spec is invalid: {error}") from error
    if not spec.pipeline_info.name or not spec.root.dag.tasks:
        raise RefusedError(400, "the pipeline spec is invalid: it has no name or no tasks")
    return {
        "pipeline_spec": json_format.MessageToDict(spec),
        "platform_spec": json_format.MessageToDict(platform),
    }


def _require_parameters(spec: dict[str, Any], given: dict[str, Any]) -> None:
    inputs = spec["pipeline_spec"]["root"].get("inputDefinitions", {}).get("parameters", {})
    types: dict[str, Any] = {"STRING": str, "BOOLEAN": bool, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": float}
    for name, value in given.items():
        if name not in inputs:
            raise RefusedError(400, f"parameter {name} is not one of the pipeline's")
        kind = types.get(inputs[name]["parameterType"])
        number = isinstance(value, int) and not isinstance(value, bool) and kind is float
        if kind and not number and type(value) is not kind:
            raise RefusedError(400, f"parameter {name} is not a {inputs[name]['parameterType']}")
    for name, definition in inputs.items():
        if name not in given and "defaultValue" not in definition and not definition.get("isOptional"):
            raise RefusedError(400, f"parameter {name} is not optional, yet has no value")


def _require_cron(text: str) -> None:
    """Check that a cron expression has six fields, the first for seconds."""
    limits = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]
    parts = text.split()
    if len(parts) != len(limits):
        raise RefusedError(400, f"cron {text!r}: six fields are needed, seconds first")
    for part, (low, high) in zip(parts, limits, strict=True):
        if not re.fullmatch(r"[\d*?,/A-Z-]+", part):
            raise RefusedError(400, f"cron {text!r}: {part!r} cannot be read")
        for digits in re.findall(r"(?<![/\d])\d+", part):
            if not low <= int(digits) <= high:
                raise RefusedError(400, f"cron {text!r}: {digits} is not between {low} and {high}")
