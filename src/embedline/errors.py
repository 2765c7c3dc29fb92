"""The errors a user meets: what went wrong, where, and what to do about it."""

from __future__ import annotations


class EmbedlineError(Exception):
    """A failure that the user can act on.

    Args:
        what: what is wrong, as one sentence.
        where: the file, line, config key or address it concerns.
        fix: what to do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(self.__str__())

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head} {self.fix}".rstrip() if self.fix else head


class InputError(EmbedlineError):
    """The configuration, the data or the environment is not usable: exit code 2."""

    exit_code = 2


class StepError(EmbedlineError):
    """A step of the line failed while working: exit code 1."""


class Stopped(BaseException):
    """SIGTERM came: the work is not wrong, it goes on where it stopped when it is tried again.

    No `Exception`, so that nothing on the way out takes it for a failure. Exit code 143 (128 + SIGTERM): not
    among the codes that say that trying again is no use.
    """

    exit_code = 143
