"""Claims on a train key: exactly one of several processes wins."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from mlflow import MlflowClient

from embedline.registry import claims as module
from embedline.registry.claims import Claims


def test_claim_is_taken_settled_and_followed_by_the_next(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    claims = Claims(uri, "mine")
    assert claims.newest("key") is None
    assert claims.take("key", 0, "here")
    assert not claims.take("key", 0, "here")
    newest = Claims(uri, "mine").newest("key")
    assert newest is not None
    assert (newest.number, newest.by, newest.settled, newest.pending) == (0, "here", None, True)
    monkeypatch.setattr(module, "LEASE_S", 0.0)  # its holder has had its time
    assert not newest.pending
    monkeypatch.undo()
    claims.settle("key", 0, "run-1")
    claims.settle("key", 0, "run-2")
    settled = claims.newest("key")
    assert settled is not None
    assert (settled.settled, settled.pending) == ("run-1", False)
    assert claims.take("key", 1, "there")
    assert claims.newest("other") is None
    assert Claims(uri, "another model").newest("key") is None


def test_concurrent_claims_on_a_new_model_one_wins(uri: str) -> None:
    code = (
        "import sys\nfrom embedline.registry.claims import Claims\n"
        "from embedline.registry.server import client\nclient(sys.argv[1])\nprint('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(Claims(sys.argv[1], 'mine').take('key', 0, sys.argv[2]))"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, uri, str(n)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(8)
    ]
    for process in started:  # all are waiting at the same line
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda process: process.communicate("go\n", timeout=240)[0].strip(), started))
    assert sorted(told) == ["False"] * 7 + ["True"]
    client = MlflowClient(tracking_uri=uri)
    ledger = client.get_experiment_by_name(module.EXPERIMENT)
    assert len(client.search_runs([ledger.experiment_id])) == 1  # the others took theirs back
