"""Removal of HTML from technical text, where code is kept; removal of all markup for comparisons."""

from __future__ import annotations

import re
from collections.abc import Set
from html import unescape
from html.entities import html5
from html.parser import HTMLParser

_NO_END = """
    area base body br col dd dt embed head hr html img input li link meta option p source tbody td
    tfoot th thead tr track wbr
"""
_BOTH_ENDS = """
    a abbr address article aside audio b blockquote button caption center cite code colgroup del
    details dfn div dl em figcaption figure font footer form h1 h2 h3 h4 h5 h6 header i iframe ins
    kbd label main mark nav noscript ol pre q s samp script section select small span strike strong
    style sub summary sup svg table textarea title tt u ul var video
"""
_ENDS_A_LINE = """
    address article aside blockquote br caption dd details div dl dt figcaption figure footer form
    h1 h2 h3 h4 h5 h6 header hr li main nav ol option p pre section summary table tbody tfoot thead
    title tr ul
"""
# Elements whose end tag may be left out, or that have none; all others count as tags only with both ends.
_UNPAIRED, _PAIRED = frozenset(_NO_END.split()), frozenset(_BOTH_ENDS.split())
_BLOCKS = frozenset(_ENDS_A_LINE.split())
_CELLS = frozenset({"td", "th"})
_SILENT = frozenset({"script", "style"})

_ANGLE = re.compile(
    r"""<!--.*?-->|<(?:(/?)([a-zA-Z][a-zA-Z0-9]*)((?:[\s/](?:"[^"<]*"|'[^'<]*'|[^<>"'])*)?)>)?""", re.DOTALL
)
_ATTRIBUTES = re.compile(
    r"""(?:\s+[a-zA-Z_:@][-\w:.]*(?:\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'=<>`]+))?)*\s*/?""", re.ASCII
)
_CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)
_AMPERSANDS = re.compile(r"&(?:amp;)*(#\d{1,7};|#[xX][0-9a-fA-F]{1,6};|[a-zA-Z][a-zA-Z0-9]*;)?")

_MAYBE_MARKUP = re.compile(r"[\[\]`*_~<>&|#]|^\s*[-+>]|^\s*\d+[.)]", re.MULTILINE)
# What a page shows of Markdown: the text of a link or an image, a word without its emphasis.
_MARKDOWN = (
    (re.compile(r"^\s*\[[^\]\n]+\]:\s*\S.*$", re.MULTILINE), ""),  # [name]: where a link goes
    (re.compile(r"!?\[([^\[\]]*)\]\((?:[^()\n]|\([^()\n]*\))*\)"), r"\1"),  # [text](address)
    (re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]]*)\]\]"), r"\1"),  # [[page|text]]
    (re.compile(r"(?<!\w)\[([^\[\]^][^\[\]]*)\]\[[^\[\]]*\]"), r"\1"),  # [text][name]
    (re.compile(r"\[\^[^\]\s]+\]"), ""),  # [^note]
    (re.compile(r"<[a-z][a-z0-9+.-]*:[^<>\s]+>", re.IGNORECASE), ""),  # <address>
    (re.compile(r"^\s*(?:#{1,6}|[-+*>]|\d+[.)])\s+", re.MULTILINE), ""),  # headings, lists, quotations
    (re.compile(r"^\s*```.*$", re.MULTILINE), ""),
    (re.compile(r"(?<!\w)(\*{1,3}|_{1,3}|~~|`{1,2})(?=\S)(.+?)(?<=\S)\1(?!\w)"), r"\2"),  # **emphasis**
    (re.compile(r"^[\s|:-]+$|\|", re.MULTILINE), " "),  # tables
)
_ANY_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")


def strip_markup(text: str) -> str:
    """Remove Markdown, HTML tags and character references, of code as well; for comparisons only."""
    if not _MAYBE_MARKUP.search(text):
        return text
    for pattern, shown in _MARKDOWN:
        text = pattern.sub(shown, text)
    return unescape(_ANY_TAG.sub("", text)) if "<" in text or "&" in text else text


def strip_html(text: str) -> str:
    """Remove HTML tags and comments and resolve character references; leave code in backticks as it is."""
    parts = _CODE.split(text) if "`" in text else [text]
    parts[::2] = [_strip(part) for part in parts[::2]]
    return "".join(parts)


def _strip(text: str) -> str:
    if "<" in text:
        tags = _ANGLE.findall(text)
        openers = {n.lower() for slash, n, rest in tags if n and not slash and _ATTRIBUTES.fullmatch(rest)}
        closers = {n.lower() for slash, n, rest in tags if n and slash and not rest.strip()}
        text = _ANGLE.sub(lambda match: _escape_unless_tag(match, openers, closers), text)
    parser = _TextOf()
    parser.feed(_AMPERSANDS.sub(_escape_unless_reference, text) if "&" in text else text)
    parser.close()
    return "".join(parser.parts)


def _escape_unless_reference(match: re.Match[str]) -> str:
    """Keep references with a semicolon only: a browser reads `&parameter=1` in an address as `¶meter=1`."""
    reference = match.group(1) or ""
    known = reference.startswith("#") or reference in html5
    return f"&{reference}" if known else f"&amp;{reference}"


def _escape_unless_tag(match: re.Match[str], openers: Set[str], closers: Set[str]) -> str:
    """Keep a tag or a comment; escape any other `<`, so that the parser reads it as text."""
    raw, (slash, name, rest) = match.group(), match.groups()
    if raw.startswith("<!--"):
        return raw
    name = (name or "").lower()
    if slash:
        real = not rest.strip() and name in openers and name in _PAIRED | _UNPAIRED
    else:
        real = bool(name) and _ATTRIBUTES.fullmatch(rest) is not None
        real = real and (name in _UNPAIRED or (name in _PAIRED and name in closers))
    return raw if real else "&lt;" + raw[1:]


class _TextOf(HTMLParser):
    """A parser that collects the text between tags; block elements end a line, cells end a word."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in _SILENT
        self._separate(tag)

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in _SILENT and self._silent > 0
        self._separate(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._separate(tag)

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data)

    def _separate(self, tag: str) -> None:
        if tag in _BLOCKS:
            self.parts.append("\n")
        elif tag in _CELLS:
            self.parts.append(" ")
