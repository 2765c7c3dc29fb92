"""Promotion and rollback: refusals, ledger entries and messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from mlflow import MlflowClient

from embedline.artifacts.manifest import Artifact
from embedline.errors import ConflictError, InputError, RefusedError, StepError
from embedline.registry import challenger, promotion
from embedline.registry.challenger import update_challenger
from embedline.registry.ledger import EXPERIMENT, Entry, Ledger
from embedline.registry.overview import overview
from embedline.registry.promotion import Promotion
from embedline.registry.reconcile import reconcile
from embedline.registry.spool import MAX_PARAM_VALUE
from embedline.registry.versions import MODEL_TAG, aliases, get_champion, register


@pytest.fixture
def while_verifying(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Run an action once between a promotion's checks and its claim."""

    def arm(act: Callable[[], Any]) -> None:
        verified = promotion.verify_files

        def meanwhile(*args: Any) -> int:
            monkeypatch.setattr(promotion, "verify_files", verified)
            act()
            return verified(*args)

        monkeypatch.setattr(promotion, "verify_files", meanwhile)

    return arm


@pytest.fixture
def add(uri: str, make_model: Callable[[str], Artifact]) -> Callable[..., int]:
    """Register one more version of `demo` that passed its gate."""

    made: dict[str, Artifact] = {}

    def add(content: str, **tags: str) -> int:
        model = made[content] = made.get(content) or make_model(content)
        given = {"verdict": "passed", "embedline.index_version": content, **tags}
        return register("demo", model.path, digest=model.digest, tags=given, uri=uri)

    return add


@pytest.fixture
def versions(uri: str, add: Callable[..., int]) -> MlflowClient:
    for content in ("a", "b", "c", "d"):
        add(content)
    update_challenger("demo", uri=uri)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@pytest.fixture
def promote(uri: str) -> Callable[..., Promotion]:
    def promote(version: int, **kwargs: Any) -> Promotion:
        return promotion.promote("demo", version, uri=uri, **{"reason": "", "by": "ann", **kwargs})

    return promote


@pytest.fixture
def rollback(uri: str) -> Callable[..., Promotion]:
    return lambda **kwargs: promotion.rollback("demo", uri=uri, **{"by": "ann", **kwargs})


def now(uri: str) -> dict[str, int]:
    """Return the aliases that promotions move."""
    return {alias: version for alias, version in aliases("demo", uri=uri).items() if alias != "challenger"}


def moves(uri: str) -> list[tuple[str, int | None, int | None]]:
    return [(g.entry.kind, g.entry.previous, g.entry.version) for g in promotion.history("demo", uri=uri)]


def test_promotions_and_rollbacks_in_a_row(uri: str, versions: Any, promote: Any, rollback: Any) -> None:
    assert (promote(1).moved, now(uri)) == (True, {"champion": 1})
    assert promote(2).previous == 1
    assert now(uri) == {"champion": 2, "previous_champion": 1}
    assert rollback().version == 1
    assert now(uri) == {"champion": 1, "previous_champion": 2}
    promote(3)
    assert now(uri) == {"champion": 3, "previous_champion": 1}
    assert moves(uri) == [
        ("promote", None, 1),
        ("promote", 1, 2),
        ("rollback", 2, 1),
        ("promote", 1, 3),
    ]
    assert overview("demo", uri=uri).aliases["champion"].index_version == "c"


def test_ledger_entry_has_author_reason_versions_scores_and_verdict(uri: str, add: Any, promote: Any) -> None:
    add("a")
    add("b", **{"embedline.scores": json.dumps({"Docs": 0.71})})
    promote(1)
    promote(2, reason="better on Docs", by="ann")
    entry = promotion.history("demo", uri=uri)[1].entry
    assert (entry.by, entry.reason, entry.previous, entry.version) == ("ann", "better on Docs", 1, 2)
    assert (entry.scores, entry.verdict, entry.alias) == ({"Docs": 0.71}, "passed", "champion")


