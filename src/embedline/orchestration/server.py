"""Client of a Kubeflow Pipelines server: kfp's own, with proxies, timeouts, bounded retries, clear errors."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlparse

from embedline.config.secrets import one_line_secret, secret_variable
from embedline.errors import EmbedlineError, InputError, first_line
from embedline.orchestration.answers import described, is_json_object, is_web_page
from embedline.redaction import keep_secret, stripped

TOKEN, TIMEOUT = "KFP_TOKEN", "KFP_TIMEOUT_S"
_AUTHORITIES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")  # mlflow reads the first one as well
CONNECT_S, READ_S, HEALTH_S = 10.0, 30.0, 10.0
PAUSES_S = (0.5, 1.0, 2.0, 4.0)
_RETRIED = (429, 500, 502, 503, 504)
_NO_EXPERIMENT = "No experiment is found with name"
T = TypeVar("T")


@contextmanager
def connect(host: str, namespace: str | None = None, token: str | None = None) -> Iterator[Any]:
    """Open a `kfp.Client` of the server at `host`; failures inside the block become one clear error.

    Reads are retried for about eight seconds while the server is overloaded (429, 5xx), and once when it is
    silent for 30 seconds (KFP_TIMEOUT_S); wrap calls that create or change something in `with_retries`.

    Args:
        host: address of the API, with http:// or https://.
        namespace: profile namespace; a multi-user server needs it.
        token: bearer token; else the environment's KFP_TOKEN, else none.

    Certificates are checked against the file that REQUESTS_CA_BUNDLE or SSL_CERT_FILE names, else certifi's.
    HTTP_PROXY, HTTPS_PROXY and NO_PROXY are obeyed. Redirects are not followed: they would carry the token
    elsewhere.

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

    token = one_line_secret(stripped(token), where="token") if token else secret_variable(TOKEN)
    keep_secret(token)
    proxy = _proxy(host)
    try:
        yield _client(host, namespace, token or None, proxy)
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
            where=f"{host} through the proxy {proxy}" if proxy else host,
            fix="Check the address (--host, KFP_HOST), the port forwarding, HTTPS_PROXY and NO_PROXY.",
        ) from error
    except ValueError as error:
        if not str(error).startswith(_NO_EXPERIMENT):
            raise
        name = str(error).removeprefix(_NO_EXPERIMENT).strip(" .")
        raise InputError(f"there is no experiment {name!r}.", where=host) from error


def with_retries(call: Callable[[], T], made: Callable[[], T | None] = lambda: None) -> T:
    """Make `call`, with retries while the server is overloaded, and one after it was silent.

    Args:
        made: finds what an earlier try created although its response was lost; without it, `call` may take
            effect twice.
    """
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError, ReadTimeoutError

    silent = False
    for pause in PAUSES_S:
        try:
            return call()
        except ApiException as error:
            if error.status not in _RETRIED:
                raise
        except HTTPError as error:
            if isinstance(error, ReadTimeoutError):
                if silent:
                    raise
                silent = True
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


def _timeouts() -> tuple[float, float]:
    """Return the seconds to wait for a connection and for an answer; KFP_TIMEOUT_S changes them.

    Raises:
        InputError: the variable is no number of seconds.
    """
    text = os.environ.get(TIMEOUT, "").strip()
    try:
        read = float(text) if text else READ_S
    except ValueError:
        read = 0.0
    if not 0 < read <= 3600:
        raise InputError(f"{text!r} is not a number of seconds from 0 to 3600.", where=TIMEOUT)
    return min(CONNECT_S, read), read


def _proxy(host: str) -> str | None:
    """Return the proxy that the environment names for a server; None: no proxy, or NO_PROXY names the host.

    Raises:
        InputError: a proxy of a kind that the client does not know.
    """
    from requests.utils import (  # type: ignore[import-untyped]
        get_environ_proxies,
        prepend_scheme_if_needed,
        select_proxy,
    )

    found = select_proxy(host, get_environ_proxies(host))
    if not found:
        return None
    proxy: str = prepend_scheme_if_needed(found, "http")
    if urlparse(proxy).scheme not in {"http", "https"}:
        raise InputError("only http:// and https:// proxies are known.", where=f"HTTPS_PROXY: {proxy}")
    return proxy


