"""Connections to a pipelines server: addresses, tokens, failures and retries."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
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


def test_silent_server_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more try, not one a pause: it was waited for during four minutes."""
    monkeypatch.setenv("KFP_TIMEOUT_S", "0.3")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.settimeout(0)
        error = _reach(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "does not answer" in str(error)
        assert "read timeout=0.3" in str(error)
        tries = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
                tries += 1
        assert tries == 2


def test_silence_after_the_first_answer_is_retried_once(
    kfp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from urllib3.connectionpool import HTTPConnectionPool
    from urllib3.exceptions import ReadTimeoutError

    calls = []

    def call() -> None:
        calls.append(1)
        raise ReadTimeoutError(HTTPConnectionPool("127.0.0.1"), "/runs", "Read timed out.")

    with pytest.raises(EmbedlineError, match="does not answer"), connect(kfp_server.url):
        with_retries(call)
    assert len(calls) == 2


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan"])
def test_timeout_that_is_no_time_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_TIMEOUT_S", value)
    assert "KFP_TIMEOUT_S" in str(_reach("http://127.0.0.1:9"))


@pytest.fixture
def site() -> Iterator[Any]:
    """A server that gives one answer to every request and keeps their targets and headers."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            server.seen.append((self.path, dict(self.headers)))
            status, headers, body = server.answer
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None: ...

    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.seen, server.answer = [], (200, {"Content-Type": "application/json"}, b'{"multi_user": false}')
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


_HTML = {"Content-Type": "text/html; charset=windows-1251"}
_PAGE = "<!doctype html><html><head><title>Вход &amp; пароль</title></head></html>".encode()


@pytest.mark.parametrize(
    ("status", "headers", "body", "words"),
    [
        (200, _HTML, _PAGE, ["a web page (200, text/html: Вход & пароль)", "KFP_TOKEN"]),
        (200, {}, b"", ["(200, empty)"]),
        (200, {"Content-Type": "text/plain"}, b"ok\nmore", ["(200, text/plain: ok)"]),
        (200, {"Content-Type": "application/json"}, b"[]", ["(200, JSON: [])"]),
        (302, {"Location": "https://login.example.org/auth?state=xyz"}, b"", ["login.example.org/auth (302"]),
        (308, {"Location": "https://127.0.0.1/apis"}, b"", ["(308, empty)", "Write https://127.0.0.1 "]),
        (401, _HTML, _PAGE, ["expired (401, text/html: Вход & пароль)", "KFP_TOKEN"]),
        (403, _HTML, b"<html>\xcd\xe5\xf2</html>", ["may not do that (403, text/html"]),
        (404, _HTML, b"<h1>Not Found</h1>", ["a web page (404, text/html: Not Found)", "--host"]),
        (
            404,
            {"Content-Type": "text/plain"},
            b"default backend - 404",
            ["(404, text/plain: default backend"],
        ),
        (502, _HTML, b"<html><h1>Bad Gateway</h1></html>", ["failed (502, text/html: Bad Gateway)", "later"]),
        (407, {}, b"", ["the proxy wants a user", "HTTPS_PROXY"]),
    ],
)
def test_strange_answer_is_described(
    site: Any, status: int, headers: dict[str, str], body: bytes, words: list[str]
) -> None:
    site.answer = (status, headers, body)
    error = _reach(site.url)
    assert [word for word in words if word not in str(error)] == [], str(error)
    assert error.exit_code == (1 if status == 502 else 2)
    assert "state=xyz" not in str(error)


def test_empty_answer_to_a_creation_is_not_taken_for_success(site: Any) -> None:
    """`{}` may be an empty list, but nothing was created."""
    site.answer = (200, {"Content-Type": "application/json"}, b"{}")
    with connect(site.url) as client:
        assert not client.list_runs().runs
        with pytest.raises(InputError, match=r"something else \(200, JSON: \{\}\)"):
            client.create_experiment("e")


def test_redirect_takes_the_token_nowhere(site: Any, kfp_server: Any) -> None:
    site.answer = (307, {"Location": f"{kfp_server.url}/apis/v2beta1/healthz"}, b"")
    assert f"redirects to {kfp_server.url}" in str(_reach(site.url, token="s3cret-token"))
    assert kfp_server.requests == []


@pytest.mark.parametrize("form", ["{}\n", "\r\n{} ", "\ufeff{}"])
def test_a_line_break_at_the_token_is_not_sent(form: str, site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_TOKEN", form.format("s3cret-token"))
    with connect(site.url):
        assert {headers["authorization"] for _, headers in site.seen} == {"Bearer s3cret-token"}
    with connect(site.url, token=form.format("an0ther-token")):
        assert site.seen[-1][1]["authorization"] == "Bearer an0ther-token"


def test_a_line_break_inside_the_token_is_refused(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_TOKEN", "s3cret\nt0ken-part")
    error = _reach(site.url)
    assert "KFP_TOKEN: holds a line break" in str(error)
    assert "t0ken-part" not in str(error)


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Remove the proxies of this machine."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_proxy_of_the_environment_is_used(variable: str, site: Any, no_proxies: pytest.MonkeyPatch) -> None:
    no_proxies.setenv(variable, site.url.replace("//", "//me:pass%2Fword@"))
    with connect("http://kfp.invalid:8080"):
        target, headers = site.seen[-1]
    assert target == "http://kfp.invalid:8080/apis/v2beta1/healthz"
    assert headers["proxy-authorization"] == f"Basic {base64.b64encode(b'me:pass/word').decode()}"


@pytest.mark.parametrize("hosts", ["127.0.0.1", "*", "example.org, 127.0.0.0/8"])
def test_no_proxy_is_obeyed(hosts: str, site: Any, kfp_server: Any, no_proxies: pytest.MonkeyPatch) -> None:
    no_proxies.setenv("HTTP_PROXY", site.url)
    no_proxies.setenv("NO_PROXY", hosts)
    with connect(kfp_server.url) as client:
        assert client.list_runs().total_size == 0
    assert site.seen == []


def test_https_goes_through_a_tunnel(site: Any, no_proxies: pytest.MonkeyPatch) -> None:
    """The proxy of this test refuses CONNECT; its address is named without its password."""
    no_proxies.setenv("HTTPS_PROXY", site.url.replace("//", "//me:pass%2Fword@"))
    no_proxies.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    error = _reach("https://kfp.invalid")
    assert f"through the proxy {site.url.replace('//', '//me:***@')}: the server does not answer" in str(
        error
    )
    assert "Tunnel connection failed: 501" in str(error)


def test_proxy_of_another_kind_is_refused(no_proxies: pytest.MonkeyPatch) -> None:
    no_proxies.setenv("HTTP_PROXY", "socks5://me:pass-word@127.0.0.1:9")
    error = _reach("http://kfp.invalid")
    assert "only http:// and https:// proxies" in str(error)
    assert "pass-word" not in str(error)
