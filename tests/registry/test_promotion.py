"""Moving the alias and moving it back, with a crash or another process in between."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
from mlflow import MlflowClient

from embedline.errors import InputError
from embedline.registry import promotion
from embedline.registry.promotion import history, promote, rollback
from embedline.registry.versions import aliases


@pytest.fixture
def versions(uri: str) -> MlflowClient:
    """Five versions of `demo`; what they hold does not matter here."""
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.create_registered_model("demo")
    for n in range(5):
        client.create_model_version("demo", f"s3://nowhere/{n}")
    return client


def test_promotions_keep_the_predecessor(uri: str, versions: MlflowClient) -> None:
    first = promote("demo", 1, reason="first", uri=uri)
    assert (first.moved, first.previous) == (True, None)
    assert aliases("demo", uri=uri) == {"champion": 1}
    second = promote("demo", 3, reason="better", uri=uri)
    assert (second.moved, second.previous) == (True, 1)
    assert aliases("demo", uri=uri) == {"champion": 3, "previous_champion": 1}
    assert [(e.version, e.previous, e.reason) for e in history("demo", uri=uri)] == [
        (1, None, "first"),
        (3, 1, "better"),
    ]


def test_the_champion_again_is_a_success_that_moves_nothing(uri: str, versions: MlflowClient) -> None:
    promote("demo", 1, reason="first", uri=uri)
    promote("demo", 2, reason="second", uri=uri)
    again = promote("demo", 2, reason="again", uri=uri)
    assert not again.moved
    assert "already champion" in again.text
    assert aliases("demo", uri=uri) == {"champion": 2, "previous_champion": 1}
    assert len(history("demo", uri=uri)) == 2


def test_a_rollback_swaps_and_a_second_one_swaps_back(uri: str, versions: MlflowClient) -> None:
    promote("demo", 1, reason="", uri=uri)
    promote("demo", 2, reason="", uri=uri)
    assert rollback("demo", uri=uri).version == 1
    assert aliases("demo", uri=uri) == {"champion": 1, "previous_champion": 2}
    assert rollback("demo", uri=uri).version == 2
    assert aliases("demo", uri=uri) == {"champion": 2, "previous_champion": 1}
    promote("demo", 4, reason="", uri=uri)
    assert rollback("demo", uri=uri).version == 2


def test_aliases_do_not_mix(uri: str, versions: MlflowClient) -> None:
    promote("demo", 1, reason="", uri=uri)
    promote("demo", 2, alias="staging", reason="", uri=uri)
    promote("demo", 3, reason="", uri=uri)
    assert aliases("demo", uri=uri) == {"champion": 3, "previous_champion": 1, "staging": 2}
    with pytest.raises(InputError, match="no previous staging"):
        rollback("demo", "staging", uri=uri)


def test_what_is_not_there_is_named(uri: str, versions: MlflowClient) -> None:
    for name, version in (("demo", 9), ("nobody", 1)):
        with pytest.raises(InputError, match=f"{name} has no version {version}"):
            promote(name, version, reason="", uri=uri)
    with pytest.raises(InputError, match="no champion to roll back"):
        rollback("demo", uri=uri)
    promote("demo", 1, reason="", uri=uri)
    with pytest.raises(InputError, match="no previous champion"):
        rollback("demo", uri=uri)
    promote("demo", 2, reason="", uri=uri)
    versions.delete_model_version("demo", "1")
    with pytest.raises(InputError, match="has no version 1"):
        rollback("demo", uri=uri)
    assert promote("demo", 3, reason="", uri=uri).moved


class Killed(BaseException):
    pass


@pytest.mark.parametrize("calls_before", [0, 1, 2])
@pytest.mark.parametrize("then", ["promote the same", "promote another", "roll back"])
def test_a_crash_between_ledger_and_alias_is_finished_by_the_next_call(
    uri: str, versions: MlflowClient, monkeypatch: pytest.MonkeyPatch, calls_before: int, then: str
) -> None:
    promote("demo", 1, reason="", uri=uri)
    promote("demo", 2, reason="", uri=uri)
    counter = itertools.count()
    real = MlflowClient.set_registered_model_alias

    def dies(self: MlflowClient, *args: str) -> None:
        if next(counter) == calls_before:
            raise Killed
        real(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "set_registered_model_alias", dies)
        if calls_before == 2:  # both aliases are moved, only the note is missing
            patched.setattr(promotion.Ledger, "mark_done", lambda *_: dies(versions, "", "", ""))
        with pytest.raises(Killed):
            promote("demo", 3, reason="", uri=uri)
    if then == "promote the same":
        assert not promote("demo", 3, reason="", uri=uri).moved
        assert aliases("demo", uri=uri) == {"champion": 3, "previous_champion": 2}
    elif then == "promote another":
        promote("demo", 4, reason="", uri=uri)
        assert aliases("demo", uri=uri) == {"champion": 4, "previous_champion": 3}
    else:
        rollback("demo", uri=uri)
        assert aliases("demo", uri=uri) == {"champion": 2, "previous_champion": 3}


def test_an_alias_moved_by_hand_is_taken_into_the_ledger(uri: str, versions: MlflowClient) -> None:
    versions.set_registered_model_alias("demo", "champion", "5")
    assert promote("demo", 1, reason="", uri=uri).previous == 5
    versions.set_registered_model_alias("demo", "champion", "4")
    assert promote("demo", 2, reason="", uri=uri).previous == 4
    assert rollback("demo", uri=uri).version == 4
    versions.delete_registered_model_alias("demo", "champion")
    assert promote("demo", 4, reason="", uri=uri).moved
    assert aliases("demo", uri=uri)["champion"] == 4


def test_concurrent_promotions_each_take_their_turn(uri: str, versions: MlflowClient) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda v: promote("demo", v, reason=f"by {v}", uri=uri), [1, 2, 3, 4]))
    assert all(p.moved for p in done)
    entries = history("demo", uri=uri)
    assert sorted(e.version for e in entries) == [1, 2, 3, 4]
    assert [e.previous for e in entries] == [None, *(e.version for e in entries[:-1])]
    assert aliases("demo", uri=uri) == {
        "champion": entries[-1].version,
        "previous_champion": entries[-2].version,
    }
