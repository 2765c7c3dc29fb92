"""The test server accepts kfp's real client and refuses every wrong field."""

import copy
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kfp_schema
import pytest
from kfp_server_api import ApiException

from embedline.orchestration.server import connect

pytestmark = pytest.mark.timeout(120)
API = "/apis/v2beta1"
GOLDEN = Path(__file__).parents[2] / "pipelines" / "retrain" / "pipeline.yaml"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small compiled pipeline with inputs of several types (kfp cannot read them as strings)."""
    from kfp import compiler, dsl

    @dsl.component
    def work(text: str, count: int, share: float, fine: bool) -> None: ...

    @dsl.pipeline(name="small")
    def small(text: str, count: int = 1, share: float = 0.5, fine: bool = True) -> None:
        work(text=text, count=count, share=share, fine=fine)

    path = tmp_path_factory.mktemp("package") / "small.yaml"
    compiler.Compiler().compile(small, str(path))
    return path


@pytest.fixture
def ids(kfp_server: Any, package: Path) -> dict[str, str]:
    with connect(kfp_server.url) as client:
        experiment = client.create_experiment("here").experiment_id
        pipeline = client.upload_pipeline(str(package), "small").pipeline_id
        version = client.upload_pipeline_version(str(package), "v2", pipeline_id=pipeline)
    return {"experiment": experiment, "pipeline": pipeline, "version": version.pipeline_version_id}


def _run_body(ids: dict[str, str]) -> dict[str, Any]:
    return {
        "display_name": "r",
        "description": "d",
        "experiment_id": ids["experiment"],
        "service_account": "robot",
        "pipeline_version_reference": {
            "pipeline_id": ids["pipeline"],
            "pipeline_version_id": ids["version"],
        },
        "runtime_config": {"parameters": {"text": "a", "count": 2}, "pipeline_root": "s3://b"},
    }


def _recurring_body(ids: dict[str, str]) -> dict[str, Any]:
    schedule = {
        "cron": "0 30 4 * * 1",
        "start_time": "2026-01-01T00:00:00Z",
        "end_time": "2027-01-01T00:00:00Z",
    }
    return {
        **_run_body(ids),
        "mode": "ENABLE",
        "max_concurrency": "1",
        "no_catchup": True,
        "trigger": {"cron_schedule": schedule},
    }


def _ask(server: Any, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + API + path, data=data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_real_client_does_everything_that_the_line_needs(
    kfp_server: Any, package: Path, ids: Any
) -> None:
    with connect(kfp_server.url) as client:
        assert client.get_pipeline_id("small") == ids["pipeline"]
        run = client.run_pipeline(
            ids["experiment"],
            "r",
            params={"text": "a"},
            pipeline_id=ids["pipeline"],
            version_id=ids["version"],
        )
        assert client.get_run(run.run_id).state == "PENDING"
        client.terminate_run(run.run_id)
        assert client.get_run(run.run_id).state == "CANCELING"
        job = client.create_recurring_run(
            ids["experiment"],
            "weekly",
            cron_expression="0 0 3 * * 0",
            max_concurrency=1,
            no_catchup=True,
            params={"text": "a"},
            pipeline_id=ids["pipeline"],
            version_id=ids["version"],
        )
        client.disable_recurring_run(job.recurring_run_id)
        assert client.get_recurring_run(job.recurring_run_id).status == "DISABLED"
        client.delete_recurring_run(job.recurring_run_id)
        with pytest.raises(ApiException, match="404"):
            client.get_recurring_run(job.recurring_run_id)
        other = client.create_run_from_pipeline_package(
            str(package), {"text": "b"}, run_name="whole", experiment_name="elsewhere"
        )
        assert client.get_run(other.run_id).pipeline_spec["pipelineInfo"]["name"] == "small"


def test_runs_are_listed_in_pages_and_by_filter(kfp_server: Any, ids: Any) -> None:
    for number in range(5):
        body = {**_run_body(ids), "display_name": f"demo-{number % 2}-{number}"}
        assert _ask(kfp_server, "POST", "/runs", body)[0] == 200
    with connect(kfp_server.url) as client:
        names, token = [], ""
        while True:
            page = client.list_runs(token, 2, "created_at desc", ids["experiment"])
            assert page.total_size == 5
            names += [run.display_name for run in page.runs]
            token = page.next_page_token
            if not token:
                break
        assert names == ["demo-0-4", "demo-1-3", "demo-0-2", "demo-1-1", "demo-0-0"]
        predicate = {"operation": "IS_SUBSTRING", "key": "display_name", "stringValue": "demo-1"}
        found = client.list_runs(filter=json.dumps({"predicates": [predicate]}))
        assert [run.display_name for run in found.runs] == ["demo-1-1", "demo-1-3"]
        kfp_server.finish(found.runs[0].run_id, "FAILED")
        live = {"operation": "IN", "key": "state", "string_values": {"values": ["PENDING", "RUNNING"]}}
        found = client.list_runs(filter=json.dumps({"predicates": [predicate, live]}))
        assert [run.display_name for run in found.runs] == ["demo-1-3"]


def _wrong(kind: str) -> list[Any]:
    """Return values that a field of this type does not accept."""
    if kind == "str":
        return [7, ["x"], {"x": 1}]
    if kind in {"bool", "datetime"} or kfp_schema._PRIMITIVES.get(kind) or kfp_schema.choices(kind):
        return ["no such value", ["x"]]
    return ["x", 7]


def _mutations(body: Any, kind: str) -> Iterator[tuple[str, Any]]:
    """Yield the body with one wrong field, for every field of the API."""
    yield "unknown", {**body, "no_such_field": 1}
    for field, of in kfp_schema.fields(kind).items():
        if kfp_schema.is_output(kind, field):
            yield field, {**body, field: "x"}
            continue
        for value in _wrong(of):
            if not (field in kfp_schema.INT64 and isinstance(value, int)):
                yield field, {**body, field: value}
        if kfp_schema.is_required(kind, field):
            yield field, {key: value for key, value in body.items() if key != field}
        nested = of.startswith("V2beta1") and not kfp_schema.choices(of)
        if nested and isinstance(body.get(field), dict):
            for name, inner in _mutations(body[field], of):
                yield f"{field}.{name}", {**body, field: inner}


@pytest.mark.parametrize(
    ("path", "kind", "make"),
    [
        ("/runs", "V2beta1Run", _run_body),
        ("/recurringruns", "V2beta1RecurringRun", _recurring_body),
        ("/experiments", "V2beta1Experiment", lambda _: {"display_name": "new", "description": "d"}),
    ],
)
def test_every_field_of_a_body_is_checked(
    kfp_server: Any, ids: dict[str, str], path: str, kind: str, make: Any
) -> None:
    body = make(ids)
    kept = copy.deepcopy(kfp_server.store.kept)
    tried = set()
    for field, spoiled in _mutations(body, kind):
        status, answer = _ask(kfp_server, "POST", path, spoiled)
        assert status == 400, f"{field}: {spoiled}"
        assert answer["code"] == 3
        assert field.rpartition(".")[2] in answer["message"] or field.endswith("unknown"), answer
        tried.add(field)
    assert set(kfp_schema.fields(kind)) <= tried
    assert kfp_server.store.kept == kept, "what was refused left something behind"
    assert _ask(kfp_server, "POST", path, body)[0] == 200


@pytest.mark.parametrize(
    ("path", "change", "status"),
    [
        ("/runs", {"experiment_id": "nobody"}, 404),
        ("/runs", {"pipeline_version_reference": None}, 400),
        ("/runs", {"pipeline_version_reference": {"pipeline_id": "x", "pipeline_version_id": "y"}}, 404),
        ("/runs", {"pipeline_spec": {"pipelineInfo": {"name": "x"}}}, 400),
        ("/runs", {"runtime_config": {"parameters": {"text": "a", "unknown": 1}}}, 400),
        ("/runs", {"runtime_config": {"parameters": {"text": 5}}}, 400),
        ("/runs", {"runtime_config": {"parameters": {"text": "a", "count": "2"}}}, 400),
        ("/runs", {"runtime_config": {"parameters": {"text": "a", "fine": 1}}}, 400),
        ("/runs", {"runtime_config": {"parameters": {}}}, 400),
        ("/recurringruns", {"trigger": {}}, 400),
        ("/recurringruns", {"trigger": {"cron_schedule": {"cron": "30 4 * * 1"}}}, 400),
        ("/recurringruns", {"trigger": {"cron_schedule": {"cron": "0 61 4 * * 1"}}}, 400),
        ("/recurringruns", {"trigger": {"periodic_schedule": {"interval_second": "0"}}}, 400),
        ("/recurringruns", {"max_concurrency": 11}, 400),
        ("/recurringruns", {"mode": "MODE_UNSPECIFIED"}, 400),
        ("/experiments", {"display_name": "here"}, 409),
        ("/experiments", {"display_name": "new", "namespace": "team"}, 400),
    ],
)
def test_inconsistent_requests_are_refused(
    kfp_server: Any, ids: dict[str, str], path: str, change: Any, status: int
) -> None:
    body = {"/runs": _run_body, "/recurringruns": _recurring_body, "/experiments": lambda _: {}}[path](ids)
    assert _ask(kfp_server, "POST", path, {**body, **change})[0] == status


@pytest.mark.parametrize(
    "query",
    [
        "page_size=0",
        "page_size=many",
        "page_token=x",
        "sort_by=colour",
        "sort_by=created_at%20up",
        "colour=red",
        "experiment_id=nobody",
        "filter=x",
        'filter={"predicates":[{"operation":"EQUALS","key":"colour","string_value":"a"}]}',
        'filter={"predicates":[{"operation":"NEAR","key":"state","string_value":"a"}]}',
        'filter={"predicates":[{"operation":"EQUALS","key":"state","string_value":7}]}',
        'filter={"predicates":[{"operation":"EQUALS","key":"state"}]}',
        'filter={"predicates":{}}',
        'filter={"wanted":[]}',
    ],
)
def test_every_query_parameter_is_checked(kfp_server: Any, ids: Any, query: str) -> None:
    assert _ask(kfp_server, "GET", f"/runs?{query}")[0] in {400, 404}


def test_uploads_are_read_as_pipelines(kfp_server: Any, ids: Any, package: Path, tmp_path: Path) -> None:
    spoiled = tmp_path / "spoiled.yaml"
    good = package.read_text(encoding="utf-8")
    with connect(kfp_server.url) as client:
        upload = client.pipeline_uploads.upload_pipeline_version
        texts = ["", "a: [", "just words", good.replace("schemaVersion", "shemaVersion"), good[:200]]
        for text in texts:
            spoiled.write_text(text, encoding="utf-8")
            with pytest.raises(ApiException) as refused:
                upload(str(spoiled), name="v3", pipelineid=ids["pipeline"])
            assert refused.value.status == 400, text
        for status, more in (
            (400, {"name": "v3"}),
            (404, {"name": "v3", "pipelineid": "x"}),
            (409, {"name": "v2", "pipelineid": ids["pipeline"]}),
            (400, {"name": "Not A Name", "pipelineid": ids["pipeline"]}),
        ):
            with pytest.raises(ApiException) as refused:
                upload(str(package), **more)
            assert refused.value.status == status, more
        # the whole line, with what it asks of kubernetes, is a pipeline to this server
        upload(str(GOLDEN), name="whole", pipelineid=ids["pipeline"])
    assert _ask(kfp_server, "POST", f"/pipelines/upload_version?pipelineid={ids['pipeline']}", {})[0] == 400


def test_only_active_runs_can_be_terminated(kfp_server: Any, ids: Any) -> None:
    run = _ask(kfp_server, "POST", "/runs", _run_body(ids))[1]["run_id"]
    kfp_server.finish(run)
    assert _ask(kfp_server, "POST", f"/runs/{run}:terminate")[0] == 400
    assert _ask(kfp_server, "POST", f"/runs/{run}:explode")[0] == 404
    assert _ask(kfp_server, "POST", "/runs/nobody:terminate")[0] == 404
