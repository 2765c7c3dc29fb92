"""Answers of an HTTP server in a few words: status, content type, and its message or first line."""

from __future__ import annotations

import html
import json
import re

from embedline.redaction import without_secrets

_CHARS = 200
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<(style|script)\b.*?</\1>|<[^>]*>", re.IGNORECASE | re.DOTALL)


def described(status: int, content_type: str | None, body: str | bytes) -> str:
    """Return an answer in one line.

    Examples: `403: User is not authorized`, `200, text/html: Sign in`, `502, empty`.
    """
    text = _text(body).strip()
    if (message := _json_message(text)) is not None:
        return f"{status}: {_short(message)}" if message else f"{status}, JSON: {_short(text)}"
    if not text:
        return f"{status}, empty"
    media_type = (content_type or "no content type").split(";")[0].strip()
    if is_web_page(text):
        title = _TITLE.search(text)
        return f"{status}, {media_type}: {_short(html.unescape(title[1] if title else _TAG.sub(' ', text)))}"
    return f"{status}, {media_type}: {_short(text.splitlines()[0])}"


def is_web_page(body: str | bytes) -> bool:
    """Return whether a body is HTML or XML, whatever its content type is."""
    return _text(body).lstrip().startswith("<")


def is_json_object(body: str | bytes, *, empty: bool) -> bool:
    """Return whether a body is a JSON object; `empty`: also one without keys."""
    try:
        value = json.loads(_text(body))
    except ValueError:
        return False
    return isinstance(value, dict) and (empty or bool(value))


def _json_message(text: str) -> str | None:
    """Return the server's own message; empty when its JSON has none, None when it is no JSON."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return ""
    return str(value.get("message") or value.get("error_message") or value.get("error") or "")


def _short(text: str) -> str:
    """Return a text as one line, without secrets, cut."""
    return " ".join(without_secrets(text).split())[:_CHARS]


def _text(body: str | bytes) -> str:
    return body if isinstance(body, str) else body.decode("utf-8", "replace")
