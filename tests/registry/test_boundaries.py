"""kill -9 before every request to a real server, and sixteen processes that promote at once.

EMBEDLINE_SOAK=N does all of it N times.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from embedline.artifacts.manifest import Artifact, write_manifest
from embedline.registry.challenger import name_challenger
from embedline.registry.overview import overview
from embedline.registry.promotion import history, promote, rollback
from embedline.registry.reconcile import reconcile
from embedline.registry.versions import MODEL_TAG, aliases, register

ROUNDS = int(os.environ.get("EMBEDLINE_SOAK", "1"))
RACES = 5 * ROUNDS
RACERS = 16

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800 * ROUNDS)]


@dataclass
class World:
    """Small models, a server, and processes that act on it."""

    uri: str
    models: list[Artifact]
    actors: Any

    def register(self, name: str, number: int, **tags: str) -> int:
        model = self.models[number]
        given = {"verdict": "passed", "embedline.judged_at": str(number), **tags}
        return register(name, model.path, digest=model.digest, tags=given, uri=self.uri)

    def act(self, kill_before: int, *calls: dict[str, Any]) -> dict[str, Any]:
        (told,) = self.actors.act({"calls": list(calls), "kill_before": kill_before})
        assert told.get("killed") or "result" in told, told
        return dict(told)

    def moved(self, name: str) -> list[tuple[str, int | None, int | None]]:
        return [(g.entry.kind, g.entry.previous, g.entry.version) for g in history(name, uri=self.uri)]

    def champion(self, name: str) -> tuple[int | None, int | None]:
        now = aliases(name, uri=self.uri)
        return now.get("champion"), now.get("previous_champion")


@pytest.fixture(scope="module")
def world(server: Any, actors: Any, tmp_path_factory: pytest.TempPathFactory) -> World:
    models = []
    for number in range(RACERS + 1):
        folder = tmp_path_factory.mktemp("model")
        (folder / "model.safetensors").write_bytes(bytes([number]) * 1000)
        (folder / "config.json").write_text("{}", encoding="utf-8")
        models.append(write_manifest(folder, kind="model", step="train_supervised", key=str(number)))
    return World(server.uri, models, actors)


def is_settled(world: World, name: str) -> None:
    """Reconcile ends with ledger and alias agreeing, and a second one finds nothing to do."""
    reconcile(name, uri=world.uri, by="ann", grace_s=0)
    assert overview(name, uri=world.uri).drift == []
    moves = history(name, uri=world.uri)
    assert [g.number for g in moves] == list(range(len(moves)))
    assert [g.entry.previous for g in moves] == [None, *(g.entry.version for g in moves[:-1])][: len(moves)]
    newest = moves[-1] if moves else None
    assert newest is None or newest.done
    assert world.champion(name)[0] == (newest.entry.version if newest else None)
    again = reconcile(name, uri=world.uri, by="ann", grace_s=0)
    assert (again.done, again.undecided) == ([], [])
    client = MlflowClient(world.uri, world.uri)
    used = {version.source for version in client.search_model_versions(f"name = '{name}'")}
    assert {f"models:/{upload.model_id}" for upload in uploads(client, name)} == used


@pytest.mark.parametrize("soak", range(ROUNDS))
def test_a_killed_first_promotion_leaves_one_ledger(world: World, soak: int) -> None:
    def killed(case: str, before: int) -> dict[str, Any]:
        name = f"first-{soak} {case}"
        world.register(name, 1)
        job = {"reason": "first", "by": "bob", "uri": world.uri}
        return world.act(before, {"do": "promotion:promote", "args": [name, 1], "kwargs": job})

    def then(case: str) -> None:
        name = f"first-{soak} {case}"
        happened = len(world.moved(name)) == 1
        is_settled(world, name)
        assert world.champion(name) == ((1, None) if happened else (None, None))
        promote(name, 1, reason="again", by="bob", uri=world.uri)
        assert world.moved(name) == [("promote", None, 1)]
        assert world.champion(name) == (1, None)
        client = MlflowClient(world.uri, world.uri)
        ledgers = client.get_experiment_by_name("embedline-ledger")
        assert ledgers is not None
        assert len(client.search_runs([ledgers.experiment_id], f"tags.`embedline.ledger` = '{name}'")) == 1

    assert every_boundary(killed, then) >= 10


def every_boundary(act: Callable[[str, int], dict[str, Any]], then: Callable[[str], None]) -> int:
    """`act` killed before its first request, its second, and so on to its last; `then` looks at each.

    Returns:
        The number of requests.
    """
    for before in itertools.count(1):
        case = f"before {before}"
        told = act(case, before)
        then(case)
        if not told.get("killed"):
            return int(told["calls"])
    raise AssertionError


@pytest.mark.parametrize("soak", range(ROUNDS))
def test_a_killed_promotion_is_completed_or_has_not_happened(world: World, soak: int) -> None:
    def killed(case: str, before: int) -> dict[str, Any]:
        name = f"promote-{soak} {case}"
        for number in (1, 2):
            world.register(name, number)
        name_challenger(name, uri=world.uri)
        promote(name, 1, reason="first", by="ann", uri=world.uri)
        job = {"reason": "second", "by": "bob", "uri": world.uri}
        return world.act(before, {"do": "promotion:promote", "args": [name, 2], "kwargs": job})

    def then(case: str) -> None:
        name = f"promote-{soak} {case}"
        written = world.moved(name)
        assert world.champion(name)[0] in {1, 2}, "there is a champion at every moment"
        is_settled(world, name)
        happened = len(written) == 2
        assert world.champion(name) == ((2, 1) if happened else (1, None))
        promote(name, 2, reason="again", by="bob", uri=world.uri)
        assert world.moved(name) == [("promote", None, 1), ("promote", 1, 2)]
        assert world.champion(name) == (2, 1)

    assert every_boundary(killed, then) >= 8


@pytest.mark.parametrize("soak", range(ROUNDS))
def test_a_killed_rollback_is_completed_or_has_not_happened(world: World, soak: int) -> None:
    def killed(case: str, before: int) -> dict[str, Any]:
        name = f"rollback-{soak} {case}"
        for number in (1, 2):
            world.register(name, number)
            promote(name, number, reason="", by="ann", uri=world.uri)
        name_challenger(name, uri=world.uri)
        job = {"by": "bob", "uri": world.uri}
        return world.act(before, {"do": "promotion:rollback", "args": [name], "kwargs": job})

    def then(case: str) -> None:
        name = f"rollback-{soak} {case}"
        assert world.champion(name)[0] in {1, 2}
        cut_off = not history(name, uri=world.uri)[-1].done
        if cut_off:  # the same command again completes it; it does not roll forward
            rollback(name, by="bob", uri=world.uri)
            assert world.champion(name) == (1, 2)
        happened = len(world.moved(name)) == 3
        is_settled(world, name)
        assert world.champion(name) == ((1, 2) if happened else (2, 1))

    assert every_boundary(killed, then) >= 8


@pytest.mark.parametrize("soak", range(ROUNDS))
def test_a_killed_registration_is_taken_up_or_leaves_nothing(world: World, soak: int) -> None:
    def job(name: str, number: int) -> list[dict[str, Any]]:
        model, tags = world.models[number], {"verdict": "passed", "embedline.judged_at": str(number)}
        kwargs = {"digest": model.digest, "tags": tags, "uri": world.uri}
        return [
            {"do": "versions:register", "args": [name, Path(model.path).as_posix()], "kwargs": kwargs},
            {"do": "challenger:name_challenger", "args": [name], "kwargs": {"uri": world.uri}},
        ]

    def killed(case: str, before: int) -> dict[str, Any]:
        name = f"register-{soak} {case}"
        for number in (1, 2):  # one to reconcile, one to take up
            told = world.act(before, *job(name if number == 1 else f"{name} again", number))
        return told

    def then(case: str) -> None:
        name = f"register-{soak} {case}"
        is_settled(world, name)
        client = MlflowClient(world.uri, world.uri)
        versions = client.search_model_versions(f"name = '{name}'")
        assert len(uploads(client, name)) == len(versions) <= 1
        assert aliases(name, uri=world.uri) == ({"challenger": 1} if versions else {})
        again = f"{name} again"
        assert world.register(again, 2) == 1
        name_challenger(again, uri=world.uri)
        is_settled(world, again)
        assert len(uploads(client, again)) == 1
        assert promote(again, 1, reason="", by="ann", uri=world.uri).moved

    assert every_boundary(killed, then) >= 8


def uploads(client: MlflowClient, name: str) -> list[Any]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_logged_models(experiments, f"tags.`{MODEL_TAG}` = '{name}'"))


@pytest.mark.parametrize("race", range(RACES))
def test_of_sixteen_promotions_at_once_one_wins_and_the_others_say_which(world: World, race: int) -> None:
    """Each was judged against version 1; without anything being said, only one may replace it."""
    name = f"race-{race}"
    world.register(name, 0)
    promote(name, 1, reason="first", by="ann", uri=world.uri)
    for number in range(1, RACERS + 1):
        assert world.register(name, number, **{"embedline.judged_against": "1"}) == number + 1
    racers = range(2, RACERS + 2)
    told = world.actors.act(
        *(
            {
                "calls": [
                    {
                        "do": "promotion:promote",
                        "args": [name, version],
                        "kwargs": {"reason": "race", "by": f"racer {version}", "uri": world.uri},
                    }
                ]
            }
            for version in racers
        )
    )
    won = [version for version, result in zip(racers, told, strict=True) if "result" in result]
    assert len(won) == 1, told
    for result in told:
        if "error" in result:
            assert (result["error"], result["code"]) == ("ConflictError", 4), result
            assert f"became version {won[0]} by racer {won[0]}" in result["said"]
    assert world.moved(name) == [("promote", None, 1), ("promote", 1, won[0])]
    assert world.champion(name) == (won[0], 1)
    name_challenger(name, uri=world.uri)
    is_settled(world, name)


def test_sixteen_first_promotions_at_once_share_one_ledger(world: World) -> None:
    name = "race-first"
    for number in range(1, RACERS + 1):
        world.register(name, number, **{"embedline.judged_against": "none"})
    jobs = [
        {
            "calls": [
                {
                    "do": "promotion:promote",
                    "args": [name, version],
                    "kwargs": {"reason": "race", "by": f"racer {version}", "uri": world.uri},
                }
            ]
        }
        for version in range(1, RACERS + 1)
    ]
    told = world.actors.act(*jobs)
    assert sum("result" in result for result in told) == 1, told
    assert len(world.moved(name)) == 1
    name_challenger(name, uri=world.uri)
    is_settled(world, name)
