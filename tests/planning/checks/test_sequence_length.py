"""Lengths beyond the base's positions are refused in the plan, MCLS' own tokens counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embedline.config.schema import RunConfig
from embedline.errors import InputError
from embedline.planning.checks.sequence_length import require_room

XLMR = {"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}
M3: dict[str, Any] = {"base": "xlm-roberta", "positions": 8192, "document_length": 8192}


def config(model: dict[str, Any], **more: Any) -> RunConfig:
    return RunConfig.model_validate(
        {"name": "r", "data": {"sources": [{"path": "a.jsonl"}]}, "model": model, **more}
    )


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(XLMR))
    return tmp_path


@pytest.mark.parametrize(
    ("model", "more", "named"),
    [
        (
            M3 | {"pooling": "mcls"},
            {},
            r"^model\.document_length: 8192 needs rows of 8223 .*31 of them",
        ),
        ({"base": "x", "document_length": 513}, {}, r"^model\.document_length: 513 .* positions for 512"),
        ({"base": "x", "query_length": 600}, {}, r"^model\.query_length"),
        ({"base": "x"}, {"pretrain": {"length": 600}}, r"^pretrain\.length"),
        ({"base": "x"}, {"mine": {"document_length": 600}}, r"^mine\.document_length"),
    ],
)
def test_a_length_beyond_the_positions_names_it(base: Path, model: Any, more: Any, named: str) -> None:
    with pytest.raises(InputError, match=named):
        require_room(config(model, **more), base)


@pytest.mark.parametrize(
    "model",
    [
        M3,
        M3 | {"pooling": "mcls", "positions": 8223},
        {"base": "x", "document_length": 512},
        {"architecture": "nomic_bert", "dynamic_ntk": {}, "document_length": 8192,
         "settings": {"max_position_embeddings": 512}},
    ],
)  # fmt: skip
def test_a_length_within_the_positions_passes(base: Path, model: dict[str, Any]) -> None:
    require_room(config(model), base if "base" in model else None)


def test_a_base_that_is_not_at_hand_is_judged_when_it_is_loaded(tmp_path: Path) -> None:
    require_room(config({"base": "x", "document_length": 99_999}), tmp_path)
