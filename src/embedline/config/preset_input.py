"""The text of a preset as the value of one input of the pipeline: JSON, compressed where it is long."""

from __future__ import annotations

import base64
import binascii
import json
import lzma
from typing import Any

from embedline.config.limits import PRESET, argument_bytes
from embedline.errors import InputError

_COMPRESSED = "xz:"  # then base64
_MOST_BYTES = 50_000_000  # of a text, decompressed


def is_text(preset: str) -> bool:
    """Return whether `preset` is the text of a preset, not a name or a path."""
    return preset.startswith(("{", _COMPRESSED))


def pack(values: dict[str, Any]) -> str:
    """Return a preset's values as text without a line break.

    >>> pack({"name": "docs"})
    '{"name": "docs"}'
    """
    text = json.dumps(values, ensure_ascii=False, default=str)
    if argument_bytes(text) <= PRESET:
        return text
    return _COMPRESSED + base64.b64encode(lzma.compress(text.encode())).decode()


def unpack(preset: str) -> str:
    """Return the JSON of a preset's text.

    Raises:
        InputError: it was cut off or changed.
    """
    if not preset.startswith(_COMPRESSED):
        return preset
    try:
        packed = base64.b64decode(preset.removeprefix(_COMPRESSED), validate=True)
        reader = lzma.LZMADecompressor()
        text = reader.decompress(packed, max_length=_MOST_BYTES).decode()
    except (binascii.Error, lzma.LZMAError, EOFError, UnicodeDecodeError) as error:
        raise InputError("is not a preset: its compressed text is damaged.", where="preset") from error
    if not reader.eof:
        raise InputError("is not a preset: its compressed text is cut off, or too long.", where="preset")
    return text