def test_ledger_entry_is_written_before_the_alias_moves(
    uri: str, versions: MlflowClient, promote: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(BaseException):
        pass

    def stopped(*_: Any) -> None:
        raise Stopped

    promote(1)
    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", stopped)
    with pytest.raises(Stopped):
        promote(2)
    assert moves(uri)[-1] == ("promote", 1, 2)
    assert now(uri) == {"champion": 1}


def test_promoting_the_champion_again_moves_nothing(uri: str, versions: Any, promote: Any) -> None:
    promote(1)
    promote(2)
    again = promote(2)
    assert not again.moved
    assert "already champion" in again.text
    assert now(uri) == {"champion": 2, "previous_champion": 1}
    assert len(moves(uri)) == 2


def test_second_rollback_undoes_the_first(uri: str, versions: Any, promote: Any, rollback: Any) -> None:
    promote(1)
    promote(2)
    assert [rollback().version, rollback().version] == [1, 2]
    with pytest.raises(ConflictError, match="version 2"):
        rollback(expect="1")
    assert now(uri) == {"champion": 2, "previous_champion": 1}


def test_vectors_of_two_models_must_not_be_mixed(uri: str, add: Any, promote: Any, rollback: Any) -> None:
    add("a")
    add("b")
    add("c", **{"embedline.index_version": "b"})
    assert "Vectors" not in promote(1).text
    told = promote(2)
    assert told.reindex
    assert "Vectors of version 1 (index a) must not be mixed with those of version 2 (index b)" in told.text
    same = promote(3)
    assert (same.reindex, "index stays valid" in same.text) == (False, True)
    rollback()
    assert promotion.promote("demo", 1, reason="", by="ann", uri=uri).reindex


def test_refused_version_is_not_promoted(uri: str, add: Any, promote: Any) -> None:
    add("a", verdict="refused", **{"verdict.reasons": "Docs is 0.3; at least 0.5 is required."})
    with pytest.raises(
        RefusedError, match=r"demo version 1: the gate did not pass\. Docs is 0\.3"
    ) as refused:
        promote(1)
    assert refused.value.exit_code == 3
    assert (now(uri), moves(uri)) == ({}, [])


def test_version_without_verdict_is_not_promoted(uri: str, make_model: Any, promote: Any) -> None:
    model = make_model("x")
    register("demo", model.path, digest=model.digest, tags={}, uri=uri)
    with pytest.raises(RefusedError, match="was not registered by the line"):
        promote(1)


def test_verdict_against_another_champion_is_refused(uri: str, add: Any, promote: Any) -> None:
    for content in ("a", "b", "c"):
        add(content, **{"embedline.judged_against": "none" if content == "a" else "1"})
    promote(1)
    promote(2, by="bob", reason="faster")
    with pytest.raises(ConflictError) as late:
        promote(3)
    assert late.value.exit_code == 4
    for part in ("became version 2", "by bob", "faster", "version 3 was to replace version 1", "--expect 2"):
        assert part in str(late.value)
    assert promote(3, expect="2").previous == 2
    with pytest.raises(ConflictError, match="was to replace nothing"):
        promote(1, expect="none")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 100),
            "model.safetensors has changed",
        ),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda folder: (folder / "modeling.py").write_text("import os"), "modeling.py was added"),
    ],
)
def test_changed_files_are_not_promoted(
    uri: str, versions: MlflowClient, promote: Any, rollback: Any, spoil: Any, said: str
) -> None:
    promote(1)
    champion = get_champion("demo", uri=uri)
    assert champion is not None
    assert champion.path is not None
    promote(2)
    spoil(champion.path)
    with pytest.raises(StepError, match=said):
        rollback()
    promote(3)
    with pytest.raises(StepError, match=said):
        promote(1)
    assert now(uri) == {"champion": 3, "previous_champion": 2}