def _client(host: str, namespace: str | None, token: str | None, proxy: str | None) -> Any:
    from kfp import Client
    from requests.utils import get_auth_from_url
    from urllib3.util import Retry, make_headers

    connect_s, read_s = _timeouts()

    class BoundedClient(Client):  # type: ignore[misc]
        """A kfp client with bounded retries and a check that the address is an API."""

        def _load_config(self, *args: Any, **kwargs: Any) -> Any:
            config = super()._load_config(*args, **kwargs)
            user, password = get_auth_from_url(proxy) if proxy else ("", "")
            if user:
                config.proxy_headers = make_headers(proxy_basic_auth=f"{user}:{password}")
            config.retries = Retry(
                connect=2,
                read=1,  # each waits for a silent server once more
                redirect=False,
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
            _check_answers(self._healthz_api.api_client.rest_client, host, (connect_s, read_s))
            timeout = (connect_s, min(HEALTH_S, read_s))
            health = self._healthz_api.healthz_service_get_healthz(_request_timeout=timeout)
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
            proxy=proxy,
            ssl_ca_cert=authorities,
        )
    client.get_kfp_healthz()
    return client


def _check_answers(rest: Any, host: str, timeouts: tuple[float, float]) -> None:
    """Set a timeout for every request, and accept only the API's answers.

    kfp's client waits forever for a server that hangs, and takes a web page for an empty list.
    """
    from kfp_server_api import ApiException

    if "request" in vars(rest):  # checked already
        return
    request = rest.request

    def checked(method: str, url: str, **kwargs: Any) -> Any:
        kwargs["_request_timeout"] = kwargs.get("_request_timeout") or timeouts
        try:
            response = request(method, url, **kwargs)
        except ApiException as error:  # the client decodes the body, which may be a page in another encoding
            error.body = (error.body or b"").decode("utf-8", "replace").encode()
            raise
        creates = method == "POST" and ":" not in url.rsplit("/", 1)[-1]  # not …/ID:terminate
        if not is_json_object(response.data, empty=not creates):
            content_type = response.getheader("content-type")
            raise _not_the_api(host, described(response.status, content_type, response.data), response.data)
        return response

    rest.request = checked


def _explained(error: Any, host: str) -> EmbedlineError:
    headers = error.headers or {}
    answer = described(error.status, headers.get("content-type"), error.body or "")
    location = headers.get("location", "").split("?")[0]
    if 300 <= error.status < 400:
        return InputError(
            f"redirects to {location} ({answer}).", where=host, fix=_redirect_fix(host, location)
        )
    if error.status == 401:
        return InputError(
            f"the token is missing or has expired ({answer}).",
            where=host,
            fix=f"Put a fresh one into {TOKEN}.",
        )
    if error.status == 403:
        return InputError(
            f"this account may not do that ({answer}).",
            where=host,
            fix=f"Check --namespace and the account of the token in {TOKEN}.",
        )
    if error.status == 407:
        return InputError(
            f"the proxy wants a user and a password ({answer}).", where=host, fix="Set them in HTTPS_PROXY."
        )
    if error.status in _RETRIED:
        return EmbedlineError(
            f"the server failed ({answer}).", where=host, fix="See its log; try again later."
        )
    if error.status == 404 and not is_json_object(error.body or "", empty=False):
        return _not_the_api(host, answer, error.body or "")
    return InputError(f"the server refused ({answer}).", where=host)


def _redirect_fix(host: str, location: str) -> str:
    """Return what to do about a redirect: write the address itself, or sign in."""
    here, there = urlparse(host), urlparse(location)
    if there.hostname == here.hostname and there.scheme != here.scheme:
        return f"Write {there.scheme}://{there.netloc} (--host, KFP_HOST)."
    return f"A sign-in page needs a token in {TOKEN}; else check the address (--host, KFP_HOST)."


def _not_the_api(host: str, answer: str, body: str | bytes) -> InputError:
    what = "a web page" if is_web_page(body) else "something else"
    return InputError(
        f"answers with {what} ({answer}), not as the pipelines API does.",
        where=host,
        fix=f"Check the address (--host, KFP_HOST); a sign-in page needs a token in {TOKEN}.",
    )
