"""pyproject.toml declares what the code imports, in versions that constraints.txt pins."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {extra: list(map(Requirement, named)) for extra, named in PROJECT["optional-dependencies"].items()}
DECLARED = {"": list(map(Requirement, PROJECT["dependencies"])), **EXTRAS}
PINNED = {
    canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
    for pin in map(Requirement, (ROOT / "constraints.txt").read_text(encoding="utf-8").split())
}


def imported(folder: str) -> Iterator[tuple[str, str]]:
    """Top-level packages that the folder's files import anywhere, each with the file."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                yield name.partition(".")[0], str(path.relative_to(ROOT))


@pytest.mark.parametrize("folder", ["src", "components", "pipelines"])
def test_every_imported_package_is_declared(folder: str) -> None:
    """By the package or by an extra for users; a dependency of a dependency does not count."""
    declared = {
        canonicalize_name(one.name) for extra in DECLARED if extra != "dev" for one in DECLARED[extra]
    }
    distributions = packages_distributions()
    missing = {
        (package, file)
        for package, file in imported(folder)
        if package not in sys.stdlib_module_names
        and package != "embedline"
        and not {canonicalize_name(name) for name in distributions.get(package, [package])} & declared
    }
    assert not missing


@pytest.mark.parametrize("extra", sorted(set(DECLARED) - {"gpu"}))  # the image of gpu has pins of its own
def test_declared_versions_include_the_pinned_ones(extra: str) -> None:
    for requirement in DECLARED[extra]:
        pinned = PINNED[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pinned), f"{requirement}: {pinned} is pinned"
