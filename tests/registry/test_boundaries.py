"""SIGKILL before every request to a real server, and sixteen processes that promote at once.

EMBEDLINE_SOAK=N does all of it N times. Each case starts from a copy of the server's store, not from what the
cases before have left; a kill between two reads leaves what the kill before has left, and is looked at once.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from embedline.artifacts.manifest import Artifact, write_manifest
from embedline.registry.challenger import update_challenger
from embedline.registry.overview import overview
from embedline.registry.promotion import history, promote, rollback
from embedline.registry.reconcile import reconcile
from embedline.registry.versions import MODEL_TAG, aliases, register

ROUNDS = int(os.environ.get("EMBEDLINE_SOAK", "1"))
RACES = 5 * ROUNDS
RACERS = 16
NAME = "support"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@dataclass
class World:
    """Small models, a server, processes that act on it, and copies of its store as starting points."""

    uri: str
    models: list[Artifact]
    actors: Any
    stored: Any
    copies: Path
    prepared: set[str] = field(default_factory=set)

    def begin(self, prepare: Callable[[World], None]) -> None:
        """Restore the state that `prepare` leaves on an empty server; run it only on the first call."""
        copy = self.copies / prepare.__name__
        if prepare.__name__ in self.prepared:
            self.stored.restore(copy)
            return
        self.stored.restore(self.copies / "empty")
        prepare(self)
        self.stored.save(copy)
        self.prepared.add(prepare.__name__)

    def register(self, number: int, **tags: str) -> int:
        model = self.models[number]
        given = {"verdict": "passed", "embedline.judged_at": str(number), **tags}
        return register(NAME, model.path, digest=model.digest, tags=given, uri=self.uri)

    def promote(self, version: int, by: str = "bob") -> Any:
        return promote(NAME, version, reason="again", by=by, uri=self.uri)

    def moved(self) -> list[tuple[str, int | None, int | None]]:
        return [(g.entry.kind, g.entry.previous, g.entry.version) for g in history(NAME, uri=self.uri)]

    def champion(self) -> tuple[int | None, int | None]:
        now = aliases(NAME, uri=self.uri)
        return now.get("champion"), now.get("previous_champion")


@pytest.fixture(scope="module")
def patience() -> Iterator[None]:
    """Raise the HTTP timeout: a busy machine may delay the server for a minute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")
        yield


@pytest.fixture(scope="module")
def world(
    patience: None, server: Any, stored: Any, actors: Any, tmp_path_factory: pytest.TempPathFactory
) -> World:
    models = []
    for number in range(RACERS + 1):
        folder = tmp_path_factory.mktemp("model")
        (folder / "model.safetensors").write_bytes(bytes([number]) * 1000)
        (folder / "config.json").write_text("{}", encoding="utf-8")
        models.append(write_manifest(folder, kind="model", step="train_supervised", key=str(number)))
    copies = tmp_path_factory.mktemp("copies")
    stored.save(copies / "empty")
    return World(server.uri, models, actors, stored, copies)


def empty(world: World) -> None:
    """Nothing is registered."""


def one_version(world: World) -> None:
    world.register(1)
    update_challenger(NAME, uri=world.uri)


def one_promoted_of_two(world: World) -> None:
    for number in (1, 2):
        world.register(number)
    update_challenger(NAME, uri=world.uri)
    world.promote(1, by="ann")


def two_promoted(world: World) -> None:
    for number in (1, 2):
        world.register(number)
        world.promote(number, by="ann")
    update_challenger(NAME, uri=world.uri)


def seventeen_of_which_the_first_is_champion(world: World) -> None:
    """Each was compared with version 1; without --expect only one may replace it."""
    world.register(0)
    world.promote(1, by="ann")
    for number in range(1, RACERS + 1):
        assert world.register(number, **{"embedline.judged_against": "1"}) == number + 1
    update_challenger(NAME, uri=world.uri)


def sixteen_and_no_champion(world: World) -> None:
    for number in range(1, RACERS + 1):
        assert world.register(number, **{"embedline.judged_against": "none"}) == number
    update_challenger(NAME, uri=world.uri)


