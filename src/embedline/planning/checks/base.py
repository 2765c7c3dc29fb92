"""What a preset changes of its base's own prompts and lengths, shown before a run. Nothing is refused."""

from __future__ import annotations

from pathlib import Path

from embedline.config.schema import RunConfig
from embedline.models.model_files import CARD, read_json
from embedline.models.st_modules import transformer_config, transformer_folder


def base_notes(config: RunConfig, base: Path | None) -> list[str]:
    """Return one line for each setting that contradicts the base, with both values.

    Args:
        base: folder of model.base on this machine; None for a model from scratch.
    """
    return [] if base is None else [*_prompts(config, base), *_length(config, base)]


def _prompts(config: RunConfig, base: Path) -> list[str]:
    if config.prompts is None:
        return []
    from embedline.models.card import read_spec
    from embedline.models.prompts import PromptTable
    from embedline.models.third_party import read_prompts

    spec = read_spec(base)
    tables = (PromptTable(config.prompts), spec.prompts if spec else read_prompts(base))
    (query, document), own = ((table.prompt("query"), table.prompt("document")) for table in tables)
    if not any(own) or own == (query, document):
        return []
    return [
        f"prompts: the base was trained with {own[0]!r} before queries and {own[1]!r} before documents, and "
        f"the preset has {query!r} and {document!r}; leave prompts out to keep the base's"
    ]


def _length(config: RunConfig, base: Path) -> list[str]:
    """Return a note when documents are longer than the base cuts its texts, and nothing lengthens it."""
    if config.model.positions is not None or config.model.dynamic_ntk is not None:
        return []
    lengths = (
        read_json(base / CARD).get("document_length"),
        transformer_config(base).get("max_seq_length"),
        read_json(transformer_folder(base) / "tokenizer_config.json").get("model_max_length"),
    )
    own = next((length for length in lengths if length), None)
    longest = config.model.document_length
    if own is None or longest <= own:
        return []
    return [f"model.document_length: {longest}; the base's own folder cuts texts at {own} tokens"]
