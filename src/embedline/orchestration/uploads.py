"""What a run needs on the pipelines server: an experiment, a pipeline, a version. Found, or made once."""

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
from embedline.orchestration.server import every, once_more

EXPERIMENT = "embedline"


def find_experiment(client: Any, name: str, namespace: str | None) -> Any:
    """The experiment called `name`; the default one, when no name is given, is made when it is new.

    Raises:
        InputError: there is none of that name.
    """
    wanted = name or EXPERIMENT

    def found() -> Any:
        listed = every(client.list_experiments, "experiments", wanted, namespace=namespace)
        return next(listed, None)

    if name and found() is None:
        listed = every(client.list_experiments, "experiments", namespace=namespace)
        names = [each.display_name for each in listed]
        raise InputError(
            f"there is no experiment {name!r}.",
            where="--experiment",
            fix=f"Known: {', '.join(sorted(names)[:20]) or 'none'}; without --experiment it is {EXPERIMENT}.",
        )
    models = client.api_models
    body = models.V2beta1Experiment(display_name=wanted, namespace=namespace)
    api = client.experiments
    return _found_or_made(found, lambda: api.experiment_service_create_experiment(experiment=body))


def find_version(client: Any, title: str, text: str, pipeline: str, namespace: str | None) -> Any:
    """The version with this content, named after the config's name, release and content: uploaded once."""
    models, api = client.api_models, client.pipelines

    def found_pipeline() -> Any:
        return next(every(client.list_pipelines, "pipelines", pipeline, namespace=namespace), None)

    body = models.V2beta1Pipeline(name=pipeline, display_name=pipeline, namespace=namespace)
    parent = _found_or_made(found_pipeline, lambda: api.pipeline_service_create_pipeline(pipeline=body))
    name = f"{slug(title)}-{__version__}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def found() -> Any:
        ours = {"pipeline_id": parent.pipeline_id}
        return next(every(client.list_pipeline_versions, "pipeline_versions", name, **ours), None)

    def upload() -> Any:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            file = Path(folder) / "pipeline.yaml"
            file.write_text(text, encoding="utf-8")
            about = f"{title}, by embedline {__version__}"
            return client.upload_pipeline_version(str(file), name, parent.pipeline_id, description=about)

    return _found_or_made(found, upload)


def _found_or_made(found: Callable[[], Any], make: Callable[[], Any]) -> Any:
    """Somebody else may make it at the same moment."""
    from kfp_server_api import ApiException

    known = found()
    if known is not None:
        return known
    try:
        return once_more(make, found)
    except ApiException as error:
        known = found() if error.status == 409 else None
        if known is None:
            raise
        return known


def slug(name: str) -> str:
    """A config's name in letters, digits and dashes: the server's names are DNS labels."""
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")[:40]
