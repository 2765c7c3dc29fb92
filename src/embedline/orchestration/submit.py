"""Hand the compiled pipeline to a Kubeflow Pipelines server."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from embedline import __version__
from embedline.errors import InputError
from embedline.orchestration.compile import compile_pipeline

_TIMEOUT_S = 10


def submit_run(
    preset: str,
    overrides: Sequence[str],
    workspace: str,
    *,
    host: str,
    experiment: str = "embedline",
    namespace: str | None = None,
) -> dict[str, str]:
    """Start a run of the compiled pipeline; engine caching stays off, as in the pipeline itself.

    Raises:
        InputError: the server does not answer, or refuses.
    """
    with _client(host, namespace) as client, _package(preset, overrides, workspace) as file:
        made = client.create_run_from_pipeline_package(
            str(file),
            arguments={},
            run_name=f"{Path(preset).stem}-{__version__}",
            experiment_name=experiment,
            namespace=namespace,
            enable_caching=False,
        )
        return {"what": "run", "id": made.run_id, "url": f"{host.rstrip('/')}/#/runs/details/{made.run_id}"}


def upload_version(
    preset: str,
    overrides: Sequence[str],
    workspace: str,
    *,
    host: str,
    pipeline: str,
    namespace: str | None = None,
) -> dict[str, str]:
    """Upload the compiled pipeline as a new version of `pipeline`, which is created when it is new.

    Raises:
        InputError: the server does not answer, or refuses.
    """
    with _client(host, namespace) as client, _package(preset, overrides, workspace) as file:
        if client.get_pipeline_id(pipeline) is None:
            made = client.upload_pipeline(str(file), pipeline_name=pipeline, namespace=namespace)
            key = made.pipeline_id
        else:
            version = f"{Path(preset).stem}-{__version__}"
            made = client.upload_pipeline_version(str(file), version, pipeline_name=pipeline)
            key = made.pipeline_version_id
        return {"what": "pipeline", "id": key, "url": f"{host.rstrip('/')}/#/pipelines"}


@contextlib.contextmanager
def _package(preset: str, overrides: Sequence[str], workspace: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline.yaml"
        file.write_text(compile_pipeline(preset, overrides, workspace), encoding="utf-8")
        yield file


@contextlib.contextmanager
def _client(host: str, namespace: str | None) -> Iterator[Any]:
    """A client of a server that answers; whatever it or the wire refuses is one clear error."""
    fix = "Check --host (http://ADDRESS:PORT), the port forwarding and your credentials."
    _knock(host, fix)
    from kfp import Client
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield Client(host=host, namespace=namespace or "kubeflow")
    except ApiException as error:
        raise InputError(
            f"the server refused ({error.status} {error.reason}).", where=host, fix=fix
        ) from error
    except (HTTPError, OSError, ValueError) as error:
        raise InputError(f"the server does not answer ({_short(error)}).", where=host, fix=fix) from error


def _knock(host: str, fix: str) -> None:
    """kfp's own client retries for minutes; whether anybody listens is known at once."""
    address = urlparse(host if "//" in host else f"http://{host}")
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise InputError(f"the server does not answer ({_short(error)}).", where=host, fix=fix) from error


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
