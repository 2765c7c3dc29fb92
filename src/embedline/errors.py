"""The errors a user meets: what went wrong, where, and what to do about it."""

from __future__ import annotations

import re

# scheme://user:password@host, and for HTTP also scheme://token@host
_PASSWORD = re.compile(r"\b([a-zA-Z][a-zA-Z0-9+.-]*://[^\s/:@?#]*):[^\s/?#]+@")
_TOKEN = re.compile(r"\b(https?://)[^\s/:@?#]+@")
# scheme://host/path?password=… as database drivers take it, and ?token=… of presigned addresses
_IN_QUERY = re.compile(
    r"\b([a-zA-Z][a-zA-Z0-9+.-]*://[^\s\"'?#]*\?(?:[^\s\"'#]*&)?"
    r"(?:password|passwd|pwd|sslpassword|(?:access_|api_)?token|api_?key|secret|sig(?:nature)?|X-Amz-Signature)=)"
    r"(?!\*\*\*)[^\s\"'&#]+",
    re.IGNORECASE,
)


def without_passwords(text: str) -> str:
    """`text` with the passwords of all addresses in it blotted out."""
    text = _TOKEN.sub(r"\1***@", _PASSWORD.sub(r"\1:***@", text))
    while (blotted := _IN_QUERY.sub(r"\1***", text)) != text:  # one of each address at a time
        text = blotted
    return text


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 300 characters; its type where it has no message.

    Enough of another library's error to act on, inside a message of this program.
    """
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


class EmbedlineError(Exception):
    """A failure that the user can act on.

    Args:
        what: what is wrong, as one sentence.
        where: the file, line, config key or address it concerns.
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
    """The configuration, the data or the environment is not usable: exit code 2."""

    exit_code = 2


class StepError(EmbedlineError):
    """A step of the line failed while working: exit code 1."""


class RefusedError(EmbedlineError):
    """The gate did not let this model pass: exit code 3."""

    exit_code = 3


class ConflictError(EmbedlineError):
    """The champion is not the one that was expected, because somebody else has moved it: exit code 4."""

    exit_code = 4


class Stopped(BaseException):
    """SIGTERM came: the work is not wrong, it goes on where it stopped when it is tried again.

    No `Exception`, so that nothing on the way out takes it for a failure. Exit code 143 (128 + SIGTERM): not
    among the codes that say that trying again is no use.
    """

    exit_code = 143
