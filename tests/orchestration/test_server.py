"""Connections to a pipelines server: addresses, tokens, failures and retries."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from kfp_server import KfpServer

from embedline.errors import EmbedlineError, InputError
from embedline.orchestration import server as module
from embedline.orchestration.server import connect, with_retries

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSES_S", (0.01, 0.01, 0.01, 0.01))


@pytest.fixture
def other_site() -> Iterator[str]:
    """A server that is not the API: every path is a web page."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>Sign in</html>")

        def log_message(self, *_: Any) -> None: ...

    site = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=site.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{site.server_port}"
    site.shutdown()
    site.server_close()


def _reach(host: str, **more: Any) -> EmbedlineError:
    with pytest.raises(EmbedlineError) as failed, connect(host, **more) as client:
        client.list_runs()
    assert "\n" not in str(failed.value)
    return failed.value


def test_unreachable_server_is_an_input_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = _reach(f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert error.exit_code == 2
    assert "does not answer" in str(error)
    assert "--host" in str(error)


@pytest.mark.parametrize("host", ["kfp.example.org", "", "ftp://x", "http://"])
def test_invalid_address_is_refused_without_a_request(host: str) -> None:
    assert "http://ADDRESS:PORT" in str(_reach(host))


def test_other_web_site_is_not_taken_for_the_api(other_site: str) -> None:
    assert "answers with a web page" in str(_reach(other_site))


def test_an_address_below_the_api_is_not_found(kfp_server: Any) -> None:
    assert "404" in str(_reach(kfp_server.url + "/elsewhere"))


def test_the_token_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, kfp_server: Any) -> None:
    kfp_server.token = "s3cret"
    missing = _reach(kfp_server.url)
    assert missing.exit_code == 2
    assert "401" in str(missing)
    assert "KFP_TOKEN" in str(missing)
    monkeypatch.setenv("KFP_TOKEN", "s3cret")
    with connect(kfp_server.url) as client:
        assert not client.list_runs().runs
        kfp_server.token = "another"  # it expires while we work
        with pytest.raises(InputError, match="expired") as expired, connect(kfp_server.url):
            raise AssertionError("the first question is refused already")
    assert "s3cret" not in str(expired.value)


def test_missing_rights_and_bad_token_have_their_own_errors(kfp_server: Any) -> None:
    kfp_server.forbidden = True
    assert "may not do that (403: User is not authorized" in str(_reach(kfp_server.url, namespace="team"))


def test_multi_user_server_needs_a_namespace(kfp_server: Any) -> None:
    with KfpServer(multi_user=True) as server:
        assert "Give --namespace" in str(_reach(server.url))
        with connect(server.url, namespace="team") as client:
            assert client.create_experiment("e", namespace="team").namespace == "team"


def test_an_experiment_that_is_not_there_is_named(kfp_server: Any) -> None:
    with pytest.raises(InputError, match="no experiment 'nightly'"), connect(kfp_server.url) as client:
        client.get_experiment(experiment_name="nightly")


def test_embedline_errors_pass_through(kfp_server: Any) -> None:
    with pytest.raises(ValueError, match="ours"), connect(kfp_server.url):
        raise ValueError("ours")


def test_recovering_server_is_retried(kfp_server: Any) -> None:
    kfp_server.fail("GET .*", times=3)
    with connect(kfp_server.url) as client:
        kfp_server.fail("GET .*/runs", times=4, status=503)
        assert client.list_runs().total_size == 0
        kfp_server.fail("POST .*/experiments", times=2)
        made = with_retries(lambda: client.create_experiment("e"))
    assert [made.display_name] == [value["display_name"] for value in kfp_server.all("experiments")]


def test_retries_are_bounded(kfp_server: Any) -> None:
    kfp_server.fail("GET .*", times=100)
    error = _reach(kfp_server.url)
    assert error.exit_code == 1
    assert "failed (500: something broke inside)" in str(error)
    assert len(kfp_server._failures) == 95  # five questions
    kfp_server._failures.clear()
    kfp_server.fail("POST .*", times=100)
    with pytest.raises(EmbedlineError, match="the server failed"), connect(kfp_server.url) as client:
        with_retries(lambda: client.create_experiment("e"))
    assert len(kfp_server._failures) == 95


def test_refused_request_is_not_retried(kfp_server: Any) -> None:
    with pytest.raises(InputError, match="refused"), connect(kfp_server.url) as client:
        with_retries(lambda: client.terminate_run("nobody"))
    assert [path for method, path, _ in kfp_server.requests if method == "POST"] == [
        "/apis/v2beta1/runs/nobody:terminate"
    ]


def test_lost_response_creates_nothing_twice(kfp_server: Any) -> None:
    kfp_server.lose("POST .*/experiments")
    with connect(kfp_server.url) as client:
        api = client.experiments
        body = client.api_models.V2beta1Experiment(display_name="e")
        filter_ = json.dumps({"predicates": [{"operation": 1, "key": "display_name", "stringValue": "e"}]})

        def made() -> Any:
            return (api.experiment_service_list_experiments(filter=filter_).experiments or [None])[0]

        found = with_retries(lambda: api.experiment_service_create_experiment(experiment=body), made)
    assert [found.experiment_id] == [value["experiment_id"] for value in kfp_server.all("experiments")]


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_certificate_authority_from_the_environment_is_used(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    certificate, key = tmp_path / "server.crt", tmp_path / "server.key"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=kfp"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(certificate), "-keyout", str(key)]
    subprocess.run(made, check=True, capture_output=True)
    server = KfpServer()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server._http.socket = context.wrap_socket(server._http.socket, server_side=True)
    host = server.url.replace("http:", "https:")
    with server:
        error = _reach(host)
        assert error.exit_code == 2
        assert "certificate is not trusted" in str(error)
        assert "REQUESTS_CA_BUNDLE" in str(error)
        monkeypatch.setenv(variable, str(certificate))
        with connect(host) as client:
            assert client.list_runs().total_size == 0


def test_hanging_server_times_out(kfp_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert "does not answer" in str(_reach(f"http://127.0.0.1:{silent.getsockname()[1]}"))
