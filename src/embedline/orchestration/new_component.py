"""The component folder of a step that dag.py declares: component.py, metadata.yaml, README.md.

`python -m embedline.orchestration.new_component NAME` (`make component NAME=x`). An existing folder is not
overwritten. The descriptions of the step and of its own inputs and outputs are placeholders to replace.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import yaml
from jinja2 import Environment, StrictUndefined

from embedline.dag import STEPS, Step
from embedline.errors import EmbedlineError, InputError
from embedline.orchestration.component_docs import components_folder, readme

_TYPES = {"model": "Model", "onnx": "Model", "dataset": "Dataset", "triplets": "Dataset"}
_COMMON = {
    "config_json": "settings and pins of this step as JSON, or their file, made by preflight",
    "workspace": "folder shared by all steps: runs, store and checkpoints",
    "run": "name of the run and of its folder in the workspace",
    "metrics": "metrics of this step",
    "summary": "result of this step as Markdown, for the pipelines UI",
    "curves": "training curves as HTML, for the pipelines UI",
}


@dataclass(frozen=True)
class Port:
    """An input or output of the component; `of`: the step's output that it is, where it is one."""

    name: str
    type: str
    description: str
    of: str = ""

    @property
    def entry(self) -> dict[str, str]:
        """Entry of the component in metadata.yaml."""
        return {"type": self.type, "description": self.description[0].lower() + self.description[1:]}


def write_component(step: Step, folder: Path) -> None:
    """Write the component of `step` into a new folder.

    Raises:
        InputError: the folder exists.
    """
    if folder.exists():
        raise InputError("exists already.", where=str(folder), fix="Remove it, or edit its files.")
    inputs = [
        Port(name, _type(kind), _sentence(f"{kind} artefact")) for name, kind in step.input_kinds.items()
    ]
    outputs = [
        Port(f"new_{name}" if name in step.inputs else name, _type(kind), _sentence(f"{kind} artefact"), name)
        for name, kind in step.outputs.items()
    ]
    extra = {"metrics": "Metrics", "summary": "Markdown", **({"curves": "HTML"} if step.trains else {})}
    outputs += [Port(name, kind, _sentence(_COMMON[name])) for name, kind in extra.items()]
    description = f"Run the step {step.name}."
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "component.py").write_text(_component(step, description, inputs, outputs), encoding="utf-8")
    about = {
        "name": step.name,
        "description": description,
        "stability": "beta",
        "inputs": {
            **{
                name: {"type": "String", "description": _COMMON[name]}
                for name in ("config_json", "workspace", "run")
            },
            **{port.name: port.entry for port in inputs},
        },
        "outputs": {port.name: port.entry for port in outputs},
    }
    text = yaml.safe_dump(about, sort_keys=False, allow_unicode=True, width=120)
    (folder / "metadata.yaml").write_text(text, encoding="utf-8")
    (folder / "README.md").write_text(readme(folder), encoding="utf-8")


def _component(step: Step, description: str, inputs: list[Port], outputs: list[Port]) -> str:
    template = (
        resources.files("embedline.orchestration").joinpath("component.py.j2").read_text(encoding="utf-8")
    )
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    training = ("embedline.orchestration.train_job", "run_training")
    module, function = training if step.trains else ("embedline.execution.kfp_component", "run_component")
    return environment.from_string(template).render(
        name=step.name,
        description=description,
        types=sorted({"Input", "Output", *(port.type for port in (*inputs, *outputs))}),
        inputs=inputs,
        outputs=outputs,
        common={name: _sentence(text) for name, text in _COMMON.items()},
        module=module,
        function=function,
        trains=step.trains,
    )


def _type(kind: str) -> str:
    return _TYPES.get(kind, "Artifact")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def main(arguments: list[str]) -> int:
    """Write one component; return the exit code."""
    try:
        if len(arguments) != 1 or arguments[0] not in STEPS:
            raise InputError(f"name one step of dag.py: {', '.join(STEPS)}.", where="make component NAME=…")
        folder = components_folder() / arguments[0]
        write_component(STEPS[arguments[0]], folder)
    except EmbedlineError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.write(f"wrote {folder}: describe it, then add its line to pipelines/retrain/pipeline.py\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
