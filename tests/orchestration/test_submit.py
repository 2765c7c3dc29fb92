"""`embedline submit` with kfp's real client against a test server that checks every request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp_server import KfpServer
from typer.testing import CliRunner, Result

from embedline.cli.app import app
from embedline.config.load import load_config
from embedline.errors import InputError
from embedline.orchestration import server as patience
from embedline.orchestration.schedule import Schedule
from embedline.orchestration.submit import submit_run

pytestmark = pytest.mark.timeout(300)
KEY = "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSES_S", (0.01, 0.01, 0.01, 0.01))


def _submit(server: Any, *words: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, ["submit", "--host", server.url, *words], env=env)


def _made(server: Any, *words: str) -> dict[str, str]:
    result = _submit(server, *words, "--json")
    assert result.exit_code == 0, result.output
    made: dict[str, str] = json.loads(result.stdout)  # nothing but the value: kfp's own links stay out
    return made


def test_a_run_is_made_from_an_uploaded_version(kfp_server: Any) -> None:
    made = _made(kfp_server, "demo", "-o", "seed=3", "-o", "cluster.tasks.mine.timeout_s=60")
    (pipeline,), (version,), (run,) = (kfp_server.all(name) for name in ("pipelines", "versions", "runs"))
    assert pipeline["name"] == "embedline-retrain"
    assert version["name"] == made["version"]
    assert version["name"].startswith("demo-0.")
    assert run["run_id"] == made["id"]
    assert made["url"] == f"{kfp_server.url}/#/runs/details/{made['id']}"
    assert run["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    parameters = run["runtime_config"]["parameters"]
    assert parameters["preset"] == "demo"
    assert json.loads(parameters["overrides"]) == ["seed=3", "cluster.tasks.mine.timeout_s=60"]
    assert parameters["workspace"] == "/workspace"
    # what the run asks of kubernetes is in the version: an input would be too late
    platform = version["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]
    assert platform["deploymentSpec"]["executors"]["exec-mine"]["activeDeadlineSeconds"] == "60"
    assert kfp_server.all("experiments")[0]["display_name"] == "embedline"


def test_same_pipeline_is_uploaded_once(kfp_server: Any) -> None:
    first, second = _made(kfp_server, "demo"), _made(kfp_server, "demo", "-o", "seed=9")
    other = _made(kfp_server, "demo", "-o", "cluster.tasks.all.timeout_s=600")
    assert first["version"] == second["version"] != other["version"]
    assert len(kfp_server.all("versions")) == 2
    assert len(kfp_server.all("runs")) == 3
    assert len(kfp_server.all("pipelines")) == len(kfp_server.all("experiments")) == 1


def test_upload_sets_the_overrides_as_defaults_without_a_run(kfp_server: Any) -> None:
    made = _made(kfp_server, "demo", "--pipeline", "mine", "-o", "seed=3")
    assert _made(kfp_server, "demo", "--pipeline", "mine", "-o", "seed=3")["id"] == made["id"]
    assert not kfp_server.all("runs")
    (version,) = kfp_server.all("versions")
    inputs = version["pipeline_spec"]["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
    assert inputs["overrides"]["defaultValue"] == "seed=3"


def test_a_preset_file_travels_as_its_text(kfp_server: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "extends: demo\nname: mine\npretrain: {learning_rate: 1.0e-5}\ndescription: 'поиск: \"да\"'\n"
    )
    _made(kfp_server, str(tmp_path / "mine.yaml"))
    (run,) = kfp_server.all("runs")
    assert run["display_name"].startswith("mine-2")
    text = run["runtime_config"]["parameters"]["preset"]
    assert "\n" not in text
    assert load_config(text) == load_config(str(tmp_path / "mine.yaml"))


def test_a_run_is_found_by_its_train_key(kfp_server: Any) -> None:
    made = submit_run("demo", [], None, host=kfp_server.url, key=KEY)
    assert made["name"] == f"demo-{KEY[:12]}"
    from embedline.orchestration.server import connect

    wanted = {"operation": "IS_SUBSTRING", "key": "description", "stringValue": KEY}
    with connect(kfp_server.url) as client:
        found = client.list_runs(filter=json.dumps({"predicates": [wanted]})).runs
    assert [run.run_id for run in found] == [made["id"]]


@pytest.mark.parametrize(
    ("words", "trigger"),
    [
        (["--schedule", "30 4 * * 1"], {"cron_schedule": {"cron": "0 30 4 * * 1"}}),
        (["--schedule", "15 30 4 * * 1"], {"cron_schedule": {"cron": "15 30 4 * * 1"}}),
        (["--every", "6h"], {"periodic_schedule": {"interval_second": 21600}}),
    ],
)
def test_recurring_run_has_no_overlap_and_no_catch_up(
    kfp_server: Any, words: list[str], trigger: dict[str, Any]
) -> None:
    made = _made(kfp_server, "demo", *words)
    assert made["what"] == "recurring run"
    (job,) = kfp_server.all("recurring")
    assert job["trigger"] == trigger
    zoned = "cron_schedule" in trigger
    assert made["schedule"].endswith(" (UTC)") is zoned
    assert f"Schedule: {made['schedule']}." in job["description"]
    assert made.get("next", "+00:00").endswith("+00:00")
    assert (int(job["max_concurrency"]), job["no_catchup"], job["status"]) == (1, True, "ENABLED")
    assert not kfp_server.all("runs")
    again = _submit(kfp_server, "demo", *words)
    assert again.exit_code == 2
    assert f"--cancel {made['id']}" in again.stderr
    stopped = _made(kfp_server, "--cancel", made["id"])
    assert (stopped["what"], stopped["state"]) == ("recurring run", "DISABLED")
    assert _made(kfp_server, "demo", *words)["id"] != made["id"]


def test_two_projects_have_their_own_schedules(kfp_server: Any, tmp_path: Path) -> None:
    """`embedline init` names every preset's file preset.yaml: the name inside distinguishes them."""
    for name in ("my-search", "поиск"):
        (tmp_path / name).mkdir()
        preset = f"extends: demo\nname: {'search-ru' if name == 'поиск' else name}\n"
        (tmp_path / name / "preset.yaml").write_text(preset, encoding="utf-8")
        made = _made(kfp_server, str(tmp_path / name / "preset.yaml"), "--every", "1d")
        assert (made["what"], made["version"][:9]) == ("recurring run", preset.split(": ")[2][:9])
    assert {job["display_name"] for job in kfp_server.all("recurring")} == {
        "my-search-scheduled",
        "search-ru-scheduled",
    }


