"""The resolver of the workflow tests, compared with the service's reference."""

from __future__ import annotations

from typing import Any

import pytest
from workflow_expressions import contexts_of, evaluate, resolve

CONTEXTS = {
    "inputs": {"force": False, "preset": "", "name": "Mine"},
    "github": {"event": {"client_payload": {"preset": "other"}}, "ref": "refs/heads/main"},
    "vars": {},
}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("inputs.preset || github.event.client_payload.preset || 'demo'", "other"),
        ("inputs.preset || vars.PRESET || 'demo'", "demo"),
        ("inputs.force && '--yes' || '--no'", "--no"),
        ("!inputs.force && '--yes' || '--no'", "--yes"),
        ("inputs.name == 'mine'", True),  # strings compare without case
        ("inputs.name != 'mine'", False),
        ("inputs.nothing == ''", True),  # null and the empty string are both 0
        ("inputs.force == 0", True),
        ("'1' == 1", True),
        ("'x' == 0", False),
        ("true && (false || 'last')", "last"),
        ("github.event['client_payload'].preset", "other"),
        ("github.event.nothing.at.all", None),
        ("startsWith(github.ref, 'refs/heads/')", True),
        ("contains('Hello world', 'WORLD')", True),
        ("format('{0} and {1}', inputs.name, 2)", "Mine and 2"),
        ("'it''s'", "it's"),
    ],
)
def test_values(expression: str, value: Any) -> None:
    assert evaluate(expression, CONTEXTS) == value


def test_text_around_expressions_stays() -> None:
    text = "retrain-${{ inputs.preset || 'demo' }} ${{ inputs.force }}${{ inputs.nothing }}."
    assert resolve(text, CONTEXTS) == "retrain-demo false."


@pytest.mark.parametrize(
    "expression", ["secrets.TOKEN", "inputs.", "inputs.force &&", "a b", "nothing()", "'"]
)
def test_invalid_expressions_are_errors(expression: str) -> None:
    with pytest.raises((ValueError, KeyError, IndexError)):
        evaluate(expression, CONTEXTS)


def test_the_contexts_of_an_expression() -> None:
    expression = "needs.plan.outputs.needed == 'true' || (inputs.force && contains(github.ref, 'secrets.x'))"
    assert contexts_of(expression) == {"needs", "inputs", "github"}
