"""The compiled pipeline, its components, and that plan and DAG agree."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from embedline.components.image import reference
from embedline.config.load import read_overrides
from embedline.dag import STEPS
from embedline.orchestration.compile import compile_pipeline, one_line
from embedline.orchestration.component_docs import components_folder, stale
from embedline.orchestration.image_lock import lock_path
from embedline.planning.pipeline_inputs import KEYS

ROOT = Path(__file__).parents[2]
COMPONENTS = sorted(path.parent.name for path in components_folder().glob("*/component.py"))


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    value, _ = yaml.safe_load_all(compile_pipeline("demo"))
    return dict(value)


@pytest.fixture(scope="module")
def tasks(spec: dict[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    return value


def test_the_committed_pipeline_is_what_the_dag_compiles_to() -> None:
    golden = (ROOT / "pipelines" / "retrain" / "pipeline.yaml").read_text(encoding="utf-8")
    assert compile_pipeline("demo") == golden, (
        "run: embedline compile demo --output pipelines/retrain/pipeline.yaml"
    )


def test_preset_becomes_the_default_input() -> None:
    text = compile_pipeline("ru-docs", ["seed=1", "gate.mode=dry_run"], "/mnt/work")
    spec, _ = yaml.safe_load_all(text)
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    assert inputs["preset"]["defaultValue"] == "ru-docs"
    assert read_overrides(inputs["overrides"]["defaultValue"]) == ["seed=1", "gate.mode=dry_run"]
    assert inputs["workspace"]["defaultValue"] == "/mnt/work"


_ODD = st.text("a=b.:{}[]\"'#\\ \t\n\r\x0b\u2028\x85я$`;-", max_size=12)


@hypothesis.given(
    st.lists(_ODD.filter(lambda text: text.strip() == text != "" and not text.startswith("#")), max_size=3)
)
@hypothesis.example(["description='a b'; $(rm -rf /) `x` \"y\""])
@hypothesis.example(['description="line\none"'])
@hypothesis.example(["#description=x"])
@hypothesis.example(["[1]=x"])
def test_overrides_reach_preflight_unchanged(overrides: list[str]) -> None:
    """With any characters: the pipeline's input is one line, which kfp writes into a comment."""
    assert "\n" not in one_line(overrides)
    assert read_overrides(one_line(overrides)) == overrides


def test_command_arguments_reach_the_driver_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedline.orchestration import local

    commands: list[list[str]] = []

    class Driver:
        pid, returncode = 1 << 30, 0

        def __init__(self, command: list[str], **_: Any) -> None:
            commands.append(command)

        def poll(self) -> int:
            return 0

        def wait(self) -> int:
            return 0

    monkeypatch.setattr(local.subprocess, "Popen", Driver)
    (tmp_path / "r").mkdir()
    asked = ['description="two\nlines"', "seed=1"]
    local.run_here("demo", asked, tmp_path, "r", lambda *_: None)
    assert read_overrides(commands[0][4]) == asked


def test_inputs_of_the_ui_have_descriptions_and_defaults(spec: dict[str, Any]) -> None:
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    assert set(inputs) == {"preset", "overrides", "workspace", "run_name", *KEYS}
    kinds = {"seed": "NUMBER_INTEGER"} | {name: "NUMBER_INTEGER" for name in KEYS if name.endswith("_steps")}
    assert all(entry["parameterType"] == kinds.get(name, "STRING") for name, entry in inputs.items())
    assert all(entry["description"] and "defaultValue" in entry for entry in inputs.values())
    for name, component in spec["components"].items():
        if name != "comp-exit-handler-1":
            for side in ("inputDefinitions", "outputDefinitions"):
                for group in component.get(side, {}).values():
                    assert all(entry.get("description") for entry in group.values()), name


