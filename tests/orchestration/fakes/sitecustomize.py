"""Put on PYTHONPATH: every step of the line becomes a quick one, in every process of a run.

What the real steps do is tested elsewhere; this lets the orchestration be tested with real processes.
EMBEDLINE_FAKE holds `step=what` words: a step can `raise`, `refuse`, `bad-input`, `die` (SIGKILL),
`die-once`, `hang`, `flaky` (an unexpected error, once), `leak` (shows its secrets in every way), `shout`
(writes ten megabytes to the log), `whisper` (writes bytes that are not UTF-8 to the log).
"""

import base64
import json
import logging
import os
import signal
import sys
import time
import types
from pathlib import Path
from urllib.parse import quote

MODULES = ["ingest", "clean", "prune", "pretrain", "train_unsupervised", "mine", "train_supervised"]
MODULES += ["export", "evaluate", "gate", "promote", "report"]


def _run(context):
    from embedline.dag import STEPS
    from embedline.errors import InputError, StepError
    from embedline.steps.context import StepResult

    for wanted in os.environ.get("EMBEDLINE_FAKE", "").split():
        step, _, what = wanted.partition("=")
        if step != context.step:
            continue
        once = context.workspace.internal / f"once-{step}"
        first = not once.exists()
        once.touch()
        if what == "raise":
            raise StepError("the loss is not a number.", where=f"step {step}", fix="Lower the learning rate.")
        if what == "bad-input":
            raise InputError("no row has a positive.", where="pairs.jsonl", fix="Fill pos.")
        if what == "die" or (what == "die-once" and first):
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "flaky" and first:
            raise ConnectionError("the network went away")
        if what == "leak":
            _leak(context)
        if what == "hang":
            time.sleep(120)
        if what == "shout":
            for _ in range(100):
                sys.stdout.write("x" * 100_000 + "\n")
        if what == "whisper":
            os.write(1, b"caf\xe9\n")
    with (context.workspace.internal / "calls.txt").open("a") as file:
        file.write(context.step + "\n")
    context.tracker.metrics({"loss": 0.5}, step=1)
    context.tracker.metrics({"loss": 0.25}, step=2)
    handed = {}
    for name, kind in STEPS[context.step].outputs.items():
        if context.step == "prune_after":
            handed[name] = context.artifact("model")
        elif context.step == "prune_before":
            handed[name] = None
        else:
            _write(context.output(name), name, kind, context)
    time.sleep(0.05)
    return StepResult(
        metrics={"rows": 3.0},
        summary=f"**{context.step}** done",
        counts={} if handed else {name: {"rows": 3} for name in STEPS[context.step].outputs},
        passed_through=handed,
    )


def _leak(context) -> None:
    from embedline.config.secrets import resolve_secret

    token = os.environ["MLFLOW_TRACKING_TOKEN"]
    mounted = resolve_secret("secret:team/key", where="x")
    for secret in (token, mounted):
        basic = base64.b64encode(f"me:{secret}".encode()).decode()
        text = f"{secret} {secret + chr(10)!r} {quote(secret)} {quote(secret, safe='')} Basic {basic}"
        sys.stdout.write(f"{text}\n")
        sys.stderr.write(f"{text}\n")
        logging.getLogger("library").warning("sent %s", text)
        context.tracker.params({"sent": text})
        context.tracker.tags({"header": text})
    os.write(1, f"from below: {token}\n".encode())
    raise ValueError(f"Invalid header value {f'Bearer {token} {mounted}'.encode()!r}")


def _write(folder: Path, name: str, kind: str, context) -> None:
    values = {"step": context.step, "seed": context.step_config.config.get("seed", 0)}
    if kind == "verdict":
        fake = os.environ.get("EMBEDLINE_FAKE", "")
        refused = "gate=refuse" in fake
        reasons = [{"rule": "rules.0", "passed": not refused, "text": "Support scores 0.71, needs 0.70."}]
        values = {"passed": not refused, "mode": "enforce", "reasons": reasons}
        if "gate=unjudged" in fake:
            reasons = [{"rule": "rules", "passed": True, "note": "unchecked", "text": "No set was scored."}]
            reasons.append({"rule": "below_bm25", "passed": True, "note": "warning", "text": "Below BM25."})
            values |= {"outcome": "not judged", "passed": False, "would_pass": False, "reasons": reasons}
    if kind == "promotion":
        text = "To promote it all the same: embedline promote tiny 1"
        values = {"name": "tiny", "version": 1, "aliases": {"champion": 1}, "text": text}
    if kind == "report":
        (folder / "report.html").write_text("<p>fake</p>")
    if kind == "scores":
        row = {"set": "Support", "kind": "retrieval", "metric": "ndcg@10", "main": True, "runtime": "torch"}
        row |= {"dim": 8}
        rows = [
            {**row, "model": model, "value": value} for model, value in (("bm25", 0.4), ("candidate", 0.7))
        ]
        (folder / "scores.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    file = "verdict.json" if kind == "verdict" else f"{kind}.json"
    (folder / file).write_text(json.dumps(values))


for _name in MODULES:
    _module = types.ModuleType(f"embedline.steps.{_name}")
    _module.run = _run
    sys.modules[_module.__name__] = _module


class _Mirror:
    """Writes the calls of a tracking server to a file."""

    def __init__(self, uri, experiment, artifact_root=None):
        self.file = Path(uri.removeprefix("fake://"))

    def _say(self, *words):
        with self.file.open("a") as file:
            file.write(" ".join(map(str, words)) + "\n")

    def parent(self, run_id, tags=None, metrics=None):
        for name, value in (metrics or {}).items():
            self._say("score", name, value)
        return "1"

    def reopen(self, run_id):
        self._say("open", run_id)

    def replay(self, run_folder, run_id):
        return 0

    def end_step(self, run_id, step, status):
        self._say("step", step, status)

    def close(self, run_id, status):
        self._say("close", run_id, status)


if os.environ.get("MLFLOW_TRACKING_URI", "").startswith("fake://"):
    _tracking = types.ModuleType("embedline.registry.tracking")
    _tracking.RunMirror, _tracking.prepare = _Mirror, lambda uri, **_: None
    _versions = types.ModuleType("embedline.registry.versions")
    _versions.get_champion = lambda *_, **__: None
    _versions.aliases = lambda *_, **__: {"champion": 1}
    sys.modules[_tracking.__name__], sys.modules[_versions.__name__] = _tracking, _versions
