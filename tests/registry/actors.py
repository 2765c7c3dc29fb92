"""Run as a process of its own: forks actors that all begin at once, or that die before their n-th call.

One JSON list of jobs a line on standard input, one JSON list of results a line on standard output. A job has
`calls`, each with `do` (module:function below embedline.registry), `args` and `kwargs`; `kill_before`, the
number of the HTTP request before which the actor kills itself with SIGKILL; and `wait_s`, by how many seconds
it begins later than the others.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def act(job: dict[str, Any], begin: int, told: int) -> None:
    """Run a job in the child process: wait for the start, act, write the result."""
    import requests.adapters

    calls = 0
    send = requests.adapters.HTTPAdapter.send

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == job.get("kill_before"):
            os.kill(os.getpid(), signal.SIGKILL)
        return send(self, *args, **kwargs)

    requests.adapters.HTTPAdapter.send = counted  # type: ignore[method-assign]
    os.read(begin, 1)
    time.sleep(job.get("wait_s", 0))
    try:
        result: dict[str, Any] = {}
        for call in job["calls"]:
            module, name = call["do"].split(":")
            function = getattr(importlib.import_module(f"embedline.registry.{module}"), name)
            args = [Path(arg) if str(arg).startswith("/") else arg for arg in call["args"]]
            made = function(*args, **call["kwargs"])
            result["result"] = getattr(made, "__dict__", made)
    except Exception as error:
        result = {
            "error": type(error).__name__,
            "said": str(error),
            "code": getattr(error, "exit_code", None),
        }
    os.write(told, json.dumps({**result, "calls": calls}, default=str).encode())
    os._exit(0)


def fork(job: dict[str, Any]) -> tuple[int, int, int]:
    begin, started = os.pipe()
    told, telling = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(started)
        os.close(told)
        act(job, begin, telling)
    os.close(begin)
    os.close(telling)
    return pid, started, told


def read_all(told: int) -> bytes:
    parts = []
    while part := os.read(told, 65536):
        parts.append(part)
    return b"".join(parts)


def main() -> None:
    import mlflow  # noqa: F401  once, for all actors

    import embedline.registry.promotion
    import embedline.registry.reconcile
    import embedline.registry.versions  # noqa: F401

    for line in sys.stdin:
        forked = [fork(job) for job in json.loads(line)]
        for _, started, _ in forked:
            os.write(started, b"!")
        results = []
        for pid, started, told in forked:
            text = read_all(told)
            _, status = os.waitpid(pid, 0)
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            results.append(json.loads(text) if text else {"killed": killed})
            os.close(started)
            os.close(told)
        sys.stdout.write(json.dumps(results) + "\n")
        sys.stdout.flush()


main()
