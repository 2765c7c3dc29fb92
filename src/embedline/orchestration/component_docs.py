"""README.md of every component, generated from its metadata.yaml and its component.py.

`python -m embedline.orchestration.component_docs` writes the files; `--check` lists the stale ones.
"""

from __future__ import annotations

import ast
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import typer
import yaml

from embedline.dag import STEPS
from embedline.markdown import table
from embedline.training.engine.curves import NOTE as CURVES_NOTE
from embedline.training.engine.curves import of_training

# Training curves of each component that trains, by their kind in `curves.of_training`.
CURVES = {
    **{step.module: "contrastive" for step in STEPS.values() if step.trains},
    "pretrain": "pretrain",
    "prune": "heal",
}
# Modules of the components that are not steps.
MODULES = {"preflight": "planning/preflight.py", "finish": "runs/finish.py"}
NOTE = "<!-- Written by `python -m embedline.orchestration.component_docs` from the files beside it. -->"


def components_folder() -> Path:
    """Return the folder that holds the components' folders."""
    return Path(str(resources.files("embedline.components")))


def readme(folder: Path) -> str:
    """Return the text of README.md of the component in `folder`.

    Raises:
        ValueError: metadata.yaml and component.py do not name the same inputs and outputs.
    """
    about: dict[str, Any] = yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))
    function = _function(folder / "component.py")
    arguments = {arg.arg for arg in (*function.args.args, *function.args.kwonlyargs)} | _returned(function)
    described = set(about["inputs"]) | set(about["outputs"])
    if arguments != described:
        raise ValueError(
            f"{folder.name}: component.py and metadata.yaml differ in {sorted(arguments ^ described)}"
        )
    parts = [
        f"# {about['name']}",
        NOTE,
        about["description"],
        f"Stability: {about['stability']}.",
        "## Inputs",
        _table(about["inputs"]),
        "## Outputs",
        _table(about["outputs"]) if about["outputs"] else "None.",
        *(_curves(CURVES[folder.name]) if folder.name in CURVES else []),
        f"The work is done in `src/embedline/{MODULES.get(folder.name, f'steps/{folder.name}.py')}`.",
    ]
    return "\n\n".join(parts) + "\n"


def stale(write: bool = False) -> list[str]:
    """Return the components whose README.md is stale; with `write`, write it anew."""
    names = []
    for metadata in sorted(components_folder().glob("*/metadata.yaml")):
        path, text = metadata.with_name("README.md"), readme(metadata.parent)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            names.append(metadata.parent.name)
            if write:
                path.write_text(text, encoding="utf-8")
    return names


def _function(path: Path) -> ast.FunctionDef:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef))


def _returned(function: ast.FunctionDef) -> set[str]:
    """Return the field names of a NamedTuple return annotation."""
    if not isinstance(function.returns, ast.Call):
        return set()
    return {name for name, _ in ast.literal_eval(_names_only(function.returns.args[1]))}


def _names_only(fields: ast.expr) -> ast.expr:
    assert isinstance(fields, ast.List)
    pairs = [field.elts[0] for field in fields.elts if isinstance(field, ast.Tuple)]
    return ast.List([ast.Tuple([name, ast.Constant("")], ast.Load()) for name in pairs], ast.Load())


def _curves(kind: str) -> list[str]:
    rows = [(f"`{name}`", about) for name, about in of_training(kind).items()]
    text = "In MLflow, in the nested run of this step, and in `curves`, over optimizer steps. "
    return ["## Curves", text + CURVES_NOTE, table(["curve", "what it is"], rows, escape=False)]


def _table(entries: dict[str, dict[str, str]]) -> str:
    rows = [(f"`{name}`", entry["type"], entry["description"]) for name, entry in entries.items()]
    return table(["name", "type", "what it is"], rows, escape=False)


def main(arguments: list[str]) -> int:
    """Write the stale files, or with `--check` list them and return 1."""
    check = "--check" in arguments
    names = stale(write=not check)
    for name in names:
        typer.echo(f"{'stale' if check else 'wrote'}: components/{name}/README.md")
    return 1 if check and names else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
