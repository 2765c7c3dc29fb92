"""Errors for the user: what went wrong, where, and what to do."""

from __future__ import annotations

import re

# scheme://user:password@host, and for HTTP also scheme://token@host
_PASSWORD = re.compile(r"\b([a-zA-Z][a-zA-Z0-9+.-]*://[^\s/:@?#]*):[^\s/?#]+@")
_TOKEN = re.compile(r"\b(https?://)[^\s/:@?#]+@")
# scheme://host/path?password=… of database drivers, and ?token=… of presigned addresses
_IN_QUERY = re.compile(
    r"\b([a-zA-Z][a-zA-Z0-9+.-]*://[^\s\"'?#]*\?(?:[^\s\"'#]*&)?"
    r"(?:password|passwd|pwd|sslpassword|(?:access_|api_)?token|api_?key|secret|sig(?:nature)?|X-Amz-Signature)=)"
    r"(?!\*\*\*)[^\s\"'&#]+",
    re.IGNORECASE,
)


def without_passwords(text: str) -> str:
    """Return `text` with the passwords of all addresses in it replaced by ***."""
    text = _TOKEN.sub(r"\1***@", _PASSWORD.sub(r"\1:***@", text))
    while (masked := _IN_QUERY.sub(r"\1***", text)) != text:  # masks one parameter of each address at a time
        text = masked
    return text


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 300 characters; its type where it has no message.

    Enough of another library's error to act on, inside a message of this program.
    """
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


class EmbedlineError(Exception):
    """A failure that the user can fix or report.

    Args:
        what: what is wrong, as one sentence.
        where: file, line, config key or address.
        fix: what to do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = without_passwords(what), without_passwords(where), fix
        super().__init__(self.__str__())

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head} {self.fix}".rstrip() if self.fix else head


class InputError(EmbedlineError):
    """Unusable configuration, data or environment: exit code 2."""

    exit_code = 2


class StepError(EmbedlineError):
    """Failure of a step during its work: exit code 1."""


class RefusedError(EmbedlineError):
    """Refusal of a model that did not pass the gate: exit code 3."""

    exit_code = 3


class ConflictError(EmbedlineError):
    """Conflict: the champion is not the expected one, because it was moved meanwhile: exit code 4."""

    exit_code = 4


class Stopped(BaseException):
    """The end by SIGTERM, which is no failure: the next try continues where the work stopped.

    Not an `Exception`, so that no handler takes it for a failure. Exit code 143 (128 + SIGTERM) is not among
    the codes for which a retry is useless.
    """

    exit_code = 143