def every_boundary(
    world: World,
    prepare: Callable[[World], None],
    calls: list[dict[str, Any]],
    checks: list[Callable[[bool], None]],
) -> tuple[int, int]:
    """`calls` killed before their first request, their second, and so on to their last.

    Args:
        checks: each begins with what the kill has left, and is told whether the calls had come to their end.

    Returns:
        The number of requests, and of different things that the kills left.
    """
    seen: set[str] = set()
    cut = world.copies / "cut"
    for before in itertools.count(1):
        world.begin(prepare)
        (told,) = world.actors.act({"calls": calls, "kill_before": before})
        assert told.get("killed") or "result" in told, told
        ended = not told.get("killed")
        if (left := world.stored.content()) not in seen or ended:
            seen.add(left)
            world.stored.save(cut)
            for check in checks:
                world.stored.restore(cut)
                check(ended)
        if ended:
            return int(told["calls"]), len(seen)
    raise AssertionError


def is_settled(world: World) -> None:
    """Check that ledger and alias agree after reconcile, and that a second one does nothing."""
    reconcile(NAME, uri=world.uri, by="ann", grace_s=0)
    assert overview(NAME, uri=world.uri).drift == []
    moves = history(NAME, uri=world.uri)
    assert [g.number for g in moves] == list(range(len(moves)))
    assert [g.entry.previous for g in moves] == [None, *(g.entry.version for g in moves[:-1])][: len(moves)]
    newest = moves[-1] if moves else None
    assert newest is None or newest.done
    assert world.champion()[0] == (newest.entry.version if newest else None)
    again = reconcile(NAME, uri=world.uri, by="ann", grace_s=0)
    assert (again.done, again.undecided) == ([], [])
    client = MlflowClient(world.uri, world.uri)
    used = {version.source for version in client.search_model_versions(f"name = '{NAME}'")}
    assert {f"models:/{upload.model_id}" for upload in uploads(client)} == used


def uploads(client: MlflowClient) -> list[Any]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_logged_models(experiments, f"tags.`{MODEL_TAG}` = '{NAME}'"))


def promotion(world: World, version: int, by: str = "bob") -> dict[str, Any]:
    kwargs = {"reason": "because", "by": by, "uri": world.uri}
    return {"do": "promotion:promote", "args": [NAME, version], "kwargs": kwargs}


@pytest.mark.parametrize("soak", range(ROUNDS))
def test_a_killed_first_promotion_leaves_one_ledger(world: World, soak: int) -> None:
    def again(ended: bool) -> None:
        world.promote(1)
        assert world.moved() == [("promote", None, 1)]
        assert world.champion() == (1, None)
        client = MlflowClient(world.uri, world.uri)
        ledgers = client.get_experiment_by_name("embedline-ledger")
        assert ledgers is not None
        assert len(client.search_runs([ledgers.experiment_id], f"tags.`embedline.ledger` = '{NAME}'")) == 1

    def reconciled(ended: bool) -> None:
        happened = len(world.moved()) == 1
        assert happened or not ended
        is_settled(world)
        assert world.champion() == ((1, None) if happened else (None, None))
        again(ended)

    requests, states = every_boundary(world, one_version, [promotion(world, 1)], [again, reconciled])
    assert (requests >= 10, states >= 6) == (True, True)


@pytest.mark.parametrize("soak", range(ROUNDS))
def test_killed_promotion_is_completed_or_not_started(world: World, soak: int) -> None:
    def again(ended: bool) -> None:
        world.promote(2)
        assert world.moved() == [("promote", None, 1), ("promote", 1, 2)]
        assert world.champion() == (2, 1)

    def reconciled(ended: bool) -> None:
        happened = len(world.moved()) == 2
        assert happened or not ended
        assert world.champion()[0] in {1, 2}, "there is a champion at every moment"
        is_settled(world)
        assert world.champion() == ((2, 1) if happened else (1, None))
        again(ended)

    requests, states = every_boundary(world, one_promoted_of_two, [promotion(world, 2)], [again, reconciled])
    assert (requests >= 8, states >= 5) == (True, True)


