"""A registered version whose stored files are damaged is used nowhere, and the file is named."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from embedline.artifacts.manifest import Artifact
from embedline.artifacts.workspace import Workspace
from embedline.cli.find_model import find_model
from embedline.config.load import load_config
from embedline.errors import StepError
from embedline.planning.champion import find_champion
from embedline.registry.copy import promote_across
from embedline.registry.download import download, downloaded
from embedline.registry.promotion import promote, rollback
from embedline.registry.reconcile import reconcile
from embedline.registry.server import default_uri, prepare
from embedline.registry.tracking_target import TrackingTarget
from embedline.registry.versions import aliases, get_champion, register

Use = Callable[[str, Path], object]


def damage(path: Path) -> None:
    """Overwrite bytes in place; size and time stay."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        file.write(bytes(8))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def stored(uri: str, version: int) -> Path:
    """Return the folder of a version's files."""
    client = MlflowClient(uri, uri)
    client.set_registered_model_alias("demo", "look", str(version))
    found = get_champion("demo", "look", uri=uri)
    client.delete_registered_model_alias("demo", "look")
    assert found is not None
    assert found.path is not None
    return found.path


@pytest.fixture
def three(uri: str, make_model: Callable[[str], Artifact]) -> str:
    """Three versions of `demo`: the second is champion, the first was it before."""
    for content in ("one", "two", "six"):
        model = make_model(content)
        register("demo", model.path, digest=model.digest, tags={"verdict": "passed"}, uri=uri)
    for version in (1, 2):
        promote("demo", version, reason="", by="ann", uri=uri)
    return uri


def copied(uri: str, folder: Path) -> object:
    to_uri = default_uri(folder / "production")
    prepare(to_uri)
    return promote_across("demo", 3, uri=uri, to_uri=to_uri, reason="", by="ann")


def restored(uri: str, folder: Path) -> object:
    MlflowClient(uri, uri).set_registered_model_alias("demo", "champion", "1")
    return reconcile("demo", uri=uri, by="ann", restore=True)


def competed_with(uri: str, folder: Path) -> object:
    return find_champion(
        load_config("demo"), TrackingTarget(uri, "embedline"), Workspace(folder / "work"), folder
    )


USES: dict[str, tuple[int, Use]] = {
    "promote": (3, lambda uri, folder: promote("demo", 3, reason="", by="ann", uri=uri)),
    "promote the champion": (2, lambda uri, folder: promote("demo", 2, reason="", by="ann", uri=uri)),
    "rollback": (1, lambda uri, folder: rollback("demo", by="ann", uri=uri)),
    "promote --to-uri": (3, copied),
    "reconcile --restore": (2, restored),
    "a run's champion": (2, competed_with),
    "embed and search": (2, lambda uri, folder: find_model("models:/demo@champion", folder, uri)),
    "download": (3, lambda uri, folder: download("demo", 3, folder / "copy", uri=uri)),
}


@pytest.mark.parametrize("use", USES)
def test_a_damaged_file_of_a_version_is_named_and_not_used(three: str, tmp_path: Path, use: str) -> None:
    version, act = USES[use]
    path = stored(three, version) / "model.safetensors"
    recorded = hashlib.sha256(path.read_bytes()).hexdigest()
    damage(path)
    before = aliases("demo", uri=three)
    with pytest.raises(StepError) as raised:
        act(three, tmp_path)
    said = str(raised.value)
    assert "model.safetensors has changed since it was registered" in said
    assert f"demo version {version}" in said
    assert f"SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}, recorded {recorded}" in said
    assert "Restore the file" in raised.value.fix
    if use != "reconcile --restore":
        assert aliases("demo", uri=three) == before


def test_a_missing_file_and_a_missing_folder_of_a_version_are_named(three: str) -> None:
    folder = stored(three, 3)
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(StepError, match=r"1_Pooling/config\.json is missing since"):
        promote("demo", 3, reason="", by="ann", uri=three)
    folder.rename(folder.with_name("moved"))
    with pytest.raises(StepError, match=r"config\.json is missing since it was registered \(and 1 more\)"):
        promote("demo", 3, reason="", by="ann", uri=three)


def test_a_damaged_download_is_downloaded_again(three: str, tmp_path: Path) -> None:
    folder = downloaded("demo", 3, tmp_path / "copy", uri=three)
    content = (folder / "model.safetensors").read_bytes()
    kept = (folder / "model.safetensors").stat().st_ino
    assert downloaded("demo", 3, folder, uri=three) == folder
    assert (folder / "model.safetensors").stat().st_ino == kept
    damage(folder / "model.safetensors")
    downloaded("demo", 3, folder, uri=three)
    assert (folder / "model.safetensors").read_bytes() == content


def test_files_in_the_registry_are_on_the_disk_before_the_version_is_ready(
    uri: str, make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, finalize = os.fsync, MlflowClient.finalize_logged_model

    def flushed(handle: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    def ready(self: MlflowClient, *args: Any) -> Any:
        events.append("READY")
        return finalize(self, *args)

    model = make_model("one")
    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(MlflowClient, "finalize_logged_model", ready)
    register("demo", model.path, digest=model.digest, tags={}, uri=uri)
    before = events[: events.index("READY")]
    assert {"model.safetensors", "1_Pooling", "config.json", "artifacts"} <= set(before)
