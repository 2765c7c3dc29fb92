"""A reader of YAML that refuses what YAML 1.1 reads silently, and texts made to exhaust their reader.

`2e-4` is a number, a repeated key is an error, nesting has a limit, and so have the values that aliases
repeat: ten lines of aliases to aliases stand for billions of values ("billion laughs").
"""

from __future__ import annotations

import copy
import re
from functools import lru_cache
from typing import Any

import yaml

MAX_DEPTH = 50  # levels of nesting
MAX_REPEATED = 100_000  # values that stand in a document by aliases
_TOO_DEEP = f"more than {MAX_DEPTH} levels of nesting"


class _Loader(yaml.SafeLoader):
    """A safe loader with the limits of this module."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._sizes: dict[int, int] = {}  # by the id of a node: its values, those of aliases included
        self._depth, self._repeated = 0, 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node; raise ComposerError beyond the limits."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._sizes:
                raise yaml.composer.ComposerError(
                    None, None, f"the alias {event.anchor!r} stands inside its own anchor", mark
                )
            self._repeated += self._sizes[id(node)]
            if self._repeated > MAX_REPEATED:
                raise yaml.composer.ComposerError(
                    None, None, f"aliases repeat more than {MAX_REPEATED:,} values", mark
                )
            return node
        if self._depth == MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, _TOO_DEEP, mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._sizes[id(node)] = 1 + sum(self._sizes[id(child)] for child in _children(node))
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Read a mapping; raise ConstructorError for a repeated key."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Read a node; raise ConstructorError for an impossible date (2001-13-45) or a number without end."""
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int):
                float(value)  # an OverflowError where it is: 0xfff… could not even be shown
            return value
        except (ValueError, OverflowError) as error:
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from error


def _children(node: yaml.Node | None) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def read_yaml(text: str) -> Any:
    """Read the value of a YAML document.

    Raises:
        yaml.YAMLError: the text is not YAML, a mapping holds a key twice, or a limit is exceeded; with line
            and column.
    """
    return copy.deepcopy(_read(text))


@lru_cache(maxsize=8)  # a plan reads its preset several times, and 2,000 sources take a second
def _read(text: str) -> Any:
    return yaml.load(text, _Loader)
