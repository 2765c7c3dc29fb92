"""Delivery from a real server to the receiver in the documentation."""

from __future__ import annotations

import base64
import http.client
import queue
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from http.server import HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st
from mlflow.webhooks.delivery import _generate_hmac_signature

from embedline.errors import EmbedlineError, InputError
from embedline.registry.promotion import promote
from embedline.registry.server import DATABASE
from embedline.registry.versions import register
from embedline.registry.webhooks import (
    SignatureError,
    add_webhook,
    list_webhooks,
    remove_webhook,
    try_webhook,
    verify,
)

PAGE = Path(__file__).parents[2] / "pipelines" / "retrain" / "PROMOTION.md"
SECRET = "a key that only the two of them know"


@pytest.fixture(scope="module")
def calling(empty_database: Path, tmp_path_factory: pytest.TempPathFactory, serve: Callable[..., Any]) -> Any:
    """A server that is allowed to call this machine."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / DATABASE)
    return serve(
        folder,
        MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY=Fernet.generate_key().decode(),
        MLFLOW_WEBHOOK_CACHE_TTL="0",
        MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS="true",
        MLFLOW_WEBHOOK_ALLOWED_SCHEMES="http,https",
    )


@pytest.fixture
def receiver(calling: Any) -> Iterator[tuple[str, queue.Queue[Any]]]:
    """Run the receiver of the page; yield its address and the queue of its deployments."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    (code,) = [block for block in blocks if "class Receiver" in block]
    deployed: queue.Queue[Any] = queue.Queue()
    names = {"SECRET": SECRET, "NAME": "demo", "TRACKING_URI": calling.uri, "deploy": deployed.put}
    exec(compile(code, str(PAGE), "exec"), names)
    server = HTTPServer(("127.0.0.1", 0), names["Receiver"])  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", deployed
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_promotion_sends_a_webhook_to_the_deployer(calling: Any, receiver: Any, make_model: Any) -> None:
    url, deployed = receiver
    made = add_webhook("deployer", url, SECRET, uri=calling.uri)
    assert [w.name for w in list_webhooks(uri=calling.uri)] == ["deployer"]
    assert try_webhook("deployer", uri=calling.uri) == 204

    for name in ("other", "demo"):
        model = make_model(name)
        register(name, model.path, digest=model.digest, tags={"verdict": "passed"}, uri=calling.uri)
        promote(name, 1, reason="", by="ann", uri=calling.uri)
    champion = deployed.get(timeout=120)
    assert (champion.name, champion.version, champion.alias) == ("demo", 1, "champion")

    add_webhook("deployer", url, "another key", uri=calling.uri)  # changed, not doubled
    assert [w.id for w in list_webhooks(uri=calling.uri)] == [made.id]
    with pytest.raises(EmbedlineError, match="401"):
        try_webhook("deployer", uri=calling.uri)
    assert SECRET.encode() not in calling.database.read_bytes()
    remove_webhook("deployer", uri=calling.uri)
    assert list_webhooks(uri=calling.uri) == []


@pytest.mark.slow
def test_missing_webhook_and_refused_address_are_named(calling: Any) -> None:
    with pytest.raises(InputError, match="no webhook 'nobody'"):
        remove_webhook("nobody", uri=calling.uri)
    with pytest.raises(InputError, match="does not accept this address"):
        add_webhook("ftp", "ftp://example.org/x", SECRET, uri=calling.uri)


def signed(body: bytes, at: int, secret: str = SECRET) -> dict[str, str]:
    """Sign a delivery as mlflow does."""
    signature = _generate_hmac_signature(secret, "d-1", str(at), body.decode())
    return {
        "X-MLflow-Delivery-Id": "d-1",
        "X-MLflow-Timestamp": str(at),
        "X-MLflow-Signature": signature,
    }


def test_signature_of_mlflow_is_accepted_within_the_tolerance() -> None:
    headers = signed(b'{"data": {"name": "demo"}}', 1000)
    assert verify(headers, b'{"data": {"name": "demo"}}', SECRET, now=1299)["data"]["name"] == "demo"
    lowered = {key.lower(): value for key, value in headers.items()}
    assert verify(lowered, b'{"data": {"name": "demo"}}', SECRET, now=701)
    for now in (1301, 699):
        with pytest.raises(SignatureError, match="old"):
            verify(headers, b'{"data": {"name": "demo"}}', SECRET, now=now)
    with pytest.raises(SignatureError, match="another secret"):
        verify(headers, b'{"data": {"name": "demo"}}', "guess", now=1000)


@given(
    st.sampled_from(["X-MLflow-Delivery-Id", "X-MLflow-Timestamp", "X-MLflow-Signature", "body"]), st.text()
)
def test_changed_delivery_is_refused(part: str, text: str) -> None:
    body, headers = b'{"a": 1}', signed(b'{"a": 1}', 1000)
    if part == "body":
        body = text.encode(errors="ignore")
    else:
        headers[part] = text
    if (body, headers) == (b'{"a": 1}', signed(b'{"a": 1}', 1000)):
        return
    with pytest.raises(SignatureError):
        verify(headers, body, SECRET, now=1000)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-MLflow-Signature", "v1,é"),
        ("X-MLflow-Signature", "v1,no base64"),
        ("X-MLflow-Delivery-Id", "\ud800"),
        ("X-MLflow-Timestamp", "²"),
    ],
)
def test_malformed_headers_are_refused(header: str, value: str) -> None:
    with pytest.raises(SignatureError):
        verify({**signed(b"{}", 1000), header: value}, b"{}", SECRET, now=1000)


def test_empty_secret_is_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        verify(signed(b"{}", 1000, ""), b"{}", "", now=1000)


@pytest.mark.slow
@pytest.mark.parametrize("length", [None, "-1"])
def test_receiver_refuses_a_body_without_length(receiver: Any, length: str | None) -> None:
    url, deployed = receiver
    caller = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    caller.putrequest("POST", "/hook")
    for key, value in signed(b"", int(time.time()), "a guess").items():
        caller.putheader(key, value)
    if length:
        caller.putheader("Content-Length", length)
    caller.endheaders()
    assert caller.getresponse().status == 401
    assert deployed.empty()


def test_a_truncated_signature_is_refused() -> None:
    headers = signed(b"{}", 1000)
    short = base64.b64encode(base64.b64decode(headers["X-MLflow-Signature"][3:])[:8]).decode()
    with pytest.raises(SignatureError, match="another secret"):
        verify({**headers, "X-MLflow-Signature": f"v1,{short}"}, b"{}", SECRET, now=1000)
