"""Lock of the components' image: infra/images/images.lock.yaml holds its name and the digest of its code.

`python -m embedline.orchestration.image_lock` updates the file (`make lock` compiles the pipeline too);
`--check` reports whether it is up to date; `--show cpu|gpu|code|tag` prints a part;
`--published TARGET=REPOSITORY@DIGEST` records the digest that a registry returned after a push.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import typer
import yaml

from embedline import __version__
from embedline.artifacts.code_version import package_digest
from embedline.components.image import reference, tagged
from embedline.errors import EmbedlineError, InputError

TARGETS = {"cpu": ("pipelines", "cpu", "s3"), "gpu": ("pipelines", "gpu", "s3")}
_HEAD = """\
# What the components' image is called, and the code that it carries. Written by `make lock`, also after a
# merge; `make golden` refuses one that is older than the code. `repository` is yours to change.
"""


def lock_path() -> Path:
    """Return the path of the lock."""
    return Path(str(resources.files("embedline.images"))) / "images.lock.yaml"


def read_lock() -> dict[str, Any]:
    """Read the lock."""
    lock: dict[str, Any] = yaml.safe_load(lock_path().read_text(encoding="utf-8"))
    return lock


def current() -> dict[str, Any]:
    """Return the lock for the checkout's code; digests of a published image are kept for unchanged code.

    Raises:
        InputError: this is an installed package, not a checkout.
    """
    old, code, recipe = read_lock(), package_digest(), recipe_digest(_checkout())
    tag = f"{__version__}-{hashlib.sha256(f'{code} {recipe}'.encode()).hexdigest()[:12]}"
    digests = old["digests"] if old["tag"] == tag else {}
    return {"repository": old["repository"], "code": code, "recipe": recipe, "tag": tag, "digests": digests}


def recipe_digest(root: Path) -> str:
    """Return the SHA-256 of an image's parts besides the code: Containerfile, its scripts, dependencies."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = sorted({extra for extras in TARGETS.values() for extra in extras})
    required = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    digest = hashlib.sha256(json.dumps(required).encode())
    used = ("Containerfile", "gpu.txt", "install.sh", "requirements.py", "tools.txt", "trim.sh")
    for path in (root / "constraints.txt", *(root / "infra" / "images" / name for name in used)):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def stale() -> bool:
    """Return whether the lock is older than the code, or not as this module writes it (after a merge)."""
    return lock_path().read_text(encoding="utf-8") != _text(current())


def refresh() -> bool:
    """Update the lock; return whether it was stale."""
    changed = stale()
    if changed:
        lock_path().write_text(_text(current()), encoding="utf-8")
    return changed


def publish(published: str) -> None:
    """Record `cpu=REPOSITORY@sha256:…` after a push; from then on components refer to this digest.

    Raises:
        InputError: it has another form, or the pushed image holds other code.
    """
    match = re.fullmatch(r"(cpu|gpu)=(\S+)@(sha256:[0-9a-f]{64})", published)
    if match is None:
        raise InputError(
            f"{published!r} is not TARGET=REPOSITORY@sha256:DIGEST.",
            where="--published",
            fix="Copy the digest that `docker push` printed.",
        )
    target, repository, digest = match.groups()
    lock = current()
    if stale():
        raise InputError("is older than the code.", where=str(lock_path()), fix="Run `make lock` first.")
    if lock["digests"] and lock["repository"] != repository:
        lock["digests"] = {}
    lock |= {"repository": repository, "digests": {**lock["digests"], target: digest}}
    lock_path().write_text(_text(lock), encoding="utf-8")


def _part(lock: dict[str, Any], name: str) -> str:
    if name == "tag":
        return str(tagged(lock, "cpu"))
    return str(lock["code"] if name == "code" else reference(lock, name))


def _text(lock: dict[str, Any]) -> str:
    return _HEAD + yaml.safe_dump(lock, sort_keys=False, width=200)


def _checkout() -> Path:
    root = Path(str(resources.files("embedline.images"))).parents[1]
    if not (root / "constraints.txt").is_file():
        raise InputError(
            "the lock belongs to a checkout, and this is an installed package.",
            where=str(lock_path()),
            fix="Run this in a checkout.",
        )
    return root


def main(arguments: list[str]) -> int:
    """Update, check or print the lock; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m embedline.orchestration.image_lock", description=__doc__)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--check", action="store_true", help="exit 1 when the lock is older than the code")
    group.add_argument("--show", choices=[*TARGETS, "code", "tag"])
    group.add_argument("--published", metavar="TARGET=REPOSITORY@DIGEST")
    options = parser.parse_args(arguments)
    try:
        if options.show:
            typer.echo(_part(read_lock(), options.show))
        elif options.published:
            publish(options.published)
        elif options.check:
            if stale():
                typer.echo(f"{lock_path()} is older than the code. Run: make lock", err=True)
                return 1
        elif refresh():
            typer.echo(f"wrote {lock_path()}")
    except EmbedlineError as error:
        typer.echo(f"error: {error}", err=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
