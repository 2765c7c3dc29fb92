"""A component's docstring, which the pipelines UI shows, and its metadata.yaml have the same descriptions."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from embedline.orchestration.component_docs import components_folder

FOLDERS = sorted(path.parent for path in components_folder().glob("*/metadata.yaml"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.name))
def test_component_docstring_agrees_with_its_metadata(folder: Path) -> None:
    about = yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))
    module = ast.parse((folder / "component.py").read_text(encoding="utf-8"))
    (function,) = (node for node in module.body if isinstance(node, ast.FunctionDef))
    docstring = ast.get_docstring(function) or ""
    assert docstring.splitlines()[0] == about["description"]
    described = dict(re.findall(r"^    (\w+): (.*)\.$", docstring, re.MULTILINE))
    written = {
        name: entry["description"] for side in ("inputs", "outputs") for name, entry in about[side].items()
    }
    assert described == {name: text[0].upper() + text[1:] for name, text in written.items()}
