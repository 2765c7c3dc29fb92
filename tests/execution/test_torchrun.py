"""Worker processes: they share the cores, and bad input of one stays bad input, so that no retry begins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from embedline.environment import THREADS
from embedline.errors import EmbedlineError, InputError
from embedline.execution import torchrun
from embedline.execution.delegation import DelegatedStep
from embedline.execution.torchrun import _cause


@pytest.mark.parametrize(("code", "kind"), [(2, InputError), (1, EmbedlineError)])
def test_bad_input_of_any_process_is_an_input_error(
    tmp_path: Path, code: int, kind: type[EmbedlineError]
) -> None:
    delegated = DelegatedStep("pretrain", "key", "run", tmp_path, "{}", {})
    failure = ProcessFailure(local_rank=1, pid=1, exitcode=code, error_file="")
    error = _cause(ChildFailedError("worker", {1: failure}), delegated, 2)
    assert type(error) is kind
    assert "process 1 of 2 failed" in str(error)


@pytest.mark.parametrize(
    ("cores", "processes", "own", "share"), [(8, 3, 8, "2"), (2, 4, 8, "1"), (16, 2, 8, "4")]
)
def test_worker_processes_share_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, processes: int, own: int, share: str
) -> None:
    from torch.distributed.launcher import api

    seen: list[dict[str, str]] = []

    def launched(*_: Any) -> Any:
        return lambda *_: seen.append({name: os.environ[name] for name in THREADS})

    monkeypatch.setattr(api, "elastic_launch", launched)
    monkeypatch.setattr(torchrun, "usable_cores", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: own)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    torchrun.launch(DelegatedStep("pretrain", "key", "run", tmp_path, "{}", {}), processes)
    assert seen == [dict.fromkeys(THREADS, share)]
    assert os.environ["OMP_NUM_THREADS"] == "8"
    assert "RAYON_NUM_THREADS" not in os.environ