@pytest.mark.parametrize("soak", range(ROUNDS))
def test_killed_rollback_is_completed_or_not_started(world: World, soak: int) -> None:
    def again(ended: bool) -> None:
        if history(NAME, uri=world.uri)[-1].done:
            return  # the next rollback is another one
        rollback(NAME, by="bob", uri=world.uri)
        assert world.champion() == (1, 2), "it completes the one that was cut off and does not roll forward"
        assert len(world.moved()) == 3

    def reconciled(ended: bool) -> None:
        happened = len(world.moved()) == 3
        assert happened or not ended
        assert world.champion()[0] in {1, 2}
        is_settled(world)
        assert world.champion() == ((1, 2) if happened else (2, 1))

    calls = [{"do": "promotion:rollback", "args": [NAME], "kwargs": {"by": "bob", "uri": world.uri}}]
    requests, states = every_boundary(world, two_promoted, calls, [again, reconciled])
    assert (requests >= 8, states >= 5) == (True, True)


@pytest.mark.parametrize("soak", range(ROUNDS))
def test_killed_registration_is_resumed_or_leaves_nothing(world: World, soak: int) -> None:
    client = MlflowClient(world.uri, world.uri)
    model, tags = world.models[1], {"verdict": "passed", "embedline.judged_at": "1"}
    kwargs = {"digest": model.digest, "tags": tags, "uri": world.uri}
    calls = [
        {"do": "versions:register", "args": [NAME, Path(model.path).as_posix()], "kwargs": kwargs},
        {"do": "challenger:update_challenger", "args": [NAME], "kwargs": {"uri": world.uri}},
    ]

    def again(ended: bool) -> None:
        assert world.register(1) == 1
        update_challenger(NAME, uri=world.uri)
        is_settled(world)
        assert len(uploads(client)) == 1
        assert world.promote(1).moved

    def reconciled(ended: bool) -> None:
        is_settled(world)
        versions = client.search_model_versions(f"name = '{NAME}'")
        assert len(uploads(client)) == len(versions) == (1 if ended else len(versions))
        assert aliases(NAME, uri=world.uri) == ({"challenger": 1} if versions else {})

    requests, states = every_boundary(world, empty, calls, [again, reconciled])
    assert (requests >= 8, states >= 7) == (True, True)


def race(world: World, versions: range, seed: int) -> int:
    """Promote all at once; check that one wins and that the others name it; return its version.

    Args:
        seed: even, all begin in the same moment; odd, within a twentieth of a second.
    """
    spread = random.Random(seed)
    jobs = [
        {
            "calls": [promotion(world, version, by=f"racer {version}")],
            "wait_s": spread.random() / 20 if seed % 2 else 0,
        }
        for version in versions
    ]
    told = world.actors.act(*jobs)
    won = [version for version, result in zip(versions, told, strict=True) if "result" in result]
    assert len(won) == 1, told
    for result in told:
        if "error" in result:
            assert (result["error"], result["code"]) == ("PreemptedError", 4), result
            assert f"became version {won[0]} by racer {won[0]}" in result["said"]
    return won[0]


@pytest.mark.parametrize("number", range(RACES))
def test_concurrent_promotions_one_wins_and_the_others_name_it(world: World, number: int) -> None:
    world.begin(seventeen_of_which_the_first_is_champion)
    won = race(world, range(2, RACERS + 2), number)
    assert world.moved() == [("promote", None, 1), ("promote", 1, won)]
    assert world.champion() == (won, 1)
    is_settled(world)


@pytest.mark.parametrize("soak", range(ROUNDS))
def test_concurrent_first_promotions_share_one_ledger(world: World, soak: int) -> None:
    world.begin(sixteen_and_no_champion)
    won = race(world, range(1, RACERS + 1), soak)
    assert world.moved() == [("promote", None, won)]
    is_settled(world)
