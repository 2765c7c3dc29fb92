"""The console is not the run: a lost terminal, one in ASCII, a full disk, and a run without its process."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from embedline.artifacts.record import StepRecord
from embedline.cli.console import lost_output, optional_console, prepare_streams
from embedline.dag import STEPS
from embedline.orchestration import local

pytestmark = pytest.mark.timeout(300)


def test_a_reader_that_leaves_early_and_an_ascii_terminal_do_not_end_the_run(line: Any) -> None:
    process = subprocess.Popen(
        line.command("--json"),
        env=line.environment("clean=whisper") | {"PYTHONIOENCODING": "ascii"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()  # as a reader that ended
    assert process.stderr is not None
    said = process.stderr.read().decode("ascii")  # nothing else was written
    assert process.wait(timeout=240) == 0, said
    assert "+ train_supervised" in said
    assert "Error" not in said
    record = line.record()
    assert record["status"] == "succeeded"
    assert f"close {record['run']} FINISHED" in line.told
    assert r"caf\xe9" in (line.work / "latest" / "log.txt").read_text(encoding="utf-8")


def test_a_full_disk_ends_the_run_with_one_message(line: Any) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))

    ended = subprocess.run(
        line.command(),
        env=line.environment("ingest=shout"),
        capture_output=True,
        text=True,
        timeout=240,
        preexec_fn=small_files,
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    log = line.work / line.record()["run"] / "log.txt"
    message = f"failed in ingest: {log}: a file is larger than this process may write (ulimit -f); "
    assert message in ended.stderr
    assert "MB are free. Free space (`embedline clean-up`" in ended.stderr
    assert "Traceback" not in ended.stderr
    record = line.record()
    assert (record["status"], record["exit_code"], record["error"]["step"]) == ("failed", 1, "ingest")
    assert not list(line.work.rglob(".reserve"))
    assert f"close {record['run']} FAILED" in line.told


def test_a_closed_terminal_does_not_end_the_run_and_a_lost_process_is_seen_by_the_next_command(
    line: Any,
) -> None:
    process = subprocess.Popen(
        line.command(),
        env=line.environment("pretrain=hang"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (started := list(line.work.glob("tiny-*/steps/pretrain/record.json"))):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    assert _run(line, "status")["runs"][0]["status"] == "running"
    process.kill()
    process.wait()
    run = started[0].parents[2]
    reported = _run(line, "report", run.name)
    listed = _run(line, "status")["runs"][0]
    assert (reported["status"], reported["exit_code"]) == ("killed", 1)
    assert {key: reported[key] for key in ("status", "error", "seconds")} == {
        key: listed[key] for key in ("status", "error", "seconds")
    }
    assert reported["error"]["step"] == "pretrain"
    assert reported["error"]["message"].startswith("The process of the run was killed")
    assert json.loads((run / "run.json").read_text())["status"] == "killed"
    assert line.told.count(f"close {run.name} KILLED") == 1
    assert "step pretrain KILLED" in line.told


def _run(line: Any, *command: str) -> Any:
    words = [sys.executable, "-m", "embedline.cli", *command, "--work", str(line.work), "--json"]
    ended = subprocess.run(words, env=line.environment(), capture_output=True, text=True, timeout=120)
    return json.loads(ended.stdout)


def test_a_display_that_fails_is_dropped_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    def broken(run_folder: Path, records: Any) -> None:
        calls.append(run_folder)
        raise KeyError("type")

    show = local._harmless(broken)
    for _ in range(3):
        show(tmp_path, [StepRecord(step=next(iter(STEPS)), status="running")])
    assert len(calls) == 1
    assert caplog.text.count("the display of the run failed; the run continues") == 1


def test_output_is_dropped_once_its_terminal_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with open(writer, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        prepare_streams()
        with optional_console():
            sys.stdout.write("seen\n")
            sys.stdout.flush()
            assert os.read(reader, 100) == b"seen\n"
            os.close(reader)
            for _ in range(3):
                sys.stdout.write("not seen\n")
                sys.stdout.flush()
        assert isinstance(lost_output(), BrokenPipeError)


@pytest.mark.parametrize(("arguments", "code"), [(("status",), 1), (("--version",), 1)])
def test_output_that_cannot_be_written_is_an_error_of_a_command_that_only_prints(
    line: Any, arguments: tuple[str, ...], code: int
) -> None:
    (line.work / ".embedline").mkdir(parents=True)
    more = ["--work", str(line.work)] if arguments == ("status",) else []
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "embedline.cli", *arguments, *more],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=line.environment(),
            timeout=120,
        )
    assert ended.returncode == code
    assert ended.stderr == "error: the output cannot be written (no space left on device).\n"