def test_long_names_that_begin_alike_have_their_own_schedules(kfp_server: Any, tmp_path: Path) -> None:
    for end in "ab":
        preset = tmp_path / f"{end}.yaml"
        preset.write_text(f"extends: demo\nname: {'search-' * 8}{end}\n")
        _made(kfp_server, str(preset), "--every", "1d")
    names = {job["display_name"] for job in kfp_server.all("recurring")}
    assert len(names) == 2
    assert all(len(name) <= 63 for name in names)


@pytest.mark.parametrize(
    ("cron", "every"), [("* * *", ""), ("", "soon"), ("", "30s"), ("", "6w"), ("0 3 * * 0", "6h")]
)
def test_unreadable_schedule_is_refused_without_a_request(cron: str, every: str) -> None:
    with pytest.raises(InputError):
        Schedule.read(cron, every)


def test_cancel_stops_a_run_and_ignores_an_ended_one(kfp_server: Any) -> None:
    run = _made(kfp_server, "demo")["id"]
    assert _made(kfp_server, "--cancel", run)["state"] == "CANCELING"
    kfp_server.finish(run, "CANCELED")
    said = _submit(kfp_server, "--cancel", run)
    assert said.exit_code == 0
    assert "(canceled)" in said.stdout
    assert sum(path.endswith(":terminate") for _, path, _ in kfp_server.requests) == 1
    nobody = _submit(kfp_server, "--cancel", "nobody")
    assert nobody.exit_code == 2
    assert "no run and no recurring run 'nobody'" in nobody.stderr


