"""One table of prompts for training, mining, evaluation, export and the saved model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from embedline.config.data import SYMMETRIC, TaskType
from embedline.config.model import Prompt

Side = Literal["query", "document"]
SEARCH = "short-long"
# mteb's names of task types, and ours.
MTEB_TYPES = {
    "Retrieval": SEARCH,
    "Reranking": SEARCH,
    "InstructionRetrieval": SEARCH,
    "InstructionReranking": SEARCH,
    "STS": "sts",
    "PairClassification": "sts",
    "Summarization": "sts",
    "BitextMining": "bitext",
    "Classification": "classification",
    "MultilabelClassification": "classification",
    "Clustering": "clustering",
}


@dataclass(frozen=True)
class PromptTable:
    """Prompts by task or source name, then by task type, then `default`."""

    entries: Mapping[str, Prompt] = field(default_factory=dict)

    def prompt(self, side: Side, *, name: str = "", task_type: str = "") -> str:
        """Return the words to put before a text; empty when the table has no entry for it.

        Args:
            side: whether the text is a query or a document.
            name: of the source or task.
            task_type: one of the configuration's; search when empty. Both sides of a symmetric type are
                queries.
        """
        of_query = side == "query" or task_type in SYMMETRIC
        for key in (name, task_type or SEARCH, "default"):
            if key in self.entries:
                return self.entries[key].words(of_query=of_query)
        return ""

    def as_st_prompts(self) -> dict[str, str]:
        """Return the table as sentence-transformers' `prompts`, which mteb reads too.

        `query` and `document` are the prompts of search, as `encode_query` and `encode_document` read them.
        Each entry, task type and symmetric mteb type is added as NAME (a query; both sides of a symmetric
        task) and, where documents get other words, as NAME-document, which mteb looks up first.
        """
        search = {"query": self.prompt("query"), "document": self.prompt("document")}
        types = {name: name for name in get_args(TaskType)}
        types |= {name: kind for name, kind in MTEB_TYPES.items() if kind in SYMMETRIC}
        entries = {name: "" for name in self.entries if name != "default"} | types
        prompts: dict[str, str] = {}
        for name, task_type in entries.items():
            query, document = (self.prompt(side, name=name, task_type=task_type) for side in get_args(Side))
            prompts |= {name: query} if query == document else {name: query, f"{name}-document": document}
        # An entry named `query` or `document` must not replace the sides.
        return search | prompts | search if any({**prompts, **search}.values()) else search

    def as_json(self) -> dict[str, dict[str, str]]:
        """Return the entries as JSON: each with `instruct`, or with `query` and `document`."""
        sides = {"query", "document"}
        return {
            key: prompt.model_dump(include={"instruct"} if prompt.instruct else sides)
            for key, prompt in self.entries.items()
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Mapping[str, str]]) -> PromptTable:
        """Make the table from what `as_json` returned."""
        return cls({key: Prompt(**prompt) for key, prompt in value.items()})


def is_long(side: Side, task_type: str) -> bool:
    """Return whether a text is cut at the document length rather than at the query length."""
    return side == "document" or task_type.startswith("long") or task_type in SYMMETRIC
