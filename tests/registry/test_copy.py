"""Copy of a version from one real server to another with another token."""

from __future__ import annotations

import base64
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from embedline.errors import InputError, RefusedError, StepError
from embedline.registry.copy import promote_across, signed_in
from embedline.registry.download import download
from embedline.registry.promotion import history, promote
from embedline.registry.server import DATABASE
from embedline.registry.versions import aliases, get_champion, register

pytestmark = pytest.mark.slow  # real servers take their time to start


@pytest.fixture(scope="module")
def production(
    empty_database: Path, tmp_path_factory: pytest.TempPathFactory, serve: Callable[..., Any]
) -> Any:
    folder = tmp_path_factory.mktemp("production")
    shutil.copy(empty_database, folder / DATABASE)
    return serve(folder)


def added(uri: str, name: str, model: Any, **tags: str) -> int:
    given = {"verdict": "passed", "embedline.run_id": "run-7", "embedline.scores": '{"Docs": 0.7}', **tags}
    return register(name, model.path, digest=model.digest, tags=given, uri=uri)


def carried(uri: str, production: Any, name: str, version: int, **kwargs: Any) -> Any:
    given = {"reason": "approved", "by": "ann", "to_uri": production.uri, **kwargs}
    return promote_across(name, version, uri=uri, **given)


def test_a_version_is_copied_with_its_lineage_and_promoted_there(
    uri: str, production: Any, make_model: Any, tmp_path: Path
) -> None:
    model = make_model("one")
    added(uri, "demo", make_model("zero"))
    assert added(uri, "demo", model, **{"embedline.judged_against": "1"}) == 2
    moved = carried(uri, production, "demo", 2)
    assert (moved.version, moved.moved) == (1, True)

    tags = MlflowClient(production.uri, production.uri).get_model_version("demo", "1").tags
    origin = json.loads(tags["embedline.source"])
    assert origin == [{"registry": uri, "name": "demo", "version": 2, "run_id": ""}]
    assert (tags["embedline.run_id"], tags["embedline.scores"]) == ("run-7", '{"Docs": 0.7}')
    assert "embedline.judged_against" not in tags
    assert aliases("demo", uri=production.uri) == {"champion": 1, "challenger": 1}
    assert aliases("demo", uri=uri) == {}
    (entry,) = (g.entry for g in history("demo", uri=production.uri))
    assert (entry.by, "approved (copied from demo version 2" in entry.reason) == ("ann", True)
    copy = download("demo", 1, tmp_path / "copy", uri=production.uri)
    assert (copy / "model.safetensors").read_bytes() == (model.path / "model.safetensors").read_bytes()

    again = carried(uri, production, "demo", 2)
    assert (again.version, again.moved) == (1, False)
    assert carried(uri, production, "demo", 1, expect="1").version == 2


def test_copy_refuses_what_may_not_be_promoted(uri: str, production: Any, make_model: Any) -> None:
    added(uri, "refused", make_model("one"), verdict="refused")
    with pytest.raises(RefusedError):
        carried(uri, production, "refused", 1)
    added(uri, "spoilt", make_model("two"))
    promote("spoilt", 1, reason="", by="ann", uri=uri)
    champion = get_champion("spoilt", uri=uri)
    assert champion is not None
    assert champion.path is not None
    (champion.path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(StepError, match=r"model\.safetensors has changed since it was registered: SHA-256"):
        carried(uri, production, "spoilt", 1)
    with pytest.raises(InputError, match="in already"):
        promote_across("demo", 1, uri=uri, to_uri=uri, reason="", by="ann")
    client = MlflowClient(production.uri, production.uri)
    assert client.search_model_versions("name = 'refused'") == []
    assert client.search_model_versions("name = 'spoilt'") == []


def test_token_of_the_other_server_is_used_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers that mlflow sends: it prefers a user name and password to the token."""
    ours = {"TOKEN": "ours", "USERNAME": "me", "PASSWORD": "secret"}
    for name, value in ours.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)

    def sent() -> str:
        with serving_one_request() as (address, heard):
            MlflowClient(address, address).search_experiments()
        return str(heard[0].get("Authorization"))

    with signed_in("theirs"):
        assert sent() == "Bearer theirs"
    assert sent() == f"Basic {base64.b64encode(b'me:secret').decode()}"
    assert {name: os.environ[f"MLFLOW_TRACKING_{name}"] for name in ours} == ours
    for name in ours:
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}")
    with signed_in("theirs"):
        assert sent() == "Bearer theirs"
    assert "MLFLOW_TRACKING_TOKEN" not in os.environ


@contextmanager
def serving_one_request() -> Iterator[tuple[str, list[Any]]]:
    """A server without experiments, and the headers that it received."""
    heard: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            heard.append(self.headers)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
        server.server_close()
