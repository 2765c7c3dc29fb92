from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedline.config.schema import RunConfig
from embedline.errors import InputError
from embedline.planning.checks.dims import require_dims

BERT = {
    "model_type": "bert",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 1000,
}


def config(dims: list[int]) -> RunConfig:
    return RunConfig.model_validate(
        {"name": "r", "data": {"sources": [{"path": "a.jsonl"}]}, "model": {"base": "a-base", "dims": dims}}
    )


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(BERT))
    return tmp_path


def test_a_dim_wider_than_the_base_is_refused_before_the_run(base: Path) -> None:
    with pytest.raises(InputError, match=r"^model\.dims: 128 is larger than the base's width 64"):
        require_dims(config([32, 128]), base)


@pytest.mark.parametrize("dims", [[], [32], [64, 16]])
def test_dims_within_the_width_are_accepted(base: Path, dims: list[int]) -> None:
    require_dims(config(dims), base)


def test_a_base_that_is_not_at_hand_is_checked_later() -> None:
    require_dims(config([4096]), None)
