"""README.md of every component, from its metadata.yaml and its component.py.

`python -m embedline.orchestration.component_docs` writes them; `--check` says which are stale.
"""

from __future__ import annotations

import ast
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from embedline.training.engine.curves import NOTE as CURVES_NOTE
from embedline.training.engine.curves import of_training

# The kind of training that a component is, where it is one.
TRAININGS = {
    "pretrain": "pretrain",
    "train_unsupervised": "contrastive",
    "train_supervised": "contrastive",
    "prune": "heal",
}
# The components that are no steps.
WORK = {"preflight": "planning/preflight.py", "finish": "runs/finish.py"}
NOTE = "<!-- Written by `python -m embedline.orchestration.component_docs` from the files beside it. -->"


def components_folder() -> Path:
    return Path(str(resources.files("embedline.components")))


def readme(folder: Path) -> str:
    """The README.md of the component in `folder`.

    Raises:
        ValueError: metadata.yaml and component.py do not name the same inputs and outputs.
    """
    about: dict[str, Any] = yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))
    function = _function(folder / "component.py")
    named = {arg.arg for arg in (*function.args.args, *function.args.kwonlyargs)} | _returned(function)
    described = set(about["inputs"]) | set(about["outputs"])
    if named != described:
        raise ValueError(
            f"{folder.name}: component.py and metadata.yaml differ in {sorted(named ^ described)}"
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
        *(_curves(TRAININGS[folder.name]) if folder.name in TRAININGS else []),
        f"The work is done in `src/embedline/{WORK.get(folder.name, f'steps/{folder.name}.py')}`.",
    ]
    return "\n\n".join(parts) + "\n"


def stale(write: bool = False) -> list[str]:
    """Components whose README.md is not what it should be (and, with `write`, was not)."""
    found = []
    for metadata in sorted(components_folder().glob("*/metadata.yaml")):
        path, text = metadata.with_name("README.md"), readme(metadata.parent)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            found.append(metadata.parent.name)
            if write:
                path.write_text(text, encoding="utf-8")
    return found


def _function(path: Path) -> ast.FunctionDef:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef))


def _returned(function: ast.FunctionDef) -> set[str]:
    """Names of a NamedTuple return annotation."""
    if not isinstance(function.returns, ast.Call):
        return set()
    return {name for name, _ in ast.literal_eval(_names_only(function.returns.args[1]))}


def _names_only(fields: ast.expr) -> ast.expr:
    assert isinstance(fields, ast.List)
    pairs = [field.elts[0] for field in fields.elts if isinstance(field, ast.Tuple)]
    return ast.List([ast.Tuple([name, ast.Constant("")], ast.Load()) for name in pairs], ast.Load())


def _curves(kind: str) -> list[str]:
    rows = [f"| `{name}` | {about} |" for name, about in of_training(kind).items()]
    table = "\n".join(["| curve | what it is |", "|---|---|", *rows])
    said = "In MLflow, in the nested run of this step, and in `curves`, over optimizer steps. "
    return ["## Curves", said + CURVES_NOTE, table]


def _table(entries: dict[str, dict[str, str]]) -> str:
    rows = [f"| `{name}` | {entry['type']} | {entry['description']} |" for name, entry in entries.items()]
    return "\n".join(["| name | type | what it is |", "|---|---|---|", *rows])


def main(arguments: list[str]) -> int:
    check = "--check" in arguments
    found = stale(write=not check)
    for name in found:
        print(f"{'stale' if check else 'wrote'}: components/{name}/README.md")  # noqa: T201
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
