"""Kubeflow Pipelines server in a thread: the v2beta1 API over HTTP, with state and strict checks.

Every request is checked against kfp_server_api's own models (`kfp_schema`) and against what the store holds
(`kfp_store`); what does not fit is refused in the API's way. `fail` and `lose` play a server's bad minutes.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import kfp_schema
from kfp_listing import RefusedError
from kfp_store import Store

_GRPC = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13, 503: 14}
_LISTED = ["page_token", "page_size", "sort_by", "filter"]
Answer = dict[str, Any]


class KfpServer:
    """`with KfpServer() as server: Client(host=server.url)`.

    Args:
        token: the only one that is taken; no token is asked for when empty.
        multi_user: whether experiments live in namespaces.
    """

    def __init__(self, token: str = "", multi_user: bool = False) -> None:
        self.store = Store(multi_user)
        self.token = token
        self.forbidden = False
        self.requests: list[tuple[str, str, Any]] = []  # method, path, body
        self._failures: list[tuple[str, int, bool]] = []

        class Handler(_Handler):
            server_of = self

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> KfpServer:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._http.shutdown()
        self._http.server_close()

    def fail(self, pattern: str, times: int = 1, status: int = 500) -> None:
        """Drop the next requests whose `METHOD path` matches."""
        self._failures += [(pattern, status, False)] * times

    def lose(self, pattern: str, times: int = 1) -> None:
        """Carry out the next matching requests but lose their response: the client gets a 500."""
        self._failures += [(pattern, 500, True)] * times

    def all(self, collection: str) -> list[dict[str, Any]]:
        """Return the experiments, pipelines, versions, runs or recurring, oldest first."""
        return list(self.store.kept[collection].values())

    def finish(self, run_id: str, state: str = "SUCCEEDED") -> None:
        """End a run."""
        self.store.get("runs", run_id)["state"] = state

    def answer(self, method: str, target: str, body: bytes, headers: Message) -> tuple[int, Answer]:
        url = urlsplit(target)
        said = f"{method} {unquote(url.path)}"
        planned = next((item for item in self._failures if re.search(item[0], said)), None)
        if planned:
            self._failures.remove(planned)
            if not planned[2]:
                return planned[1], _error(planned[1], "something broke inside")
        try:
            self._authorize(headers)
            with self.store.lock:
                made = self._dispatch(method, url.path, dict(parse_qsl(url.query)), body, headers)
        except RefusedError as refused:
            return refused.status, _error(refused.status, refused.message)
        return (500, _error(500, "the answer was lost")) if planned else (200, made)

    def _authorize(self, headers: Message) -> None:
        if self.token and headers.get("Authorization") != f"Bearer {self.token}":
            raise RefusedError(401, "Request header error: the token is invalid or has expired")
        if self.forbidden:
            raise RefusedError(403, "User is not authorized to access this resource")

    def _dispatch(
        self, method: str, path: str, query: dict[str, str], body: bytes, headers: Message
    ) -> Answer:
        for wanted, pattern, kind, allowed, act in _ROUTES:
            found = re.fullmatch(_V + pattern, path)
            if wanted == method and found:
                if unknown := set(query) - set(allowed):
                    raise RefusedError(400, f"unknown query parameters: {sorted(unknown)}")
                content = _body(kind, body, headers)
                self.requests.append((method, path, content))
                return act(self.store, [unquote(part) for part in found.groups()], query, content)
        raise RefusedError(404, "Not Found")


def _body(kind: str, body: bytes, headers: Message) -> Any:
    """Return the request's content: a model of the API, an uploaded file, or nothing."""
    if kind == "file":
        head = f"Content-Type: {headers.get('Content-Type')}\r\n\r\n".encode()
        for part in message_from_bytes(head + body).walk():
            if part.get_param("name", header="content-disposition") == "uploadfile":
                return part.get_payload(decode=True)
        raise RefusedError(400, "Failed to read pipeline: there is no uploadfile")
    if not kind:
        if body.strip() not in {b"", b"{}", b"null"}:
            raise RefusedError(400, "this request has no body")
        return None
    try:
        value = json.loads(body)
    except ValueError as error:
        raise RefusedError(400, "the body is not JSON") from error
    if wrong := list(kfp_schema.problems(value, kind, "body")):
        raise RefusedError(400, "; ".join(wrong))
    return {key: item for key, item in value.items() if item is not None}


def _error(status: int, message: str) -> Answer:
    code = _GRPC.get(status, 2)
    return {"error": message, "code": code, "message": message, "details": []}


def _listing(collection: str, id_field: str, shown: str, *scopes: str) -> Callable[..., Answer]:
    def act(store: Store, parts: list[str], query: dict[str, str], _: Any) -> Answer:
        scope = {name: query[name] for name in scopes if query.get(name)}
        if collection == "versions":
            scope["pipeline_id"] = store.get("pipelines", parts[0])["pipeline_id"]
        if scope.get("experiment_id"):
            store.get("experiments", scope["experiment_id"])
        page = store.list(collection, id_field, query, **scope)
        return {shown: page["found"], **{key: page[key] for key in ("total_size", "next_page_token")}}

    return act