def test_rollback_to_a_version_without_recorded_digests_says_so(
    uri: str, versions: MlflowClient, promote: Any, rollback: Any
) -> None:
    versions.delete_model_version_tag("demo", "1", "embedline.files")
    versions.set_registered_model_alias("demo", "champion", "1")
    reconcile("demo", uri=uri, by="ann", accept=True)
    promote(2)
    back = rollback()
    assert (back.version, "no recorded digests" in back.text) == (1, True)
    assert "no recorded digests" not in rollback().text
    with pytest.raises(InputError, match="no digests were recorded"):
        promote(1)


def test_a_version_is_compared_with_the_champion_of_its_alias(uri: str, add: Any, promote: Any) -> None:
    for content in ("a", "b"):
        add(content)
    add("c", **{"embedline.judged_against": "1"})
    add("d", **{"embedline.judged_against": "1", "embedline.judged_against.staging": "2"})
    promote(1)
    promote(2, alias="staging")
    assert promote(3, alias="staging").previous == 2, "the gate compared it with the champion"
    with pytest.raises(
        ConflictError, match=r"staging became version 3 .* version 4 was to replace version 2"
    ):
        promote(4, alias="staging")
    assert promote(4).previous == 1


def test_two_promotions_of_one_version_at_once_both_succeed(
    uri: str, versions: Any, promote: Any, while_verifying: Any
) -> None:
    promote(1)
    while_verifying(lambda: promote(2, by="bob"))
    second = promote(2)
    assert (second.moved, "already champion" in second.text) == (False, True)
    assert moves(uri) == [("promote", None, 1), ("promote", 1, 2)]


def test_a_deployed_version_keeps_its_verdict(
    uri: str, versions: MlflowClient, add: Any, promote: Any
) -> None:
    promote(1)
    promote(2, alias="staging")
    for content in ("a", "b", "c"):
        add(content, verdict="refused")
    verdicts = [versions.get_model_version("demo", str(n)).tags["verdict"] for n in (1, 2, 3)]
    assert verdicts == ["passed", "passed", "refused"]
    add("c", verdict="outside")
    assert versions.get_model_version("demo", "3").tags["verdict"] == "refused"


def test_aliases_of_one_model_are_independent(uri: str, versions: Any, promote: Any, rollback: Any) -> None:
    promote(1)
    promote(2, alias="staging")
    promote(3)
    assert now(uri) == {"champion": 3, "previous_champion": 1, "staging": 2}
    with pytest.raises(InputError, match="no previous staging"):
        rollback(alias="staging")


def test_move_of_another_alias_is_no_conflict(
    uri: str, versions: Any, promote: Any, while_verifying: Any
) -> None:
    promote(1)
    while_verifying(lambda: promote(3, alias="staging"))
    promote(2)
    assert moves(uri) == [("promote", None, 1), ("promote", None, 3), ("promote", 1, 2)]


def test_losing_promotion_names_the_winner(
    uri: str, versions: Any, promote: Any, while_verifying: Any
) -> None:
    promote(1)
    while_verifying(lambda: promote(3, by="bob", reason="urgent"))
    with pytest.raises(
        ConflictError, match=r"became version 3 by bob .*urgent.*version 2 came second"
    ) as lost:
        promote(2)
    assert lost.value.exit_code == 4
    assert now(uri) == {"champion": 3, "previous_champion": 1}


