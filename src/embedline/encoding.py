"""Text files as UTF-8: decoding, and the likely encoding of a file that is in another one.

The encoding is found by its byte order mark or its zero bytes (UTF-16), else by trial: Cyrillic text decoded
with the right table consists mostly of the ten commonest letters, and with a wrong one it does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from embedline.errors import InputError
from embedline.quoting import command_line

_BOM = b"\xef\xbb\xbf"
_WIDE_BOMS = ((b"\xff\xfe\x00\x00", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
_SAMPLE_BYTES = 65_536
_HIGH = re.compile(rb"[\x80-\xff]+")
_CYRILLIC = ("CP1251", "KOI8-R", "CP866", "ISO-8859-5")
_COMMON_RUSSIAN = frozenset("оеаинтсрвл")  # 64 % of the letters of Russian text
_COMMON_WESTERN = frozenset("éèêëàâäáãåçîïíìñôöóòõøùûüúßæœÉÈÀÂÄÅÇÖÜ«»“”‘’–—…°§£€")


def wide_encoding(start: bytes) -> str | None:
    """Return the UTF-16 or UTF-32 that a file begins as: with a byte order mark, or with zero bytes."""
    for mark, name in _WIDE_BOMS:
        if start.startswith(mark):
            return name
    start = start[:_SAMPLE_BYTES]
    first, second, third, fourth = (start[place::4].count(0) for place in range(4))
    characters = len(start) // 4
    if characters >= 2:  # two or three of the four bytes of each are zero
        if third + fourth >= 1.8 * characters and first <= 0.1 * characters:
            return "UTF-32LE"
        if first + second >= 1.8 * characters and fourth <= 0.1 * characters:
            return "UTF-32BE"
    odd, even = start[1::2].count(0), start[::2].count(0)
    zeros = odd + even
    # Latin letters, digits and spaces have one zero byte each; a few zeros are damage of a UTF-8 file.
    if zeros < 4 or 33 * zeros < len(start) or max(odd, even) < 0.9 * zeros:
        return None
    return "UTF-16LE" if odd > even else "UTF-16BE"


def likely_encoding(raw: bytes) -> str | None:
    """Return the likely 8-bit encoding of text that is not UTF-8; None when no known one fits.

    >>> likely_encoding("вопрос,ответ".encode("cp1251"))
    'CP1251'
    """
    high = _HIGH.findall(raw[:_SAMPLE_BYTES])
    size = sum(map(len, high))
    if size == 0:
        return None
    text = b"".join(high)
    if 2 * sum(len(run) for run in high if len(run) == 1) > size:  # lone letters between Latin ones
        return "CP1252" if _share(text, "CP1252", _COMMON_WESTERN) >= 0.8 else None
    share, name = max((_share(text, name, _COMMON_RUSSIAN), name) for name in _CYRILLIC)
    return name if share >= 0.5 else None


def other_encoding(lines: Iterable[bytes]) -> str | None:
    """Return the encoding that most of a file's non-ASCII lines are in; None when it is UTF-8 or unknown."""
    good, bad, sample = 0, 0, b""
    for line in lines:
        if line.isascii():
            continue
        try:
            line.decode("utf-8")
            good += 1
        except UnicodeDecodeError:
            bad += 1
            sample += line if len(sample) < _SAMPLE_BYTES else b""
    return likely_encoding(sample) if bad > good else None


def wrong_encoding(encoding: str, where: str, name: str = "FILE") -> InputError:
    """Make the error for a file that is not in UTF-8.

    Args:
        where: the file, and its first line that cannot be read (file:line).
        name: of the file, for the command that converts it.
    """
    convert = command_line("iconv", "-f", encoding, "-t", "UTF-8", Path(name))
    return InputError(
        f"is not UTF-8: it seems to be {encoding}.",
        where=where,
        fix=f"Convert the file: {convert} > {command_line(Path(f'{name}.utf8'))}",
    )


def decode_text(raw: bytes, where: str) -> str:
    """Decode a whole text; a byte order mark is dropped.

    Raises:
        InputError: it is not UTF-8, with its likely encoding and the first line that cannot be decoded; or it
            holds a zero byte.
    """
    name = Path(where).name
    if encoding := wide_encoding(raw):
        raise wrong_encoding(encoding, f"{where}:1", name)
    if (zero := raw.find(b"\0")) >= 0:
        place = raw.count(b"\n", 0, zero) + 1
        raise InputError("holds a zero byte.", where=f"{where}:{place}", fix="Check the file: it is damaged.")
    try:
        return raw.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError:
        pass
    for number, line in enumerate(raw.split(b"\n"), 1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            if encoding := other_encoding(raw.split(b"\n")):
                raise wrong_encoding(encoding, f"{where}:{number}", name) from error
            raise InputError(
                f"is not UTF-8 (byte {error.start + 1}).",
                where=f"{where}:{number}",
                fix="Correct the line, or convert the file to UTF-8.",
            ) from error
    raise AssertionError("a text is UTF-8 when all of its lines are")


def read_text(path: Path) -> str:
    """Read a text file as UTF-8.

    Raises:
        InputError: it is not UTF-8; with its likely encoding and the first line that cannot be decoded.
        OSError: it cannot be read.
    """
    return decode_text(path.read_bytes(), str(path))


def _share(raw: bytes, encoding: str, common: frozenset[str]) -> float:
    """Return the share of the bytes that are common characters of the encoding."""
    return sum(character in common for character in raw.decode(encoding, "replace")) / len(raw)
