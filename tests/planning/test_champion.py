"""The champion's files where they lie on another machine: fetched once, and never taken for another's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from embedline.artifacts.manifest import write_manifest
from embedline.artifacts.workspace import Workspace
from embedline.config.load import load_config
from embedline.planning.champion import find_champion
from embedline.registry import download as downloads
from embedline.registry import versions
from embedline.registry.promotion import promote
from embedline.registry.server import DATABASE, default_uri, prepare
from embedline.registry.tracking_target import TrackingTarget
from embedline.registry.versions import register


@pytest.fixture
def registries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two registries, each with another champion as version 1 of `demo`, and no file of theirs at hand."""
    found = []
    for name in ("staging", "production"):
        (tmp_path / name).mkdir()
        uri = default_uri(tmp_path / name)
        if found:
            shutil.copy(tmp_path / "empty.db", tmp_path / name / DATABASE)
        else:
            prepare(uri)
            shutil.copy(tmp_path / name / DATABASE, tmp_path / "empty.db")
        folder = tmp_path / f"model of {name}"
        folder.mkdir()
        (folder / "model.safetensors").write_text(name)
        model = write_manifest(folder, kind="model", step="train_supervised", key=name)
        register("demo", folder, digest=model.digest, tags={"verdict": "passed"}, uri=uri)
        promote("demo", 1, reason="", by="ann", uri=uri)
        found.append(uri)
    monkeypatch.setattr(versions, "local_path", lambda location: None)
    return found


def test_a_champion_is_fetched_once_and_not_taken_for_another_registrys(
    registries: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, place = load_config("demo"), Workspace(tmp_path / "work")

    def fetched(uri: str) -> str:
        champion = find_champion(config, TrackingTarget(uri, "embedline"), place, tmp_path)
        assert champion.pin is not None
        assert champion.path is not None
        assert champion.path.is_relative_to(place.root)
        return (champion.path / "model.safetensors").read_text()

    assert [fetched(uri) for uri in registries] == ["staging", "production"]
    monkeypatch.setattr(downloads, "download", None)  # it is there
    assert [fetched(uri) for uri in registries] == ["staging", "production"]


def test_two_runs_that_fetch_it_at_once_share_one_copy(
    registries: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, place = load_config("demo"), Workspace(tmp_path / "work")
    here = TrackingTarget(registries[0], "embedline")
    check, first = downloads._check_arrived, []

    def meanwhile(*args: Any) -> None:
        """The other run is faster, once."""
        monkeypatch.setattr(downloads, "_check_arrived", check)
        first.append(find_champion(config, here, place, tmp_path))
        check(*args)

    monkeypatch.setattr(downloads, "_check_arrived", meanwhile)
    second = find_champion(config, here, place, tmp_path)
    assert first == [second]
    assert second.path is not None
    assert [path.name for path in second.path.parent.iterdir()] == [second.path.name]
    assert not [path for path in second.path.iterdir() if path.is_dir()]
