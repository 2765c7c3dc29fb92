"""Names of models and aliases: refused before any work, and the others are accepted by MLflow."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.utils import validation

from embedline.config.load import load_config
from embedline.config.names import PREVIOUS, alias_problem, model_problem
from embedline.errors import InputError
from embedline.registry import promotion
from embedline.registry.ledger import Ledger
from embedline.registry.overview import overview
from embedline.registry.reconcile import reconcile

_ODD = st.text("abvV019_-. /:'`\"%я\n", max_size=12) | st.text(max_size=6)


@given(_ODD)
@example("latest")
@example("v12")
@example("V3")
@example("x" * 250)
def test_mlflow_accepts_every_alias_that_is_not_refused(alias: str) -> None:
    if not alias_problem(alias):
        for each in (alias, PREVIOUS + alias):
            validation._validate_model_alias_name(each)
            validation._validate_model_alias_name_reserved(each)


@given(_ODD)
@example("..")
@example("a//b")
@example("a/../b")
def test_mlflow_accepts_every_model_name_that_is_not_refused(name: str) -> None:
    if not model_problem(name):
        validation._validate_model_name(name)
        assert "'" not in name, "mlflow cannot search for it"


@pytest.mark.parametrize("name", ["support", "поиск документов", 'a "b"', "a%b", "a.b_c-1", "x" * 256])
def test_ordinary_names_are_accepted(name: str) -> None:
    assert load_config("demo", [f"promote.model={name!r}"]).promote.model == name


@pytest.mark.parametrize(
    "alias", ["bad alias!", "latest", "v3", "challenger", "previous_champion", "x" * 250]
)
def test_reserved_alias_is_refused_and_leaves_no_ledger(uri: str, alias: str) -> None:
    """MLflow refuses some of them only after the ledger has recorded the move."""
    for act in (
        lambda: promotion.promote("demo", 1, alias, reason="", by="ann", uri=uri),
        lambda: promotion.rollback("demo", alias, by="ann", uri=uri),
        lambda: reconcile("demo", alias, by="ann", uri=uri),
        lambda: overview("demo", alias, uri=uri),
    ):
        with pytest.raises(InputError, match="--alias"):
            act()
    assert Ledger.find(uri, "demo") is None
    with pytest.raises(InputError, match="promote: alias"):
        load_config("demo", [f"promote.alias={alias!r}"])


@pytest.mark.parametrize("name", ["a/b", "a:b", "o'brien", "..", " ", "x" * 257])
def test_invalid_model_name_is_refused_before_training(uri: str, name: str) -> None:
    with pytest.raises(InputError, match="promote: model"):
        load_config("demo", [f'promote.model="{name}"'])
    with pytest.raises(InputError):
        overview(name, uri=uri)


def test_reconcile_command_in_messages_is_shell_quoted(uri: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(uri, uri)
    client.create_registered_model("поиск; документов")
    client.create_model_version("поиск; документов", "s3://nowhere", tags={"verdict": "passed"})
    (line,) = overview("поиск; документов", uri=uri).drift
    assert "embedline reconcile 'поиск; документов' corrects it" in line
