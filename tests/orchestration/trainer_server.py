"""A small API server for TrainJobs: it refuses what the Trainer's models do not know, and does as it is told.

With `runs_them`, it starts a job's command as the Trainer's torch runtime would: an agent a node.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

_PATH = re.compile(r"^/apis/trainer\.kubeflow\.org/v1alpha1/namespaces/([^/]+)/trainjobs(?:/([^/]+))?$")
_LABEL = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
Job = dict[str, Any]


class TrainerServer:
    """Args:
    troubles: statuses to answer the next requests with, in order; -1 closes the connection unanswered.
    """

    def __init__(self, *, runs_them: bool = False) -> None:
        self.runs_them = runs_them
        self.jobs: dict[tuple[str, str], Job] = {}
        self.requests: list[tuple[str, int]] = []
        self.troubles: list[int] = []
        self.after: dict[int, Any] = {}  # number of the read, from 1 → what to do before answering it
        self.reads = 0
        self.agents: list[subprocess.Popen[str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self, "GET")

            def do_POST(self) -> None:
                server.answer(self, "POST")

            def do_DELETE(self) -> None:
                server.answer(self, "DELETE")

            def log_message(self, *_: Any) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        for agent in self.agents:
            agent.kill()

    def answer(self, handler: BaseHTTPRequestHandler, method: str) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if self.troubles:
            status = self.troubles.pop(0)
            self.requests.append((method, status))
            if status == -1:
                handler.close_connection = True
                return
            self._send(handler, status, {"kind": "Status", "message": f"told to answer {status}"})
            return
        found = _PATH.match(handler.path)
        status, value = (404, _status("the server could not find the requested resource"))
        if found and method == "GET" and found[2]:
            status, value = self._read(found[1], found[2])
        elif found and method == "POST" and not found[2]:
            status, value = self._create(found[1], json.loads(body))
        self.requests.append((method, status))
        self._send(handler, status, value)

    def _read(self, namespace: str, name: str) -> tuple[int, Any]:
        self.reads += 1
        if act := self.after.get(self.reads):
            act()
        if self.runs_them:
            self._judge_agents()
        job = self.jobs.get((namespace, name))
        return (200, job) if job else (404, _status(f'trainjobs "{name}" not found'))

    def _create(self, namespace: str, body: Job) -> tuple[int, Any]:
        try:
            job = TrainerV1alpha1TrainJob.from_dict(body)
            known = job.to_dict() if job else None
        except ValueError as error:
            return 422, _status(str(error))
        if known != body:
            return 422, _status("unknown fields")
        name = body["metadata"]["name"]
        if not _LABEL.match(name) or len(name) > 63 or body["metadata"]["namespace"] != namespace:
            return 422, _status("not a DNS label, or of another namespace")
        if (namespace, name) in self.jobs:
            return 409, _status(f'trainjobs "{name}" already exists')
        self.jobs[namespace, name] = {**body, "status": {}}
        if self.runs_them:
            self._run(body)
        return 201, self.jobs[namespace, name]

    def end(self, kind: str, reason: str = "JobsCompleted", message: str = "") -> None:
        """Give every job a terminal condition."""
        for job in self.jobs.values():
            condition = {"type": kind, "status": "True", "reason": reason, "message": message}
            job["status"] = {"conditions": [condition | {"lastTransitionTime": "2026-11-20T10:00:00Z"}]}

    def _run(self, body: Job) -> None:
        """Start one agent per node, with the variables that the Trainer's torch plugin sets."""
        trainer = body["spec"]["trainer"]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        for node in range(trainer["numNodes"]):
            told = {
                "PET_NNODES": str(trainer["numNodes"]),
                "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
                "PET_NODE_RANK": str(node),
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": str(port),
            }
            given = {entry["name"]: entry["value"] for entry in trainer["env"] if "value" in entry}
            environment = {k: v for k, v in os.environ.items() if k != "KUBERNETES_SERVICE_HOST"}
            self.agents.append(
                subprocess.Popen(
                    [sys.executable, *trainer["command"][1:]],
                    env=environment | given | told | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )

    def _judge_agents(self) -> None:
        codes = [agent.poll() for agent in self.agents]
        if any(code not in (None, 0) for code in codes):
            self.end("Failed", "JobsFailed", "jobset failed due to one or more job failures")
        elif codes and all(code == 0 for code in codes):
            self.end("Complete")

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, status: int, value: Any) -> None:
        content = json.dumps(value).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)


def _status(message: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message}
