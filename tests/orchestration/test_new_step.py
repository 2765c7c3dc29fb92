"""A step added to dag.py appears in everything that is derived from it."""

from __future__ import annotations

import json
import subprocess
import sys

# The new step trains between mining and stage three; the rest of the line is as it is.
SCRIPT = """
import json
from dataclasses import replace
from embedline import dag

new = dag.Step(
    "distil",
    {"seed": (), "model": ("pooling",), "supervised": ()},
    inputs={"model": "train_unsupervised.model", "dataset": "clean.dataset"},
    outputs={"model": "model"},
    kind="trains",
    switch="supervised",
)
steps = {}
for name, step in dag.STEPS.items():
    steps[name] = step
    if name == "mine":
        steps["distil"] = new
evaluate = steps["evaluate"]
steps["evaluate"] = replace(evaluate, inputs={**evaluate.inputs, "distilled": "distil.model"})
steps["train_supervised"] = replace(
    steps["train_supervised"], inputs={"model": "distil.model", "triplets": "mine.triplets"}
)
dag.STEPS.clear()
dag.STEPS.update(steps)

from pathlib import Path
import tempfile
from embedline.artifacts.workspace import Workspace
from embedline.config.cluster import GROUPS, TASKS
from embedline.config.load import load_config
from embedline.evaluation.compare import all_columns, stage_inputs
from embedline.execution.torchrun import trains
from embedline.orchestration import outcome
from embedline.orchestration.component_docs import CURVES
from embedline.planning.pins import Pinned
from embedline.planning.plan import predict_steps
from embedline.planning.step_configs import make_step_configs

pins = {pin: None for pin in ("sources", "evaluation", "base", "teacher", "champion", "mteb")}
config = load_config("demo", [])
configs = make_step_configs(config, Pinned(pins, {}))
planned = predict_steps(Workspace(Path(tempfile.mkdtemp())), "demo", configs)
print(json.dumps({
    "tasks": list(TASKS),
    "groups": [name for name, tasks in GROUPS.items() if "distil" in tasks],
    "columns": list(all_columns()),
    "stages": stage_inputs(),
    "titles": list(outcome._STAGE_TITLES),
    "curves": list(CURVES),
    "trains": trains("distil", configs["distil"]),
    "config": sorted(json.loads(configs["distil"])["config"]),
    "planned": [step.step for step in planned],
}))
"""


def test_a_step_in_dag_py_appears_in_every_derived_list() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert "distil" in found["tasks"]
    assert set(found["groups"]) >= {"all", "training", "computing"}
    assert found["columns"].index("distil") > found["columns"].index("train_unsupervised")
    assert found["stages"]["distilled"] == "distil"
    assert {"distil"} <= set(found["titles"])
    assert found["trains"] is True
    assert found["config"] == ["model", "seed", "supervised"]
    assert found["planned"].index("distil") == found["planned"].index("mine") + 1
    assert "distil" in found["curves"]
