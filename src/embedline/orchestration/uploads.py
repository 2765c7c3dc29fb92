"""Experiment, pipeline and pipeline version of a run on the pipelines server: each found, or created once."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedline import __version__
from embedline.errors import InputError
from embedline.orchestration.server import list_all, with_retries

EXPERIMENT = "embedline"
_MAX_NAME = 128  # characters of an experiment's or pipeline's name, of the server's columns


def find_or_create_experiment(client: Any, name: str, namespace: str | None) -> Any:
    """Return the experiment `name`; without a name the default one, which is created when it is new.

    Raises:
        InputError: there is no experiment of that name.
    """
    title = name or EXPERIMENT
    _require_short(title, "--experiment")

    def find() -> Any:
        listed = list_all(client.list_experiments, "experiments", title, namespace=namespace)
        return next(listed, None)

    if name and find() is None:
        listed = list_all(client.list_experiments, "experiments", namespace=namespace)
        names = [each.display_name for each in listed]
        raise InputError(
            f"there is no experiment {name!r}.",
            where="--experiment",
            fix=f"Known: {', '.join(sorted(names)[:20]) or 'none'}; without --experiment it is {EXPERIMENT}.",
        )
    models = client.api_models
    body = models.V2beta1Experiment(display_name=title, namespace=namespace)
    api = client.experiments
    return _find_or_create(find, lambda: api.experiment_service_create_experiment(experiment=body))


def find_or_upload_version(client: Any, title: str, text: str, pipeline: str, namespace: str | None) -> Any:
    """Return the version with this content, uploaded once; its name holds config name, release and digest."""
    models, api = client.api_models, client.pipelines
    _require_short(pipeline, "--pipeline")

    def find_pipeline() -> Any:
        return next(list_all(client.list_pipelines, "pipelines", pipeline, namespace=namespace), None)

    body = models.V2beta1Pipeline(name=pipeline, display_name=pipeline, namespace=namespace)
    parent = _find_or_create(find_pipeline, lambda: api.pipeline_service_create_pipeline(pipeline=body))
    name = f"{slug(title)}-{__version__}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def find() -> Any:
        scope = {"pipeline_id": parent.pipeline_id}
        return next(list_all(client.list_pipeline_versions, "pipeline_versions", name, **scope), None)

    def upload() -> Any:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            file = Path(folder) / "pipeline.yaml"
            file.write_text(text, encoding="utf-8")
            about = f"{title}, by embedline {__version__}"
            return client.upload_pipeline_version(str(file), name, parent.pipeline_id, description=about)

    return _find_or_create(find, upload)


def _find_or_create(find: Callable[[], Any], create: Callable[[], Any]) -> Any:
    """Return the result of `find`, else of `create`; another process may create it at the same time."""
    from kfp_server_api import ApiException

    existing = find()
    if existing is not None:
        return existing
    try:
        return with_retries(create, find)
    except ApiException as error:
        existing = find() if error.status == 409 else None
        if existing is None:
            raise
        return existing


def _require_short(name: str, where: str) -> None:
    if len(name) > _MAX_NAME:
        raise InputError(
            f"{name[:50]!r}… has {len(name)} characters; the server takes at most {_MAX_NAME}.", where=where
        )


def slug(name: str) -> str:
    """Return a config's name in letters, digits and dashes, at most 40: the server's names are DNS labels."""
    plain = re.sub(r"[^a-z0-9]+", "-", name).strip("-")
    if len(plain) <= 40:
        return plain
    return f"{plain[:31].strip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
