"""Redaction: secrets in texts that leave the process are replaced by ***.

A secret is the value of an environment variable that is named as one (KFP_TOKEN, AWS_SECRET_ACCESS_KEY,
PGPASSWORD, …), the password of an address in any variable (HTTPS_PROXY), and what a reference to a secret
was resolved to. It is found as it is, URL-encoded, in base64 (`Authorization: Basic`), and escaped as
repr(), JSON and HTML do it. Values of fewer than six characters are not searched for, because they would
hide ordinary words; the password of an address is hidden at every length.

Texts pass here where they are made (error messages, records, tags) and where they are written
(`protect_process`: standard output and standard error).
"""

from __future__ import annotations

import base64
import functools
import html
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO, cast
from urllib.parse import unquote

MIN_CHARS = 6
_WORD_CHARS = 12  # a word of fewer letters may be in a text by chance
_HIDDEN = "***"

_NAMED = re.compile(
    r"(?:^|_|PG)(?:TOKEN|PASSWORD|PASSWD|PASSPHRASE|SECRET|(?:SECRET|API|ACCESS|PRIVATE|ENCRYPTION)_?KEY|ACCESS_KEY_ID|"
    r"CONNECTION_STRING)$|^MYSQL_PWD$",
    re.IGNORECASE,
)
_BASE64 = "[A-Za-z0-9+/_-]?"  # the characters beside the secret's own hold some bits of it

# scheme://user:password@host. A password may hold / ? # and @. Databases take everything up to the @ for it
# (sqlalchemy.make_url); elsewhere `host:5000/path@x` has a port and no password.
_LONGEST = (
    2000  # characters of a password (a cloud's token): the time for a long text stays proportional to it
)
_USER = r"://[^\s/:@?#\[]*"
_NO_PORT = r"(?!\d*(?:[/?#,;\"'<>(){}\[\]\s]|$))"
_DATABASE = rf"\b((?:postgres|mysql|mariadb|mssql|oracle|redis|mongodb|amqp)[a-z0-9+._-]{{0,30}}{_USER}):"
_PASSWORDS = (
    re.compile(rf"{_DATABASE}([^\s\"]{{1,{_LONGEST}}})@", re.IGNORECASE),
    re.compile(
        rf"\b(?!file:)([a-zA-Z][a-zA-Z0-9+.-]{{0,30}}{_USER}):(?=[^\s/?#\"]{{1,{_LONGEST}}}@|{_NO_PORT})"
        rf"([^\s\"]{{1,{_LONGEST}}})@"
    ),
    re.compile(rf"\b(?!file:)([a-zA-Z][a-zA-Z0-9+.-]{{0,30}}{_USER}):{_NO_PORT}(\S{{1,{_LONGEST}}})@"),
)
# postgresql://user:password/database?host=…: no host follows the password, and it stands where a port could
_NO_HOST = re.compile(rf"{_DATABASE}(?!\*\*\*){_NO_PORT}[^\s\"/@]+(?![^\s\"]{{0,{_LONGEST}}}@)", re.I)
# https://token@host
_TOKEN = re.compile(r"\b(https?://)[^\s/:@?#]+@")
# scheme://host/path?password=… of database drivers, and ?token=… of presigned addresses
_IN_QUERY = re.compile(
    r"\b([a-zA-Z][a-zA-Z0-9+.-]{0,30}://[^\s\"'?#]*\?(?:[^\s\"'#]*&)?"
    r"(?:password|passwd|pwd|sslpassword|(?:access_|api_)?token|api_?key|secret|sig(?:nature)?|X-Amz-Signature|"
    r"X-Amz-Security-Token)=)"
    r"(?!\*\*\*)[^\s\"&]+",
    re.IGNORECASE,
)
# Authorization: Bearer … of any token (a pod's own): clients show a header that they cannot send
_HEADER = re.compile(r"\b(bearer|basic)(\s+)(?=[^\s'\"]*\d)[\w.~+/=-]{12,}", re.IGNORECASE)
_ALNUM = re.compile(r"[A-Za-z0-9]+")

_resolved: set[str] = set()


def keep_secret(value: str) -> None:
    """Redact this value from now on: a reference to a secret was resolved to it."""
    _resolved.add(value)


def without_secrets(text: str) -> str:
    """Return `text` with every known secret, and the passwords of all addresses, replaced by ***."""
    for anchor, pattern in _forms(_known()):
        if anchor in text:
            text = pattern.sub(_HIDDEN, text)
    return without_passwords(text)


def shows_secret(text: str) -> bool:
    """Return whether `text` holds a known secret; a password that is a short word is taken for a word."""
    values = tuple(value for value in _known() if len(value) >= _WORD_CHARS or not value.isalpha())
    return any(anchor in text and pattern.search(text) for anchor, pattern in _forms(values))


def without_passwords(text: str) -> str:
    """Return `text` with the passwords of all addresses and Authorization headers in it replaced by ***."""
    text = _HEADER.sub(rf"\1\2{_HIDDEN}", text)
    if "://" not in text:
        return text
    for pattern in _PASSWORDS:
        text = pattern.sub(rf"\1:{_HIDDEN}@", text)
    text = _NO_HOST.sub(rf"\1:{_HIDDEN}", text)
    text = _TOKEN.sub(rf"\1{_HIDDEN}@", text)
    while (masked := _IN_QUERY.sub(rf"\1{_HIDDEN}", text)) != text:  # masks one parameter of each at a time
        text = masked
    return text


def stripped(secret: str) -> str:
    """Return a secret without the line break or byte order mark that a file or an editor put around it."""
    return secret.strip().strip("\ufeff").strip()


