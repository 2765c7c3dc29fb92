"""Copies of a version from one registry to another (staging to production), with its origin."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from embedline.errors import InputError
from embedline.registry.challenger import update_challenger
from embedline.registry.download import download
from embedline.registry.files import FILES_DIGEST_TAG, remove_added_by_loading
from embedline.registry.promotion import Promotion, promote, require_not_refused
from embedline.registry.server import client, prepare, tracking_errors
from embedline.registry.versions import (
    DIGEST_TAG,
    JUDGED_AGAINST_TAG,
    find_version,
    register,
    version_of,
)

SOURCE_TAG = "embedline.source"  # JSON list of `Origin`, the first registry first
_TOKEN = "MLFLOW_TRACKING_TOKEN"
_PASSWORD = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


@dataclass(frozen=True)
class Origin:
    """A registry that a version was copied from, and the version's name, number and MLflow run there."""

    registry: str
    name: str
    version: int
    run_id: str


def promote_across(
    name: str,
    version: int,
    alias: str = "champion",
    *,
    uri: str,
    to_uri: str,
    to_name: str = "",
    to_token: str = "",
    reason: str,
    by: str,
    expect: str | None = None,
) -> Promotion:
    """Copy a version that the gate did not refuse to another registry, and promote it there.

    The version's tag `judged_against` is a version number of its own registry. For the other registry
    `expect` is the champion to be replaced, by default the current one.

    Args:
        to_token: bearer token of the other server; empty to use the environment's for both.

    Raises:
        As `promote`, for either registry.

    Example:
        >>> staging, production = "http://mlflow.staging:5000", "https://mlflow.example.com"
        >>> promote_across("support", 3, uri=staging, to_uri=production, reason="release 7", by="ci").version
        1
    """
    with tempfile.TemporaryDirectory(prefix="embedline-copy-") as folder:
        copied = copy_version(
            name, version, Path(folder), uri=uri, to_uri=to_uri, to_name=to_name or name, to_token=to_token
        )
    with signed_in(to_token):
        update_challenger(to_name or name, uri=to_uri)
        why = f"{reason} (copied from {name} version {version} of {uri})"
        return promote(to_name or name, copied, alias, reason=why, by=by, expect=expect, uri=to_uri)


def copy_version(
    name: str, version: int, folder: Path, *, uri: str, to_uri: str, to_name: str, to_token: str = ""
) -> int:
    """Copy files, tags and origin; files that the other registry has under this name are not copied again.

    Args:
        folder: an empty folder with space for the files.

    Returns:
        The version's number in the other registry.

    Raises:
        InputError: no such version, or the two registries are one.
        RefusedError: the gate did not pass.
        StepError: the files are not those that were registered.
        TrackingError: a server failed.
    """
    if (uri, name) == (to_uri, to_name):
        raise InputError("is the registry that the version is in already.", where=f"--to-uri {to_uri}")
    with tracking_errors(uri):
        source = find_version(client(uri), name, version, uri)
        require_not_refused(source)
    identity = {key: source.tags[key] for key in (DIGEST_TAG, FILES_DIGEST_TAG) if key in source.tags}
    if len(identity) < 2:
        raise InputError("no digests were recorded at registration.", where=f"{name} version {version}")
    with signed_in(to_token):
        prepare(to_uri)
        copied_before = version_of(to_name, identity, uri=to_uri)
    if copied_before is not None:
        return copied_before
    files = download(name, version, folder / "model", uri=uri)
    remove_added_by_loading(files)
    origin = Origin(uri, name, version, source.run_id or "")
    with signed_in(to_token):
        return register(
            to_name,
            files,
            digest=identity[DIGEST_TAG],
            tags=_copied_tags(source.tags, origin),
            uri=to_uri,
            description=source.description or "",
        )


def _copied_tags(tags: Mapping[str, str], origin: Origin) -> dict[str, str]:
    origins = [*json.loads(tags.get(SOURCE_TAG) or "[]"), asdict(origin)]
    kept = {key: value for key, value in tags.items() if not key.startswith(JUDGED_AGAINST_TAG)}
    return {**kept, SOURCE_TAG: json.dumps(origins, ensure_ascii=False)}


@contextmanager
def signed_in(token: str) -> Iterator[None]:
    """Put another server's token into the environment, where mlflow reads it, while the block runs.

    A user name and password there belong to the first server: mlflow would send them instead of the token.
    """
    if not token:
        yield
        return
    before = {name: os.environ.pop(name) for name in (_TOKEN, *_PASSWORD) if name in os.environ}
    os.environ[_TOKEN] = token
    try:
        yield
    finally:
        del os.environ[_TOKEN]
        os.environ.update(before)
