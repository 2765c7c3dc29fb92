"""Client of a Kubeflow Pipelines server: kfp's own, with bounded retries and clear error messages."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlparse

from embedline.errors import EmbedlineError, InputError, first_line

TOKEN = "KFP_TOKEN"
_AUTHORITIES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")  # mlflow reads the first one as well
CONNECT_S, READ_S = 10.0, 60.0
PAUSES_S = (0.5, 1.0, 2.0, 4.0)
_RETRIED = (429, 500, 502, 503, 504)
_NO_EXPERIMENT = "No experiment is found with name"
T = TypeVar("T")


@contextmanager
def connect(host: str, namespace: str | None = None, token: str | None = None) -> Iterator[Any]:
    """Open a `kfp.Client` of the server at `host`; failures inside the block become one clear error.

    Reads are retried for about eight seconds while the server is overloaded (429, 5xx); wrap calls that
    create or change something in `with_retries`.

    Args:
        host: address of the API, with http:// or https://.
        namespace: profile namespace; a multi-user server needs it.
        token: bearer token; else the environment's KFP_TOKEN, else none.

    Certificates are checked against the file that REQUESTS_CA_BUNDLE or SSL_CERT_FILE names, else certifi's.

    Raises:
        InputError: wrong address, bad token, missing rights, or a request that the server refuses.
        EmbedlineError: the server stays overloaded.

    Example:
        >>> with connect("http://localhost:8080") as client:
        ...     print([run.display_name for run in list_all(client.list_runs, "runs")])
        ['demo-20260101-120000']
    """
    if urlparse(host).scheme not in {"http", "https"} or not urlparse(host).netloc:
        raise InputError(f"{host!r} is not the address of a server.", fix="Write http://ADDRESS:PORT.")
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield _client(host, namespace, token or os.environ.get(TOKEN) or None)
    except ApiException as error:
        raise _explained(error, host) from error
    except (HTTPError, OSError) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise InputError(
                "the server's certificate is not trusted here.",
                where=host,
                fix=f"Name a file with its authority's certificate in {_AUTHORITIES[0]}.",
            ) from error
        raise InputError(
            f"the server does not answer ({first_line(error)}).",
            where=host,
            fix="Check the address (--host, KFP_HOST) and the port forwarding.",
        ) from error
    except ValueError as error:
        if not str(error).startswith(_NO_EXPERIMENT):
            raise
        name = str(error).removeprefix(_NO_EXPERIMENT).strip(" .")
        raise InputError(f"there is no experiment {name!r}.", where=host) from error


def with_retries(call: Callable[[], T], made: Callable[[], T | None] = lambda: None) -> T:
    """Make `call`, with retries while the server is overloaded.

    Args:
        made: finds what an earlier try created although its response was lost; without it, `call` may take
            effect twice.
    """
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    for pause in PAUSES_S:
        try:
            return call()
        except ApiException as error:
            if error.status not in _RETRIED:
                raise
        except HTTPError:
            pass
        time.sleep(pause)
        if (existing := made()) is not None:
            return existing
    return call()


def list_all(listing: Callable[..., Any], field: str, name: str = "", **scope: Any) -> Iterator[Any]:
    """Yield all items of a listing, page by page.

    Args:
        listing: method of the client: `client.list_runs` and similar ones.
        field: attribute of its responses that holds the items.
        name: display name of the items; all when empty.
    """
    if name:
        same_name = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        scope["filter"] = json.dumps({"predicates": [same_name]})
    token = ""
    while True:
        page = listing(page_token=token, page_size=100, **scope)
        yield from getattr(page, field) or []
        token = page.next_page_token
        if not token:
            return


def _client(host: str, namespace: str | None, token: str | None) -> Any:
    from kfp import Client
    from urllib3.util import Retry

    class BoundedClient(Client):  # type: ignore[misc]
        """A kfp client with bounded retries and a check that the address is an API."""

        def _load_config(self, *args: Any, **kwargs: Any) -> Any:
            config = super()._load_config(*args, **kwargs)
            config.retries = Retry(
                connect=2,
                read=len(PAUSES_S),
                status=len(PAUSES_S),
                backoff_factor=PAUSES_S[0],
                status_forcelist=_RETRIED,
                allowed_methods=["GET"],
                respect_retry_after_header=False,  # the header may name hours
                raise_on_status=False,
            )
            return config

        def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
            """Check the server; kfp's own method tries five times, prints tracebacks and accepts any page."""
            health = self._healthz_api.healthz_service_get_healthz(_request_timeout=(CONNECT_S, READ_S))
            if not self._healthz_api.api_client.last_response.data.lstrip().startswith("{"):
                raise _not_the_api(host, "a web page")
            if health.multi_user and not namespace:
                raise InputError("this server has several users.", where=host, fix="Give --namespace.")
            return health

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        authorities = next((file for name in _AUTHORITIES if (file := os.environ.get(name))), None)
        client = BoundedClient(
            host=host,
            namespace=namespace or "kubeflow",
            existing_token=token,
            ssl_ca_cert=authorities,
        )
    _add_timeouts(client._run_api.api_client.rest_client)
    client.get_kfp_healthz()
    return client


def _add_timeouts(rest: Any) -> None:
    """Set a timeout for every request: without one the client waits forever for a server that hangs."""
    request = rest.request

    def request_with_timeout(*args: Any, **kwargs: Any) -> Any:
        kwargs["_request_timeout"] = kwargs.get("_request_timeout") or (CONNECT_S, READ_S)
        return request(*args, **kwargs)

    rest.request = request_with_timeout


def _explained(error: Any, host: str) -> EmbedlineError:
    detail = _message(error)
    if error.status == 401:
        return InputError(
            "the token is missing or has expired (401).", where=host, fix=f"Put a fresh one into {TOKEN}."
        )
    if error.status == 403:
        return InputError(
            f"this account may not do that (403{detail}).",
            where=host,
            fix=f"Check --namespace and the account of the token in {TOKEN}.",
        )
    if error.status in _RETRIED:
        return EmbedlineError(
            f"the server failed ({error.status}{detail}).",
            where=host,
            fix="See its log; try again later.",
        )
    if error.status == 404 and not detail:
        return _not_the_api(host, "404")
    return InputError(f"the server refused ({error.status}{detail}).", where=host)


def _not_the_api(host: str, answer: str) -> InputError:
    return InputError(
        f"answers with {answer}, not as the pipelines API does.",
        where=host,
        fix=f"Check the address (--host, KFP_HOST); a sign-in page needs a token in {TOKEN}.",
    )


def _message(error: Any) -> str:
    """Return the server's message in one line after a colon; empty when the response has none."""
    try:
        body = json.loads(error.body or "")
    except ValueError:
        return ""
    if not isinstance(body, dict):
        return ""
    message = body.get("message") or body.get("error_message") or body.get("error") or ""
    return f": {' '.join(str(message).split())[:300]}" if message else ""
