"""modules.json, read as sentence-transformers reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embedline.errors import InputError
from embedline.models.st_modules import StModule, find_module, module_config, read_modules, transformer_folder

TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"idx": 1, "name": "1", "path": "pool", "type": "sentence_transformers.models.Pooling"}
NORMALIZE = {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}


def write(folder: Path, modules: Any, **files: dict[str, Any]) -> Path:
    (folder / "modules.json").write_text(json.dumps(modules))
    for name, values in files.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "config.json").write_text(json.dumps(values))
    return folder


def test_modules_are_read_in_their_order_with_their_paths(tmp_path: Path) -> None:
    modules = read_modules(write(tmp_path, [TRANSFORMER, POOLING, NORMALIZE], pool={"pooling_mode": "cls"}))
    assert [(module.kind, module.path) for module in modules] == [
        ("Transformer", ""),
        ("Pooling", "pool"),
        ("Normalize", "2_Normalize"),  # its empty folder is not there, as after git
    ]
    pooling = find_module(modules, "Pooling")
    assert pooling == StModule(1, "1", "pool", "sentence_transformers.models.Pooling")
    assert module_config(tmp_path, pooling) == {"pooling_mode": "cls"}
    assert find_module(modules, "Dense") is None


def test_a_folder_without_modules_has_none(tmp_path: Path) -> None:
    assert read_modules(tmp_path) == ()
    assert transformer_folder(tmp_path) == tmp_path


def test_a_class_of_another_package_keeps_its_whole_name() -> None:
    """jina-embeddings-v3 has `custom_st.Transformer`, which is not sentence-transformers' Transformer."""
    assert StModule(0, "0", "", "custom_st.Transformer").kind == "custom_st.Transformer"
    newer = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
    assert StModule(1, "1", "1_Pooling", newer).kind == "Pooling"


@pytest.mark.parametrize("path", ["0_Transformer", "0_BERT"])
def test_the_transformer_folder_is_that_of_its_module(tmp_path: Path, path: str) -> None:
    write(tmp_path, [TRANSFORMER | {"path": path}, POOLING], pool={})
    assert transformer_folder(tmp_path) == tmp_path / path


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (
            [TRANSFORMER, POOLING],
            "pool: modules.json names it as the Pooling module, and it has no",
        ),
        ([TRANSFORMER, POOLING | {"path": "../pool"}], "leaves the model's folder"),
        ([TRANSFORMER, POOLING | {"path": "C:\\pool"}], "leaves the model's folder"),
        ([TRANSFORMER, NORMALIZE | {"name": "0"}], "two of one name"),
        ([], "lists no module"),
        ([{"path": ""}], "KeyError: 'type'"),
        ({"modules": []}, "is not a list of modules"),
    ],
)
def test_a_wrong_or_incomplete_list_is_refused(tmp_path: Path, modules: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        read_modules(write(tmp_path, modules))
    assert message in str(error.value)
    assert str(tmp_path) in str(error.value)
