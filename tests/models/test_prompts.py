"""The prompt table against the two recipes, mteb's order of look-up and the names in the saved model."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from embedline.config.data import SYMMETRIC, TaskType
from embedline.config.load import validate_config
from embedline.config.model import Prompt
from embedline.errors import InputError
from embedline.models.prompts import MTEB_TYPES, PromptTable, is_long

NOMIC = PromptTable(
    {
        "default": Prompt(query="search_query: ", document="search_document: "),
        "sts": Prompt(query="classification: "),
        "classification": Prompt(query="classification: "),
        "clustering": Prompt(query="clustering: "),
    }
)
GIGA = PromptTable(
    {
        "default": Prompt(instruct="Given a question, find the answer"),
        "sts": Prompt(instruct="Retrieve semantically similar text"),
        "TERRa": Prompt(instruct="Does the premise entail the hypothesis?"),
        "faq": Prompt(instruct="Find the article of the help desk"),
        "headlines": Prompt(query="title: ", document="text: "),
    }
)
ASKED = "Instruct: Given a question, find the answer\nQuery: "


@pytest.mark.parametrize("task_type", get_args(TaskType))
def test_an_instruction_precedes_queries_and_symmetric_texts(
    task_type: str,
) -> None:
    table = PromptTable({task_type: Prompt(instruct="do it")})
    assert table.prompt("query", task_type=task_type) == "Instruct: do it\nQuery: "
    symmetric = task_type in {"sts", "bitext", "classification", "clustering"}
    assert (task_type in SYMMETRIC) == symmetric
    assert table.prompt("document", task_type=task_type) == ("Instruct: do it\nQuery: " if symmetric else "")


def test_nomics_prefixes_are_entries_of_the_table() -> None:
    assert NOMIC.prompt("query") == "search_query: "
    assert NOMIC.prompt("document", task_type="short-long") == "search_document: "
    for side in ("query", "document"):
        assert NOMIC.prompt(side, task_type="sts") == "classification: "  # type: ignore[arg-type]
        assert NOMIC.prompt(side, task_type="clustering") == "clustering: "  # type: ignore[arg-type]
        # Without an entry of its own a symmetric task gets the query's words on both sides.
        assert NOMIC.prompt(side, task_type="bitext") == "search_query: "  # type: ignore[arg-type]


def test_prompts_are_looked_up_by_name_then_type_then_default() -> None:
    assert GIGA.prompt("query", name="headlines", task_type="sts") == "title: "
    assert GIGA.prompt("document", name="headlines", task_type="sts") == "title: "  # no documents in sts
    assert GIGA.prompt("document", name="headlines", task_type="short-long") == "text: "
    assert GIGA.prompt("query", name="unknown", task_type="sts").startswith("Instruct: Retrieve semantically")
    assert GIGA.prompt("query", name="unknown", task_type="long-short") == ASKED
    assert GIGA.prompt("document", name="unknown", task_type="long-short") == ""
    assert PromptTable().prompt("query") == ""


def test_a_text_without_a_task_type_gets_the_search_prompt() -> None:
    table = PromptTable({"short-long": Prompt(query="s: "), "default": Prompt(query="q: ", document="d: ")})
    assert (table.prompt("query"), table.prompt("document")) == ("s: ", "")
    assert table.prompt("query", task_type="short-short") == "q: "


def test_an_entry_has_an_instruction_or_words_by_side() -> None:
    for words in ({"query": "q: "}, {"document": "d: "}):
        with pytest.raises(ValidationError, match="instruct excludes query and document"):
            Prompt(instruct="do it", **words)


def test_a_run_refuses_an_invalid_prompt_by_name() -> None:
    def run(prompts: Any) -> Any:
        values = {"name": "r", "data": {"sources": [{"path": "p.jsonl"}]}, "prompts": prompts}
        return validate_config(values, where="preset").prompts

    assert run({"sts": {"query": "a: ", "document": "a: "}, "bitext": {"query": "a: "}, "default": {}})
    with pytest.raises(InputError, match=r"prompts\.sts\.document"):
        run({"sts": {"query": "a: ", "document": "b: "}})
    with pytest.raises(InputError, match=r"prompts\.document: .*default"):
        run({"document": {"document": "d: "}})
    with pytest.raises(InputError, match=r"prompts\.default: instruct excludes query and document"):
        run({"default": {"instruct": "do it", "query": "q: "}})


@pytest.mark.parametrize("table", [NOMIC, GIGA, PromptTable()])
def test_the_table_survives_json(table: PromptTable) -> None:
    again = PromptTable.from_json(json.loads(json.dumps(table.as_json())))
    assert again == table


def test_an_older_card_is_read() -> None:
    old = {"default": {"query": "q: ", "document": ""}}
    assert PromptTable.from_json(old).as_json() == old


@pytest.mark.parametrize("table", [NOMIC, GIGA])
def test_mteb_finds_the_tables_words_in_the_saved_prompts(table: PromptTable) -> None:
    """mteb looks up by name and side, name, type and side, type, side; it must end with our words."""
    import mteb
    from mteb.models.abs_encoder import get_prompt
    from mteb.types import PromptType

    named = table.as_st_prompts()
    tasks = ["RUParaPhraserSTS", "TERRa", "GeoreviewClassification", "RuBQRetrieval", "RuBQReranking"]
    tasks += [
        "GeoreviewClusteringP2P",
        "BibleNLPBitextMining",
        "CEDRClassification",
        "SummEvalSummarization.v2",
    ]
    for name in tasks:
        metadata = mteb.get_task(name).metadata
        kind = MTEB_TYPES[metadata.type]
        for side in ("query", "document"):
            if (name, side) == ("TERRa", "document") and name in table.entries:
                continue  # an entry by a task's name does not cover the sides that mteb gives its pairs
            ours = table.prompt(side, name=name, task_type=kind)  # type: ignore[arg-type]
            assert (get_prompt(named, metadata, PromptType(side)) or "") == ours, (name, side)
        if kind in SYMMETRIC:
            assert get_prompt(named, metadata, None) == table.prompt("query", name=name, task_type=kind)


def test_saved_prompts_distinguish_the_sides() -> None:
    named = GIGA.as_st_prompts()
    assert (named["query"], named["document"]) == (ASKED, "")
    assert (named["headlines"], named["headlines-document"]) == ("title: ", "text: ")
    assert named["sts"] == named["STS"] == "Instruct: Retrieve semantically similar text\nQuery: "
    assert "sts-document" not in named
    assert named["long-short-document"] == ""
    assert PromptTable().as_st_prompts() == {"query": "", "document": ""}
    odd = PromptTable({"query": Prompt(query="a source called query: "), "default": Prompt(query="q: ")})
    assert odd.as_st_prompts()["query"] == "q: "


def test_long_and_symmetric_texts_are_cut_at_the_document_length() -> None:
    assert {kind for kind in get_args(TaskType) if not is_long("query", kind)} == {
        "short-short",
        "short-long",
    }
    assert all(is_long("document", kind) for kind in get_args(TaskType))
