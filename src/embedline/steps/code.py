"""The code version of a step: a digest over every module of the package that it can reach."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from importlib import resources
from pathlib import Path

# What every step stands on; a change here changes how steps are called, not what they compute.
_HOUSE = ("config", "artifacts", "errors", "steps.base", "steps.catalogue", "steps.code", "steps.execute")


def code_version(step: str) -> str:
    """SHA-256 over the sources that `embedline.steps.<step>` imports, directly or not."""
    return sources_digest(f"steps.{step}")


@cache
def sources_digest(module: str) -> str:
    """SHA-256 over the sources that `embedline.<module>` imports, directly or not."""
    package = Path(str(resources.files("embedline")))
    reached: set[Path] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _source(package, name)
        if path is None or path in reached or any(name == h or name.startswith(f"{h}.") for h in _HOUSE):
            continue
        reached.add(path)
        waiting.extend(_imports(path))
    digest = hashlib.sha256()
    for path in sorted(reached):
        digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _source(package: Path, name: str) -> Path | None:
    base = package.joinpath(*name.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


def _imports(path: Path) -> list[str]:
    """Modules of the package imported anywhere in a file, late imports inside functions too."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name.removeprefix("embedline.") for name in names if name.startswith("embedline.")]