def test_suspended_promotion_does_not_restore_an_old_champion(
    uri: str, versions: MlflowClient, promote: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ann's entry is written; Bob completes it and promotes another version before Ann's process goes on."""
    promote(1)
    apply_generation, seen = promotion.apply_generation, []
    move = MlflowClient.set_registered_model_alias

    def recorded(client: MlflowClient, name: str, alias: str, version: str) -> None:
        move(client, name, alias, version)
        if alias == "champion":
            seen.append(int(version))

    def asleep(*args: Any) -> None:
        monkeypatch.setattr(promotion, "apply_generation", apply_generation)
        promote(3, by="bob")
        apply_generation(*args)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", recorded)
    monkeypatch.setattr(promotion, "apply_generation", asleep)
    promote(2, by="ann")
    assert seen == sorted(seen), "the champion never goes back"
    assert now(uri) == {"champion": 3, "previous_champion": 2}
    assert all(generation.done for generation in promotion.history("demo", uri=uri))


def test_promotion_suspended_during_its_move_restores_the_newer_one(
    uri: str, versions: MlflowClient, promote: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(1)
    move = MlflowClient.set_registered_model_alias

    def asleep(client: MlflowClient, name: str, alias: str, version: str) -> None:
        if (alias, version) == ("champion", "2"):
            monkeypatch.setattr(MlflowClient, "set_registered_model_alias", move)
            promote(3, by="bob")
        move(client, name, alias, version)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", asleep)
    promote(2, by="ann")
    assert now(uri) == {"champion": 3, "previous_champion": 2}
    assert overview("demo", uri=uri).drift == []


def test_missing_versions_and_aliases_are_named(
    uri: str, versions: MlflowClient, promote: Any, rollback: Any
) -> None:
    with pytest.raises(InputError, match="demo has no version 9"):
        promote(9)
    with pytest.raises(InputError, match="nobody has no version 1"):
        promotion.promote("nobody", 1, reason="", by="ann", uri=uri)
    with pytest.raises(InputError, match="no champion to roll back"):
        rollback()
    promote(1)
    with pytest.raises(InputError, match="no previous champion"):
        rollback()
    promote(2)
    versions.delete_model_version("demo", "1")
    with pytest.raises(InputError, match="has no version 1"):
        rollback()
    assert promote(3).moved


def test_alias_moved_by_hand_is_reported_and_left_unchanged(
    uri: str, versions: MlflowClient, promote: Any, rollback: Any
) -> None:
    promote(1)
    promote(2)
    versions.set_registered_model_alias("demo", "champion", "4")
    (line,) = overview("demo", uri=uri).drift[:1]
    for part in ("champion is version 4", "version 2 in the ledger", "--accept", "--restore"):
        assert part in line
    for act in (lambda: promote(3), rollback):
        with pytest.raises(ConflictError, match="moved by other means"):
            act()
    undecided = reconcile("demo", uri=uri, by="ann")
    assert (len(undecided.undecided), undecided.done) == (1, [])
    assert now(uri)["champion"] == 4

    restored = reconcile("demo", uri=uri, by="eve", restore=True)
    assert (restored.undecided, len(restored.done)) == ([], 1)
    assert now(uri) == {"champion": 2, "previous_champion": 1}
    assert moves(uri)[-1] == ("restore", 1, 2)

    versions.set_registered_model_alias("demo", "champion", "4")
    reconcile("demo", uri=uri, by="eve", accept=True)
    assert moves(uri)[-1] == ("accept", 2, 4)
    assert rollback().version == 2
    assert reconcile("demo", uri=uri, by="ann").done == []


def test_alias_deleted_by_hand_can_be_restored(uri: str, versions: MlflowClient, promote: Any) -> None:
    promote(1)
    versions.delete_registered_model_alias("demo", "champion")
    with pytest.raises(
        ConflictError, match="champion is nothing in the registry and version 1 in the ledger"
    ):
        promote(1)
    reconcile("demo", uri=uri, by="ann", restore=True)
    assert now(uri)["champion"] == 1


def test_a_champion_that_was_set_by_hand_before_any_promotion(
    uri: str, versions: MlflowClient, promote: Any
) -> None:
    versions.set_registered_model_alias("demo", "champion", "2")
    with pytest.raises(ConflictError, match="nothing in the ledger"):
        promote(3)
    reconcile("demo", uri=uri, by="ann", accept=True)
    assert promote(3).previous == 2


def test_previous_champion_moved_by_hand_is_corrected(uri: str, versions: MlflowClient, promote: Any) -> None:
    promote(1)
    promote(2)
    versions.set_registered_model_alias("demo", "previous_champion", "4")
    assert "previous_champion is version 4" in overview("demo", uri=uri).drift[0]
    assert "previous_champion is version 1 again." in reconcile("demo", uri=uri, by="ann").done
    assert now(uri)["previous_champion"] == 1


def test_a_move_whose_version_was_deleted_is_undone(
    uri: str, versions: MlflowClient, promote: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(1)
    promote(2)
    ledger = Ledger.open(uri, "demo")
    assert ledger.append(2, Entry("champion", 3, 2, "cut off before the alias moved"))
    versions.delete_model_version("demo", "3")
    with pytest.raises(ConflictError, match="version 3 was deleted while it was becoming champion"):
        promote(4)
    assert "Undone" in reconcile("demo", uri=uri, by="ann").done[0]
    assert now(uri) == {"champion": 2, "previous_champion": 1}
    assert reconcile("demo", uri=uri, by="ann").done == []
    assert promote(4).previous == 2


def test_files_that_a_version_of_another_name_uses_are_kept(
    uri: str, versions: MlflowClient, promote: Any
) -> None:
    promote(1)
    versions.rename_registered_model("demo", "support")
    made = reconcile("demo", uri=uri, by="ann", grace_s=0)
    assert [line for line in made.done if "upload" in line] == []
    for version in versions.search_model_versions("name = 'support'"):
        assert versions.get_logged_model(version.source.removeprefix("models:/")).status == "READY"


def test_uploads_beyond_the_first_page_are_found(
    uri: str, versions: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        versions.create_logged_model("0", name=f"cut-off-{number}", tags={MODEL_TAG: "demo"})
    search = MlflowClient.search_logged_models

    def in_pages_of_two(*args: Any, **kwargs: Any) -> Any:
        return search(*args, max_results=2, **kwargs)

    monkeypatch.setattr(MlflowClient, "search_logged_models", in_pages_of_two)
    made = reconcile("demo", uri=uri, by="ann", grace_s=0)
    assert len([line for line in made.done if "cut-off" in line]) == 3


def test_the_challenger_is_the_last_that_passed(uri: str, versions: MlflowClient, add: Any) -> None:
    add("e", **{"embedline.judged_at": "20"})
    add("f", verdict="refused", **{"embedline.judged_at": "30"})
    assert "challenger is version 4" in overview("demo", uri=uri).drift[0]
    assert "challenger is version 5" in reconcile("demo", uri=uri, by="ann").done[0]
    add("b", **{"embedline.judged_at": "40"})  # version 2 again, judged anew
    reconcile("demo", uri=uri, by="ann")
    assert aliases("demo", uri=uri)["challenger"] == 2
    assert overview("demo", uri=uri).drift == []


def test_challenger_registered_meanwhile_is_found(
    uri: str, versions: MlflowClient, add: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_alias = challenger.point_alias

    def meanwhile(*args: Any) -> bool:
        monkeypatch.setattr(challenger, "point_alias", point_alias)
        add("f", **{"embedline.judged_at": "60"})
        return point_alias(*args)

    add("e", **{"embedline.judged_at": "50"})
    monkeypatch.setattr(challenger, "point_alias", meanwhile)
    assert update_challenger("demo", uri=uri) == 6
    assert aliases("demo", uri=uri)["challenger"] == 6


def test_two_hosts_that_create_a_ledger_share_one(uri: str, versions: MlflowClient, promote: Any) -> None:
    """The lock of one host does not stop another: this one creates its run first and its pointer second."""
    rival = versions.create_run(versions.create_experiment(EXPERIMENT), tags={"embedline.ledger": "demo"})
    elected = Ledger.open(uri, "demo")
    versions.create_run("0", tags={"embedline.ledger": "demo"})
    promote(1)
    assert [g.entry.version for g in elected.read()] == [1]
    assert "demo.gen.0" in versions.get_run(rival.info.run_id).data.params


def test_ledger_of_an_older_release_is_found(uri: str, versions: MlflowClient, promote: Any) -> None:
    run = versions.create_run(versions.create_experiment(EXPERIMENT), tags={"embedline.ledger": "demo"})
    old = {"alias": "champion", "version": 1, "previous": None, "reason": "old", "at": 1, "token": "t"}
    versions.log_param(run.info.run_id, "demo.gen.0", json.dumps(old))
    versions.log_param(run.info.run_id, "demo.gen.0.done", "yes")
    versions.set_registered_model_alias("demo", "champion", "1")
    assert overview("demo", uri=uri).drift == []
    assert promote(2).previous == 1
    assert moves(uri) == [("promote", None, 1), ("promote", 1, 2)]


def test_renamed_model_gets_a_new_ledger(uri: str, versions: MlflowClient, promote: Any) -> None:
    promote(1)
    promote(2)
    versions.rename_registered_model("demo", "support")
    with pytest.raises(InputError, match="demo has no version 3"):
        promote(3)
    assert "nothing in the ledger" in overview("support", uri=uri).drift[0]
    reconcile("support", uri=uri, by="ann", accept=True)
    assert overview("support", uri=uri).drift == []
    moved = promotion.promote("support", 3, reason="", by="ann", uri=uri)
    assert (moved.version, moved.previous) == (3, 2)


def test_rollback_from_a_champion_that_was_deleted(
    uri: str, versions: MlflowClient, promote: Any, rollback: Any
) -> None:
    promote(1)
    promote(2)
    versions.delete_model_version("demo", "2")
    assert now(uri) == {"previous_champion": 1}, "MLflow deletes the alias with its version"
    assert rollback().version == 1
    assert now(uri) == {"champion": 1}
    assert moves(uri)[-1] == ("rollback", None, 1)
    assert [line for line in overview("demo", uri=uri).drift if "champion" in line] == []


def test_recreated_model_with_an_old_ledger_is_reported(
    uri: str, versions: MlflowClient, add: Any, promote: Any, rollback: Any
) -> None:
    """Its versions begin at 1 again: the ledger's entries are about other models."""
    promote(1)
    promote(2)
    versions.delete_registered_model("demo")
    assert add("new") == 1
    for act in (lambda: promote(1), rollback):
        with pytest.raises(ConflictError, match="champion is nothing in the registry and version 2"):
            act()
    assert reconcile("demo", uri=uri, by="ann").undecided
    reconcile("demo", uri=uri, by="ann", accept=True)
    assert now(uri) == {}
    assert promote(1).previous is None
    assert overview("demo", uri=uri).drift == []


def test_deleted_ledger_error_has_the_restore_command(uri: str, versions: MlflowClient, promote: Any) -> None:
    promote(1)
    experiment = versions.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    (run,) = versions.search_runs([experiment.experiment_id])
    versions.delete_run(run.info.run_id)
    with pytest.raises(ConflictError, match=f"mlflow runs restore --run-id {run.info.run_id}"):
        promote(2)
    versions.restore_run(run.info.run_id)
    assert promote(2).moved


def test_generation_key_of_a_long_name_keeps_its_number(uri: str) -> None:
    name = "m" * 256  # the longest that mlflow takes
    ledger = Ledger.open(uri, name)
    for number in range(3):
        assert ledger.append(number, Entry("champion", number + 1, number or None, ""))
        ledger.mark_done(number)
    assert [(g.number, g.entry.version, g.done) for g in ledger.read()] == [
        (0, 1, True),
        (1, 2, True),
        (2, 3, True),
    ]


def test_ledger_entry_fits_into_a_parameter() -> None:
    scores = {f"набор {n}": n / 7 for n in range(2000)}
    text = Entry("champion", 1, None, "потому что " * 1000, by="б" * 1000, scores=scores).as_text()
    kept = json.loads(text)
    assert len(text) <= MAX_PARAM_VALUE
    assert list(kept["scores"].items()) == list(scores.items())[: len(kept["scores"])]
    assert len(kept["scores"]) > 50
