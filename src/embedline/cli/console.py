"""Standard output and error of the command: signs that a terminal lacks, and a console that goes away.

A terminal's encoding may lack our signs (a Windows code page, PYTHONIOENCODING=ascii), its window may be
closed, and a pipe's reader may have read enough. None of this is a failure of the work.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from encodings import ascii as plain_ascii
from pathlib import Path
from typing import Any, TextIO

from embedline.errors import os_reason

_REPLACEMENTS = "embedline.replacements"
_ASCII = "embedline_ascii"
_PLAIN = {"✓": "+", "✗": "x", "–": "-", "−": "-", "…": "...", "→": "->", "×": "x", "≥": ">=", "≤": "<="}


def prepare_streams() -> None:
    """Make both streams replace what their encoding lacks: our signs by plain ones, other text by ?.

    A stream that the caller closed becomes one to the null device.
    """
    codecs.register_error(_REPLACEMENTS, _replacement)
    codecs.register(lambda name: _ascii_codec() if name == _ASCII else None)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        setattr(sys, name, _prepared(stream))


@contextlib.contextmanager
def optional_console() -> Iterator[None]:
    """Go on without the console when it is lost during the block: output is dropped, SIGHUP does nothing."""
    files = _files()
    for file in files:
        file.optional = True
    try:
        with _hangup_ignored():
            yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for file in files:
            file.optional = False


def lost_output() -> OSError | None:
    """Return why standard output or error could not be written; None when it could."""
    return next((file.lost for file in _files() if file.lost), None)


def report_lost_output(error: OSError) -> int:
    """Report output that could not be written, and return the exit code; a closed pipe needs no message."""
    if not isinstance(error, BrokenPipeError):
        sys.stderr.write(f"error: the output cannot be written ({os_reason(error)}).\n")
    return 1


class _OutputFile(io.FileIO):
    """File descriptor of a stream. After a write that failed its output is dropped.

    Args:
        optional: whether a write that fails is no error.
    """

    optional = False
    lost: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.lost = error
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            if not self.optional:
                raise
            return len(data)


def _files() -> list[_OutputFile]:
    """Return the files of both streams as `prepare_streams` opened them."""
    raws = (getattr(getattr(stream, "buffer", None), "raw", None) for stream in (sys.stdout, sys.stderr))
    return [raw for raw in raws if isinstance(raw, _OutputFile)]


def _prepared(stream: TextIO) -> TextIO:
    """Return a stream to the same file descriptor; one that has none of its own stays as it is."""
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # PYTHONUNBUFFERED leaves the buffer out
    if not isinstance(stream, io.TextIOWrapper) or not isinstance(raw, io.FileIO):
        return stream
    # typer takes a stream in ASCII for misconfigured and writes UTF-8 to it.
    ascii_only = codecs.lookup(stream.encoding).name == "ascii"
    # surrogateescape: UTF-8 that writes the bytes of a file name as they are.
    escaped = stream.errors == "surrogateescape"
    return io.TextIOWrapper(
        io.BufferedWriter(_OutputFile(stream.fileno(), "wb", closefd=False)),
        encoding=_ASCII if ascii_only else stream.encoding,
        errors="surrogateescape" if escaped and not ascii_only else _REPLACEMENTS,
        line_buffering=True,
    )


@contextlib.contextmanager
def _hangup_ignored() -> Iterator[None]:
    """Ignore SIGHUP, which a closed terminal sends. Not SIG_IGN: the steps would inherit it."""
    try:
        before = signal.signal(signal.SIGHUP, lambda *_: None)
    except (AttributeError, ValueError):  # Windows; or not the main thread, which alone has handlers
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _replacement(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in text), error.end


def _ascii_codec() -> codecs.CodecInfo:
    codec = plain_ascii.getregentry()
    return codecs.CodecInfo(
        codec.encode,
        codec.decode,
        codec.streamreader,
        codec.streamwriter,
        codec.incrementalencoder,
        codec.incrementaldecoder,
        name=_ASCII,
    )
