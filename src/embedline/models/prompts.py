"""One table of prompts for training, mining, evaluation, export and the saved model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from embedline.config.model import Prompt

Side = Literal["query", "document"]


@dataclass(frozen=True)
class PromptTable:
    """Prompts by task or source name, then by task type, then `default`."""

    entries: Mapping[str, Prompt] = field(default_factory=dict)

    def prompt(self, side: Side, *, name: str = "", task_type: str = "") -> str:
        """The words to put before a text of this side; empty when the table has nothing for it."""
        for key in (name, task_type, "default"):
            if key in self.entries:
                return self.entries[key].query if side == "query" else self.entries[key].document
        return ""

    def as_json(self) -> dict[str, dict[str, str]]:
        return {key: prompt.model_dump() for key, prompt in self.entries.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Mapping[str, str]]) -> PromptTable:
        return cls({key: Prompt(**prompt) for key, prompt in value.items()})
