"""Names are checked before a run: folders, MLflow and the cluster refuse others hours later."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedline.config.data import EvaluationSet
from embedline.config.load import load_config
from embedline.config.names import MAX_NAME, name_problem
from embedline.data.evaluation_sets import set_names
from embedline.errors import InputError

LONG = "я" * 128  # as the name of a folder 256 bytes, one too many


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        (f"data.sources.0.name={LONG}", "data: sources.0.name: '.*' has 256 bytes"),
        ("data.sources.0.name='..'", "data: sources.0.name: '..' is not a name"),
        ("data.sources.0.name=a/../b", "data: sources.0.name: 'a/../b' is not a name"),
        ('data.sources.0.name="a\\nb"', "contains '\\\\n'"),
        ("data.sources.0.path=..", "data: sources.0.name: '..' is not a name; give it another name"),
        (f"data.corpus.0.name={LONG}", "data: corpus.0.name"),
        (f"data.evaluation.0.name={LONG}", "data: evaluation.0.name"),
        ("data.evaluation.0.name='..'", "data: evaluation.0.name"),
        (f"data.evaluation.0.path=eval/{'x' * 201}", "data: evaluation.0.name: '.*' has 201 bytes"),
        (f"data.hold_out={{name: {LONG}}}", "hold_out.name"),
        (f"tracking.experiment={'x' * 501}", "tracking: experiment: '.*' has 501 characters"),
        ("tracking.experiment=''", "tracking: experiment: '' is not a name"),
        (f"promote.model={'x' * 257}", "promote: model"),
        ("promote.model='..'", "promote: model"),
        (f"name={'x' * 121}", "name: string should have at most 120 characters"),
    ],
)
def test_name_that_a_run_could_not_use_is_refused(override: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        load_config("demo", [override])


@pytest.mark.parametrize(
    "override",
    [
        f"data.sources.0.name={'я' * 100}",
        "data.sources.0.name=faq/ru v1.2",
        f"data.evaluation.0.name={'x' * 200}",
        f"tracking.experiment={'я' * 500}",
        f"name={'x' * 120}",
    ],
)
def test_name_within_the_limits_is_accepted(override: str) -> None:
    load_config("demo", [override, "evaluate.stage_sets=[]", "evaluate.onnx_sets=[]"])


def test_name_of_the_largest_size_can_be_a_folder(tmp_path: Path) -> None:
    for letter in "xя语":
        name = letter * (MAX_NAME // len(letter.encode()))
        assert name_problem(name) == ""
        (tmp_path / name).mkdir()
        (tmp_path / f".{name}.123456.draft").mkdir()


def test_set_given_by_its_folder_has_its_name_checked() -> None:
    with pytest.raises(InputError, match="is not a name"):
        set_names([EvaluationSet(path="sets/..")])