def strip_secret_variables() -> None:
    """Strip the environment's secrets: libraries read them there, and put a line break into a header."""
    for name, value in _variables():
        if (_NAMED.search(name) or name.endswith("_USERNAME")) and stripped(value) != value:
            os.environ[name] = stripped(value)


def protect_process() -> None:
    """Strip the environment's secrets, and redact standard output and standard error from now on."""
    strip_secret_variables()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or isinstance(stream, RedactedStream):
            continue
        redacted = cast(TextIO, RedactedStream(stream))
        setattr(sys, name, redacted)
        for handler in _handlers():  # of a library that has set up logging before
            if getattr(handler, "stream", None) is stream:
                cast("logging.StreamHandler[TextIO]", handler).setStream(redacted)


class RedactedStream:
    """A stream that redacts each line as a whole: a secret may arrive in several writes.

    An unfinished line is held back until its end or a flush.
    """

    def __init__(self, stream: Any) -> None:
        self._stream, self._held = stream, ""
        self._binary = not hasattr(stream, "encoding")
        self._lock = threading.RLock()

    def write(self, data: Any) -> int:
        """Write the finished lines of what was written so far."""
        text = bytes(data).decode("utf-8", "surrogateescape") if self._binary else data
        with self._lock:
            whole, end, self._held = (self._held + text).rpartition("\n")
            self._emit(whole + end)
        return len(data)

    def writelines(self, lines: Any) -> None:
        """Write each of the lines."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write the unfinished line, too."""
        with self._lock:
            held, self._held = self._held, ""
            self._emit(held)
        self._stream.flush()

    @functools.cached_property
    def buffer(self) -> RedactedStream:
        """The same for bytes."""
        return RedactedStream(self._stream.buffer)

    def _emit(self, text: str) -> None:
        if text:
            redacted = without_secrets(text)
            self._stream.write(redacted.encode("utf-8", "surrogateescape") if self._binary else redacted)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_stream"], name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._stream)


def _handlers() -> Iterator[logging.Handler]:
    """List the handlers of every logger."""
    for logger in (logging.getLogger(), *logging.root.manager.loggerDict.values()):
        yield from getattr(logger, "handlers", [])


def _known() -> tuple[str, ...]:
    """Return the secrets of this process, the longest first; of several lines, each line as well."""
    values = set(_resolved)
    for name, value in _variables():
        if _NAMED.search(name):
            values.add(value)
        if "://" in value:
            values |= {form for text in _passwords_in(value) for form in (text, unquote(text))}
    values |= {line for value in values for line in value.splitlines()}
    long_enough = {short for value in values if len(short := stripped(value)) >= MIN_CHARS}
    return tuple(sorted(long_enough, key=lambda value: (-len(value), value)))


def _variables() -> list[tuple[str, str]]:
    """List the environment; another thread may remove a variable meanwhile."""
    return [(name, os.environ.get(name, "")) for name in list(os.environ)]


def _passwords_in(text: str) -> Iterator[str]:
    """Yield the passwords of the addresses in a text."""
    for pattern in _PASSWORDS:
        yield from (password for _, password in pattern.findall(text))


@functools.lru_cache(maxsize=8)
def _forms(values: tuple[str, ...]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Return the patterns of the values in all their forms, each with letters that stand in every match."""
    forms = []
    for value in values:
        forms.append((_anchor(value), re.compile("".join(map(_spellings, value)))))
        for core in _base64_cores(value):
            coded = core.replace("+", r"(?:[+-]|%(?:25)*2[Bb])").replace("/", "(?:[/_]|%(?:25)*2[Ff])")
            forms.append((_anchor(core), re.compile(f"{_BASE64}{coded}{_BASE64}(?:=|%(?:25)*3[Dd])*")))
    return tuple(forms)


def _anchor(value: str) -> str:
    """Return the longest run of letters and digits: no form changes them, and it is found quickly."""
    return max(_ALNUM.findall(value), key=len, default="")


@functools.cache
def _spellings(char: str) -> str:
    """Return a pattern of one character as it is, URL-encoded, or escaped by repr(), JSON or HTML."""
    if char.isascii() and char.isalnum():
        return char
    code, encodings = ord(char), {char.encode("utf-8", "replace")}
    if code < 256:
        encodings.add(char.encode("latin-1"))
    escapes = {re.escape(escaped[1:-1].lstrip("\\")) for escaped in (repr(char), json.dumps(char))}
    escapes |= {f"x{code:02x}", f"u{code:04x}", f"U{code:08x}"}
    forms = [rf"\\*{re.escape(char)}", re.escape(html.escape(char)), rf"&\#(?:0*{code}|[xX]0*(?i:{code:x}));"]
    forms += ["(?i:" + "".join(f"%(?:25)*{byte:02x}" for byte in coded) + ")" for coded in encodings]
    forms += ["".join(rf"\\+x{byte:02x}" for byte in coded) for coded in encodings]
    forms += [rf"\\+(?i:{escape})" for escape in escapes if escape]
    if char == " ":
        forms.append(r"\+")
    return f"(?:{'|'.join(sorted(forms, key=len, reverse=True))})"


def _base64_cores(value: str) -> Iterator[str]:
    """Yield the characters that are the value's own in base64, after none, one or two bytes of other text."""
    encodings = {value.encode("utf-8", "replace")}
    if all(ord(char) < 256 for char in value):
        encodings.add(value.encode("latin-1"))
    for coded in encodings:
        for before in range(3):
            text = base64.b64encode(b"\0" * before + coded).decode()
            yield text[(before * 8 + 5) // 6 : (before + len(coded)) * 8 // 6]
