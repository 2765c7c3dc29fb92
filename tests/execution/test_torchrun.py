"""The error of a worker process: bad input stays bad input, so that no retry begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from embedline.errors import EmbedlineError, InputError
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
