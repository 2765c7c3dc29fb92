"""The check before a run that the base model has positions for the run's texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedline.config.model import row_tokens
from embedline.config.schema import RunConfig
from embedline.config.training import ContrastiveConfig, MineConfig
from embedline.errors import InputError
from embedline.models.st_modules import transformer_folder

# Positions start at the row after padding's, so that two rows of the table are used by no token.
_OFFSET = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet"}


def require_room(config: RunConfig, base: Path | None) -> None:
    """Refuse lengths beyond the positions that the base will have, MCLS' own tokens included.

    Only its config.json is read here; the loaded model is checked again.

    Raises:
        InputError: a setting needs more tokens than there are positions.
    """
    room = _room(config, base)
    if room is None:
        return
    for where, tokens in _lengths(config):
        needed = row_tokens(tokens, config.model.pooling, config.model.mcls_every)
        if needed > room:
            inserted = f", {needed - tokens} of them MCLS' own," if needed > tokens else ""
            more = "model.dynamic_ntk" if config.model.positions is None else f"model.positions to {needed}"
            raise InputError(
                f"{tokens} needs rows of {needed} tokens{inserted} and the model has positions for {room}.",
                where=where,
                fix=f"Shorten it, or set {more}.",
            )


def _room(config: RunConfig, base: Path | None) -> int | None:
    """Return the tokens of the longest row; None where the config has no such value, or there is no bound."""
    model = config.model
    values: dict[str, Any] = dict(model.settings)
    kind = model.architecture
    if base is not None and (file := transformer_folder(base) / "config.json").is_file():
        values = json.loads(file.read_text(encoding="utf-8"))
        values = values.get("backbone", values.get("text_config", values))
        kind = values.get("model_type", "")
    has = values.get("max_position_embeddings")
    if model.dynamic_ntk is not None or not isinstance(has, int) or has <= 0:  # XLNet has -1: no bound
        return None
    if kind in _OFFSET:
        has -= int(values.get("pad_token_id", 1)) + 1
    return max(has, model.positions or 0)


def _lengths(config: RunConfig) -> Iterator[tuple[str, int]]:
    yield "model.query_length", config.model.query_length
    yield "model.document_length", config.model.document_length
    if config.pretrain.enabled:
        yield "pretrain.length", config.pretrain.length
    stages: dict[str, ContrastiveConfig | MineConfig]
    stages = {"unsupervised": config.unsupervised, "supervised": config.supervised, "mine": config.mine}
    for name, stage in stages.items():
        if stage.enabled and stage.document_length is not None:
            yield f"{name}.document_length", stage.document_length
