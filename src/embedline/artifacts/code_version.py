"""The code version of a step and of the whole package: digests over sources."""

from __future__ import annotations

import ast
import hashlib
import os
from functools import cache
from importlib import resources
from pathlib import Path

from embedline.errors import InputError

# Shared by all steps; a change here changes how steps are called, not what they compute.
_SHARED = ("config", "artifacts", "errors", "dag", "markdown", "steps.context")
# At the top of a checkout, and inside the package of a wheel.
_PARTS = ("embedline", "embedline.components", "embedline.pipelines")
_OUTSIDE_SRC = ("components", "pipelines", "images")
_SHIPPED = {".py", ".yaml", ".j2", ".html", ".css"}
_COMPILED = "pipelines/retrain/pipeline.yaml"  # names the image: it follows from the code
IMAGE = "EMBEDLINE_IMAGE"
COMPILED_FOR = "EMBEDLINE_COMPILED_FOR"


@cache
def package_digest() -> str:
    """Return the SHA-256 over all shipped files, equal in a checkout, in a wheel and in an image."""
    digest = hashlib.sha256()
    for name, path in sorted(_shipped().items()):
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def check_image() -> None:
    """Refuse an image whose code is not the code that the pipeline was compiled from.

    EMBEDLINE_IMAGE is set in an image, EMBEDLINE_COMPILED_FOR by the compiled pipeline. Where either is
    missing (a laptop: code and pipeline are one checkout), nothing is compared.

    Raises:
        InputError: they differ.
    """
    image, expected = os.environ.get(IMAGE), os.environ.get(COMPILED_FOR)
    if image and expected and package_digest() != expected:
        raise InputError(
            f"the image carries code {package_digest()[:12]}, the pipeline was compiled for {expected[:12]}.",
            where=f"image {image}",
            fix="Build and push the image of that code, or compile the pipeline again from this one.",
        )


def _shipped() -> dict[str, Path]:
    """Map names as in a wheel to files, without documentation and without the compiled pipeline."""
    found: dict[str, Path] = {}
    for part in _PARTS:
        root = Path(str(resources.files(part)))
        prefix = part.replace(".", "/").removeprefix("embedline").removeprefix("/")
        for path in root.rglob("*"):
            inside = path.relative_to(root)
            if path.suffix not in _SHIPPED or (not prefix and inside.parts[0] in _OUTSIDE_SRC):
                continue
            found[(Path(prefix) / inside).as_posix()] = path
    found.pop(_COMPILED, None)
    return found


def code_version(step: str) -> str:
    """Return the SHA-256 over the sources that `embedline.steps.<step>` imports, directly or not."""
    return sources_digest(f"steps.{step}")


@cache
def sources_digest(module: str) -> str:
    """Return the SHA-256 over the sources that `embedline.<module>` imports, directly or not."""
    package = Path(str(resources.files("embedline")))
    reached: set[Path] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _source(package, name)
        if path is None or path in reached or any(name == h or name.startswith(f"{h}.") for h in _SHARED):
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
    """List the package's modules that a file imports, also inside functions."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name.removeprefix("embedline.") for name in names if name.startswith("embedline.")]