def test_exit_handler_contains_every_step(spec: dict[str, Any], tasks: dict[str, Any]) -> None:
    finish = spec["root"]["dag"]["tasks"]["finish"]
    assert finish["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert finish["inputs"]["parameters"]["status"]["taskFinalStatus"]["producerTask"] == "exit-handler-1"
    assert len(tasks) == len(STEPS) + 1


def test_the_engine_neither_caches_nor_branches(tasks: dict[str, Any]) -> None:
    assert all(not task["cachingOptions"].get("enableCache") for task in tasks.values())
    assert not any("condition" in task.get("triggerPolicy", {}) for task in tasks.values())


def test_long_steps_are_retried_and_ask_for_resources(spec: dict[str, Any], tasks: dict[str, Any]) -> None:
    for name in (
        "pretrain",
        "train-unsupervised",
        "train-supervised",
        "prune",
        "prune-2",
        "evaluate",
        "mine",
    ):
        assert tasks[name]["retryPolicy"]["maxRetryCount"] == 2
        executor = spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"]
        assert executor["resources"]["resourceMemoryRequest"] == "4G"
    assert "retryPolicy" not in tasks["preflight"]
    assert "retryPolicy" not in tasks["gate"]


def test_every_step_runs_in_the_locked_image_and_installs_nothing(spec: dict[str, Any]) -> None:
    lock = yaml.safe_load(lock_path().read_text(encoding="utf-8"))
    executors = spec["deploymentSpec"]["executors"]
    for executor in executors.values():
        assert executor["container"]["image"] == reference(lock, "cpu")
        assert "pip install" not in " ".join(executor["container"]["command"])
    told = executors["exec-preflight"]["container"]["env"]
    assert {"name": "EMBEDLINE_COMPILED_FOR", "value": lock["code"]} in told


def test_the_plan_has_the_same_wiring_as_the_dag(tasks: dict[str, Any]) -> None:
    task_of = {"prune_before": "prune", "prune_after": "prune-2"}
    step_of = {task_of.get(name, name.replace("_", "-")): name for name in STEPS}
    for name, step in STEPS.items():
        task = tasks[task_of.get(name, name.replace("_", "-"))]
        wired = {}
        for given, source in task["inputs"].get("artifacts", {}).items():
            made = source["taskOutputArtifact"]
            wired[given] = step_of[made["producerTask"]], made["outputArtifactKey"]
        expected = {}
        for given, source in step.inputs.items():
            producer, _, output = source.partition(".")
            expected[given] = producer, _component_outputs(producer)[output]
        assert wired == expected, name


def _component_outputs(step: str) -> dict[str, str]:
    """The step's outputs → the component's, from `outputs={...}` in its body."""
    tree = ast.parse((components_folder() / STEPS[step].module / "component.py").read_text(encoding="utf-8"))
    [given] = [
        keyword.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "outputs"
    ]
    assert isinstance(given, ast.Dict)
    return {ast.literal_eval(key): value.id for key, value in zip(given.keys, given.values, strict=True)}


def test_readmes_and_metadata_are_fresh() -> None:
    assert stale() == [], "run: python -m embedline.orchestration.component_docs"


def _artefact(path: Path) -> SimpleNamespace:
    return SimpleNamespace(path=str(path), metadata={})


@pytest.mark.parametrize("step", sorted(STEPS))
def test_a_components_body_calls_its_step_with_every_input_and_output(
    step: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import importlib
    import inspect

    called: dict[str, Any] = {}

    def fake(name: str, config_json: str, workspace: str, run: str, **rest: Any) -> None:
        called.update(name=name, config=config_json, workspace=workspace, run=run, **rest)

    monkeypatch.setattr("embedline.execution.kfp_component.run_component", fake)
    monkeypatch.setattr("embedline.orchestration.train_job.run_component", fake)  # the training steps
    folder = "prune" if step.startswith("prune") else step
    module = importlib.import_module(f"embedline.components.{folder}.component")
    body = getattr(module, folder).python_func
    given: dict[str, Any] = {"config_json": "{}", "workspace": "w", "run": "r"}
    for name in inspect.signature(body).parameters:
        if name not in given:
            given[name] = _artefact(tmp_path / name)
    if folder == "prune":
        given["step"] = step
    if step == "prune_before":
        given["model"] = None
    body(**given)
    assert (called["name"], called["config"], called["workspace"], called["run"]) == (step, "{}", "w", "r")
    assert set(called["inputs"]) == set(STEPS[step].inputs)
    assert set(called["outputs"]) == set(STEPS[step].outputs)
    for name, artefact in called["inputs"].items():
        assert artefact is given[name], "an input goes in under its own name"
    assert (called["metrics"], called["summary"]) == (given["metrics"], given["summary"])
    assert called.get("page") is given.get("page")
    assert called.get("curves") is given.get("curves")


def test_preflight_returns_a_step_config_for_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from embedline.components.preflight.component import preflight

    made = ("r", *(json.dumps(name) for name in STEPS))
    called: list[Any] = []
    monkeypatch.setattr(
        "embedline.planning.preflight_component.run_preflight", lambda *given: called.extend(given) or made
    )
    inputs = {name: f"given {name}" for name in KEYS}
    returned = preflight.python_func("p", "o", "w", "r", "job", summary=None, **inputs)
    assert called == ["p", "o", "w", "r", "job", None, inputs]
    names = list(preflight.component_spec.outputs)
    values = dict(zip([name for name in names if name != "summary"], returned, strict=True))
    assert values == {"run": "r", **{name: json.dumps(name) for name in STEPS}}


def test_finish_passes_the_final_status_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from embedline.components.finish.component import finish

    seen: list[Any] = []
    monkeypatch.setattr("embedline.runs.finish.run_finish", lambda *args: seen.extend(args))
    finish.python_func(
        "p", "w", "", "job", SimpleNamespace(state="FAILED", error_message="Task mine failed.")
    )
    assert seen == ["w", "", "job", "p", "FAILED", "Task mine failed."]


def test_components_are_plain_enough_for_a_lightweight_body() -> None:
    for name in COMPONENTS:
        text = (components_folder() / name / "component.py").read_text(encoding="utf-8")
        assert "from __future__ import annotations" not in text
        assert "install_kfp_package=False" in text
