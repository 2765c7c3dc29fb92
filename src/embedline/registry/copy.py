"""A version carried from one registry to another (staging to production), with where it came from."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedline.errors import InputError, without_passwords
from embedline.registry.challenger import name_challenger
from embedline.registry.files import FILES_DIGEST_TAG
from embedline.registry.promotion import Promotion, promote, require_passed
from embedline.registry.server import client, prepare, reaching
from embedline.registry.versions import (
    DIGEST_TAG,
    JUDGED_AGAINST_TAG,
    download,
    find_version,
    register,
    version_of,
)

SOURCE_TAG = "embedline.source"  # JSON, a list: the registries a version came through, the first one first
_TOKEN = "MLFLOW_TRACKING_TOKEN"
_PASSWORD = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


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
    """Copy a version that passed the gate to another registry, and promote it there.

    What the version was judged against is a number of its own registry: in the other one, `expect` says which
    champion is to be replaced, by default the one that is there.

    Args:
        to_token: bearer token of the other server; empty to use the environment's for both.

    Raises:
        As `promote`, for either registry.
    """
    with tempfile.TemporaryDirectory(prefix="embedline-copy-") as folder:
        copied = copy_version(
            name, version, Path(folder), uri=uri, to_uri=to_uri, to_name=to_name or name, to_token=to_token
        )
    with signed_in(to_token):
        name_challenger(to_name or name, uri=to_uri)
        why = f"{reason} (copied from {name} version {version} of {without_passwords(uri)})"
        return promote(to_name or name, copied, alias, reason=why, by=by, expect=expect, uri=to_uri)


def copy_version(
    name: str, version: int, folder: Path, *, uri: str, to_uri: str, to_name: str, to_token: str = ""
) -> int:
    """Files, tags and origin; the same files under the same name are one version there, however often copied.

    Args:
        folder: an empty one with room for the files.

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
    with reaching(uri):
        found = find_version(client(uri), name, version, uri)
        require_passed(found)
    identity = {key: found.tags[key] for key in (DIGEST_TAG, FILES_DIGEST_TAG) if key in found.tags}
    if len(identity) < 2:
        raise InputError("no digests were recorded at registration.", where=f"{name} version {version}")
    with signed_in(to_token):
        prepare(to_uri)
        there = version_of(to_name, identity, uri=to_uri)
    if there is not None:
        return there
    files = download(name, version, folder / "model", uri=uri)
    origin = {"registry": uri, "name": name, "version": version, "run_id": found.run_id or ""}
    with signed_in(to_token):
        return register(
            to_name, files, digest=identity[DIGEST_TAG], tags=_carried(found.tags, origin), uri=to_uri
        )


def _carried(tags: Mapping[str, str], origin: Mapping[str, Any]) -> dict[str, str]:
    came = [*json.loads(tags.get(SOURCE_TAG) or "[]"), origin]
    kept = {key: value for key, value in tags.items() if key != JUDGED_AGAINST_TAG}
    return {**kept, SOURCE_TAG: json.dumps(came, ensure_ascii=False)}


@contextmanager
def signed_in(token: str) -> Iterator[None]:
    """mlflow takes a token only from the environment: for the time that another server is talked to.

    A name and password there are the first server's. mlflow would send them to the other, and not the token.
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
