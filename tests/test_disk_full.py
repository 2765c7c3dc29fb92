"""A full disk: one message, whatever library reported it, and a record that says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embedline.artifacts.record import StepRecord, read_records
from embedline.artifacts.run_folder import release_space, reserve_space
from embedline.errors import DiskFullError, EmbedlineError, disk_full
from embedline.execution.recorded import recorded

ERRORS = [
    OSError(28, "No space left on device"),
    OSError("Error writing bytes to file. Detail: [errno 28] No space left on device"),  # pyarrow
    RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),  # safetensors
    RuntimeError("(sqlite3.OperationalError) database or disk is full"),  # SQLAlchemy
    OSError(122, "Disk quota exceeded"),
]


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_a_full_disk_is_recognised_also_below_another_error(tmp_path: Path, error: Exception) -> None:
    try:
        raise EmbedlineError("the model cannot be saved.") from error
    except EmbedlineError as raised:
        found = disk_full(raised, tmp_path / "absent" / "folder")
    assert found is not None
    free = os.statvfs(tmp_path)
    megabytes = free.f_bavail * free.f_frsize / 1e6
    assert found.where == str(tmp_path / "absent" / "folder")
    assert float(found.what.split("; ")[1].split(" MB")[0].replace(",", "")) == pytest.approx(
        megabytes, rel=0.5
    )
    assert "clean-up" in found.fix


def test_the_file_that_could_not_be_written_is_named_and_other_errors_are_left(tmp_path: Path) -> None:
    error = OSError(28, "No space left on device", str(tmp_path / "model.safetensors"))
    found = disk_full(error, Path("/"))
    assert found is not None
    assert found.where == str(tmp_path / "model.safetensors")
    assert disk_full(PermissionError(13, "Permission denied"), tmp_path) is None


def test_a_step_on_a_full_disk_is_recorded_in_the_reserved_space(tmp_path: Path) -> None:
    reserve_space(tmp_path)
    assert (tmp_path / ".reserve").stat().st_size == 1_000_000
    step = tmp_path / "steps" / "clean"
    with pytest.raises(DiskFullError), recorded(step, StepRecord(step="clean", status="running"), tmp_path):
        raise OSError(28, "No space left on device")
    assert not (tmp_path / ".reserve").exists()
    (record,) = read_records(tmp_path)
    assert (record.status, record.exit_code, record.final) == ("failed", 1, True)
    assert record.error.startswith(f"{step}: no space is left on the disk; ")
    release_space(tmp_path)  # a second time


def test_space_that_cannot_be_reserved_leaves_nothing(tmp_path: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            reserve_space(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