def test_service_account_and_workspace_come_from_the_preset_or_the_command(kfp_server: Any) -> None:
    preset = ["demo", "-o", "cluster.service_account=trainer", "-o", "cluster.workspace.size=10Gi"]
    _made(kfp_server, *preset)
    _made(kfp_server, *preset, "--service-account", "other", "--workspace", "/kfp-workspace/a")
    first, second = kfp_server.all("runs")
    assert (first["service_account"], second["service_account"]) == ("trainer", "other")
    places = [run["runtime_config"]["parameters"]["workspace"] for run in (first, second)]
    assert places == ["/kfp-workspace", "/kfp-workspace/a"]


def test_named_experiment_must_exist(kfp_server: Any) -> None:
    _made(kfp_server, "demo")
    unknown = _submit(kfp_server, "demo", "--experiment", "nightly")
    assert unknown.exit_code == 2
    assert "no experiment 'nightly'. Known: embedline" in unknown.stderr
    assert [value["display_name"] for value in kfp_server.all("experiments")] == ["embedline"]
    assert _made(kfp_server, "demo", "--experiment", "embedline")["experiment"] == "embedline"


def test_multi_user_server_gets_everything_in_the_namespace() -> None:
    with KfpServer(multi_user=True) as server:
        made = _made(server, "demo", "--namespace", "team")
        assert _made(server, "demo", "--namespace", "team")["version"] == made["version"]
        assert [value["namespace"] for value in server.all("experiments")] == ["team"]
        assert [value["namespace"] for value in server.all("pipelines")] == ["team"]
        assert "Give --namespace" in _submit(server, "demo").stderr


def test_token_is_used_and_never_printed(kfp_server: Any) -> None:
    kfp_server.token = "s3cret"
    expired = _submit(kfp_server, "demo", env={"KFP_TOKEN": "old-s3cret"})
    assert expired.exit_code == 2
    assert "expired (401: Request header error" in expired.stderr
    fine = _submit(kfp_server, "demo", env={"KFP_TOKEN": "s3cret"})
    assert fine.exit_code == 0
    assert "s3cret" not in expired.output + fine.output + json.dumps(kfp_server.all("runs"))


def test_temporary_failures_create_nothing_twice(kfp_server: Any) -> None:
    for pattern in ("POST .*/experiments", "POST .*/pipelines$", "upload_version", "POST .*/runs"):
        kfp_server.fail(pattern, status=503)
        kfp_server.lose(pattern)
    kfp_server.fail("GET .*", times=2)
    made = _made(kfp_server, "demo")
    for collection in ("experiments", "pipelines", "versions", "runs"):
        assert len(kfp_server.all(collection)) == 1, collection
    assert kfp_server.all("runs")[0]["run_id"] == made["id"]
    kfp_server.lose("POST .*/recurringruns")
    _made(kfp_server, "demo", "--every", "1d")
    assert len(kfp_server.all("recurring")) == 1
    kfp_server.fail("POST .*terminate")
    assert _made(kfp_server, "--cancel", made["id"])["state"] == "CANCELING"


def test_a_server_that_keeps_failing_is_exit_code_1(kfp_server: Any) -> None:
    kfp_server.fail("POST .*/runs", times=100)
    failed = _submit(kfp_server, "demo")
    assert failed.exit_code == 1
    assert "failed (500" in failed.stderr
    assert "Traceback" not in failed.output


@pytest.mark.parametrize(
    "words",
    [[], ["demo", "--cancel", "x"], ["demo", "--pipeline", "p", "--every", "1h"], ["demo", "-o", "sead=1"]],
)
def test_contradictory_options_are_refused_without_a_request(kfp_server: Any, words: list[str]) -> None:
    refused = _submit(kfp_server, *words)
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
    assert not kfp_server.requests


def test_uploaded_pipeline_equals_the_compiled_one(kfp_server: Any) -> None:
    _made(kfp_server, "demo", "--pipeline", "mine")
    written = CliRunner().invoke(app, ["compile", "demo"])
    spec, platform = yaml.safe_load_all(written.stdout)
    kept = kfp_server.all("versions")[0]["pipeline_spec"]
    assert kept["pipeline_spec"]["deploymentSpec"].keys() == spec["deploymentSpec"].keys()
    assert kept["platform_spec"]["platforms"].keys() == platform["platforms"].keys()
