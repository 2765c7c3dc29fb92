"""Short trainings that can be killed: `trainings.py` reads one order a line, and forks a child for each.

An order is `{"stage", "folder", "kill"}`. The child trains with its checkpoints in FOLDER, or goes on from
those that are there, and leaves `weights.safetensors` and `history.json` there. Kills (SIGKILL, by itself):

- `{"at": "save", "boundary": n}`: before the n-th thing that its second checkpoint does to the disk;
- `{"at": "second pass", "chunk": n}`: in the middle of GradCache's n-th second encoding.

Two lines answer: the child's pid, and how it ended (a negative signal, or 0). Importing torch takes seconds,
forking does not: that is why there is a server.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

import torch
from safetensors.torch import save_file
from shared_batches import TEXTS, embedder, records

from embedline.compress.heal import heal
from embedline.config.training import ContrastiveConfig, DistillationConfig, PretrainConfig
from embedline.training.contrastive.gradcache import GradCache
from embedline.training.contrastive.teacher import Teacher
from embedline.training.contrastive.training import train_contrastive
from embedline.training.engine import trainer as engine
from embedline.training.engine.checkpoints import newest_whole
from embedline.training.pretraining import pretrain

STEPS, EVERY = 12, 3
SHARED = {"steps": STEPS, "checkpoint_every": EVERY, "log_every": 2, "batch_tokens": 128}
DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
HEADS = ("lexical", "multi_vector")
TRIPLETS = {"batch": 8, "negatives": 2}
History = list[tuple[int, dict[str, float]]]
WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


def contrastive(folder: Path, history: History, *heads: str, taught: bool = False, **over: Any) -> Any:
    model = embedder(*heads, **DROPOUT)
    rows = [*records(24), *records(16, scored=True, source="sts")]
    config = ContrastiveConfig(**(SHARED | TRIPLETS | over))
    teacher = None
    if taught:
        other, kept = embedder(seed=5).eval(), folder / "teacher"
        teacher = Teacher(other, ["ru"], DistillationConfig(), width=model.width, folder=kept)
    train_contrastive(
        model,
        rows,
        config,
        weights={},
        seed=3,
        bf16=False,
        checkpoints=folder,
        on_metrics=lambda values, step: history.append((step, values)),
        teacher=teacher,
    )
    return model


def pretraining(folder: Path, history: History, objective: str) -> Any:
    decoder = objective == "mntp"
    model = embedder(architecture="llama" if decoder else "bert", **({} if decoder else DROPOUT))
    config = PretrainConfig(**SHARED, objective=objective, batch=8, length=24, bag_of_words=0.5)
    pretrain(
        model,
        TEXTS,
        config,
        seed=3,
        bf16=False,
        checkpoints=folder,
        on_metrics=lambda values, step: history.append((step, values)),
    )
    return model


def healing(folder: Path, history: History) -> Any:
    model = embedder(num_hidden_layers=1)
    heal(
        model,
        embedder(),
        TEXTS,
        steps=STEPS,
        batch=8,
        learning_rate=1e-3,
        batch_tokens=128,
        seed=3,
        bf16=False,
        checkpoints=folder,
        on_metrics=lambda values, step: history.append((step, values)),
    )
    return model


STAGES: dict[str, Callable[[Path, History], Any]] = {
    "retromae": lambda folder, history: pretraining(folder, history, "retromae"),
    "mlm": lambda folder, history: pretraining(folder, history, "mlm"),
    "mntp": lambda folder, history: pretraining(folder, history, "mntp"),
    "infonce": lambda folder, history: contrastive(
        folder, history, matryoshka=True, learnable_temperature=True, resident_tokens=64
    ),
    "unified": lambda folder, history: contrastive(
        folder, history, *HEADS, objective="unified", resident_tokens=0
    ),
    "distilled": lambda folder, history: contrastive(folder, history, taught=True, resident_tokens=0),
    "healing": healing,
}


def train(order: dict[str, Any]) -> None:
    folder, history = Path(order["folder"]), History()
    folder.mkdir(parents=True, exist_ok=True)
    whole = newest_whole(folder / "checkpoints")
    arm(order.get("kill") or {})
    (folder / "began").touch()
    model = STAGES[order["stage"]](folder / "checkpoints", history)
    if order.get("kill"):
        (folder / "boundaries").write_text(str(len(SEEN)))
    save_file({name: p.detach() for name, p in model.named_parameters()}, folder / "weights.safetensors")
    (folder / "history.json").write_text(
        json.dumps({"history": history, "from": whole.name if whole else None})
    )


SEEN: list[str] = []


def arm(kill: dict[str, Any]) -> None:
    if kill.get("at") == "save":
        _at_boundary(int(kill["boundary"]))
    elif kill.get("at") == "second pass":
        _in_second_pass(int(kill["chunk"]))


def _at_boundary(number: int) -> None:
    """Kill before the n-th change of the disk by the second save; a number never reached counts them."""
    saves: list[int] = []
    saving = threading.local()
    real = engine._StepTrainer._maybe_log_save_evaluate

    def save(self: Any, *arguments: Any, **named: Any) -> Any:
        if self.control.should_save:
            saves.append(self.state.global_step)
        saving.now = len(saves) == 2 and self.control.should_save
        try:
            return real(self, *arguments, **named)
        finally:
            saving.now = False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if not getattr(saving, "now", False):
            return
        writes = (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if writes or event in WRITES:
            SEEN.append(event)
            if len(SEEN) == number:
                os.kill(os.getpid(), signal.SIGKILL)

    engine._StepTrainer._maybe_log_save_evaluate = save  # type: ignore[method-assign]
    sys.addaudithook(watch)


def _in_second_pass(number: int) -> None:
    real, seen = GradCache._backward, []

    def backward(self: Any, chunk: Any, *arguments: Any) -> Any:
        if chunk.resident is not None:  # resident: there is no second pass
            return real(self, chunk, *arguments)
        seen.append(chunk)
        encode = self._encode

        def killed(*inputs: Any) -> Any:
            encoded = encode(*inputs)
            os.kill(os.getpid(), signal.SIGKILL)
            return encoded

        if len(seen) == number:
            self._encode = killed
        return real(self, chunk, *arguments)

    GradCache._backward = backward  # type: ignore[method-assign]


def serve() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                train(order)
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        print(pid, flush=True)  # noqa: T201
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    serve()
