"""The image that every component runs in; the one place that names it, from infra/images/images.lock.yaml."""

import os
from importlib import resources
from typing import Any

import yaml


def reference(lock: dict[str, Any], target: str) -> str:
    """Return the image of `target` (cpu, gpu): by digest once it is published, before that by its tag."""
    if digest := lock["digests"].get(target):
        return f"{lock['repository']}@{digest}"
    return tagged(lock, target)


def tagged(lock: dict[str, Any], target: str) -> str:
    """Return the image of `target` by a tag that changes with the code: the engine's cache needs this."""
    return f"{lock['repository']}:{lock['tag']}" + ("" if target == "cpu" else f"-{target}")


_LOCK = yaml.safe_load((resources.files("embedline.images") / "images.lock.yaml").read_text(encoding="utf-8"))
# A mirror, or an image built here, may replace the one in the lock file; preflight compares the code.
IMAGE = os.environ.get("EMBEDLINE_STEP_IMAGE") or reference(_LOCK, "cpu")
GPU_IMAGE = reference(_LOCK, "gpu")
CODE: str = _LOCK["code"]
RECIPE: str = _LOCK["recipe"]  # what the image is made of beside the code: the libraries