def _delete(collection: str) -> Callable[..., Answer]:
    def act(store: Store, parts: list[str], *_: Any) -> Answer:
        store.get(collection, parts[-1])
        del store.kept[collection][parts[-1]]
        return {}

    return act


def _set(collection: str, field: str, value: str) -> Callable[..., Answer]:
    def act(store: Store, parts: list[str], *_: Any) -> Answer:
        store.get(collection, parts[0])[field] = value
        return {}

    return act


def _terminate(store: Store, parts: list[str], *_: Any) -> Answer:
    store.terminate(parts[0])
    return {}


def _upload_version(store: Store, _: list[str], query: dict[str, str], text: bytes) -> Answer:
    return store.upload_version(query, text)


_list_versions = _listing("versions", "pipeline_version_id", "pipeline_versions")
_list_recurring = _listing("recurring", "recurring_run_id", "recurringRuns", "experiment_id")
_V = "/apis/v2beta1"
_ID = "([^/:]+)"
_LIST = [*_LISTED, "namespace"]
_JOBS = [*_LIST, "experiment_id"]
_FILE = ["name", "display_name", "description", "tags"]
_HEALTH = {"pipeline_store": "database"}
# method, path, the body's model (or a file), known query parameters, what happens
_ROUTES: list[tuple[str, str, str, list[str], Callable[..., Answer]]] = [
    ("GET", "/healthz", "", [], lambda s, *_: {**_HEALTH, "multi_user": s.multi_user}),
    ("POST", "/experiments", "V2beta1Experiment", [], lambda s, p, q, b: s.create_experiment(b)),
    ("GET", "/experiments", "", _LIST, _listing("experiments", "experiment_id", "experiments", "namespace")),
    ("GET", f"/experiments/{_ID}", "", [], lambda s, p, *_: s.get("experiments", p[0])),
    ("POST", f"/experiments/{_ID}:archive", "", [], _set("experiments", "storage_state", "ARCHIVED")),
    ("DELETE", f"/experiments/{_ID}", "", [], _delete("experiments")),
    ("POST", "/pipelines/upload", "file", [*_FILE, "namespace"], lambda s, p, q, b: s.upload_pipeline(q, b)),
    (
        "POST",
        "/pipelines/upload_version",
        "file",
        [*_FILE, "pipelineid"],
        lambda s, p, q, b: s.upload_version(q, b),
    ),
    ("POST", "/pipelines", "V2beta1Pipeline", [], lambda s, p, q, b: s.create_pipeline(b)),
    ("GET", "/pipelines", "", _LIST, _listing("pipelines", "pipeline_id", "pipelines", "namespace")),
    ("GET", f"/pipelines/{_ID}", "", [], lambda s, p, *_: s.get("pipelines", p[0])),
    ("DELETE", f"/pipelines/{_ID}", "", ["cascade"], _delete("pipelines")),
    (
        "GET",
        f"/pipelines/{_ID}/versions",
        "",
        _LISTED,
        _listing("versions", "pipeline_version_id", "pipeline_versions"),
    ),
    ("GET", f"/pipelines/{_ID}/versions/{_ID}", "", [], lambda s, p, *_: s.get("versions", p[1])),
    ("DELETE", f"/pipelines/{_ID}/versions/{_ID}", "", [], _delete("versions")),
    ("POST", "/runs", "V2beta1Run", ["experiment_id"], lambda s, p, q, b: s.create_run(b)),
    ("GET", "/runs", "", _JOBS, _listing("runs", "run_id", "runs", "experiment_id")),
    ("GET", f"/runs/{_ID}", "", ["experiment_id"], lambda s, p, *_: s.get("runs", p[0])),
    ("POST", f"/runs/{_ID}:terminate", "", ["experiment_id"], _terminate),
    ("POST", f"/runs/{_ID}:archive", "", ["experiment_id"], _set("runs", "storage_state", "ARCHIVED")),
    ("DELETE", f"/runs/{_ID}", "", ["experiment_id"], _delete("runs")),
    ("POST", "/recurringruns", "V2beta1RecurringRun", [], lambda s, p, q, b: s.create_recurring(b)),
    (
        "GET",
        "/recurringruns",
        "",
        _JOBS,
        _listing("recurring", "recurring_run_id", "recurringRuns", "experiment_id"),
    ),
    ("GET", f"/recurringruns/{_ID}", "", [], lambda s, p, *_: s.get("recurring", p[0])),
    ("POST", f"/recurringruns/{_ID}:disable", "", [], _set("recurring", "status", "DISABLED")),
    ("POST", f"/recurringruns/{_ID}:enable", "", [], _set("recurring", "status", "ENABLED")),
    ("DELETE", f"/recurringruns/{_ID}", "", ["propagation_policy"], _delete("recurring")),
]


class _Handler(BaseHTTPRequestHandler):
    server_of: KfpServer
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, answer = self.server_of.answer(self.command, self.path, body, self.headers)
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = _serve  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the requests are in `requests`."""
