"""The tiny forms of the three reports, through the real command: what really ran, and what it left."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@dataclass(frozen=True)
class Run:
    """A finished run's folder."""

    folder: Path

    @cached_property
    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        return found

    @cached_property
    def card(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "model" / "embedline.json").read_text("utf-8"))
        return found

    @property
    def trained(self) -> list[tuple[str, str]]:
        """Step and objective of each training, as the model itself tells."""
        return [(done["step"], done["objective"]) for done in self.card["lineage"] if "objective" in done]

    @cached_property
    def scores(self) -> list[dict[str, Any]]:
        outputs = next(step for step in self.record["steps"] if step["step"] == "evaluate")["outputs"]
        lines = (
            (self.folder.parent / outputs["scores"]["path"] / "scores.jsonl")
            .read_text(encoding="utf-8")
            .splitlines()
        )
        return [row for row in map(json.loads, lines) if row["main"]]

    def told(self, step: str) -> dict[str, list[float]]:
        """What a step measured while it trained, by name."""
        found: dict[str, list[float]] = {}
        for line in (self.folder / "steps" / step / "spool.jsonl").read_text("utf-8").splitlines():
            row = json.loads(line)
            if row["type"] == "metric":
                found.setdefault(row["key"], []).append(row["value"])
        return found

    def score(self, of_set: str, **wanted: Any) -> float:
        rows = [r for r in self.scores if r["set"] == of_set and all(r[k] == v for k, v in wanted.items())]
        assert len(rows) == 1, rows
        value: float = rows[0]["value"]
        return value


def finished(work: Path, preset: str) -> Run:
    """Runs a preset and checks what every run must have done."""
    command = [sys.executable, "-m", "embedline.cli", "run", preset, "--work", str(work)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1700)
    assert done.returncode == 0, done.stdout + done.stderr
    run = Run((work / "latest").resolve())
    assert run.record["status"] == "succeeded"
    assert {step["status"] for step in run.record["steps"]} == {"done"}
    assert run.record["verdict"]["passed"]
    assert run.record["model"]["version"] == 1
    assert run.record["model"]["alias"] == "champion"
    assert (run.folder / "report.html").is_file()
    parity = json.loads((run.folder / "onnx" / "parity.json").read_text(encoding="utf-8"))
    assert parity["passed"]
    for step in ("pretrain", "train_unsupervised"):
        losses = run.told(step)["loss"]
        assert losses[-1] < losses[0], f"{step} learnt nothing: {losses}"
    assert all(math.isfinite(loss) for loss in run.told("train_supervised")["loss"])
    return run


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def test_nomic_embed_tiny(work: Path) -> None:
    run = finished(work / "nomic", "nomic-embed-tiny")
    assert run.trained == [
        ("pretrain", "masked tokens"),
        ("train_unsupervised", "InfoNCE"),
        ("train_supervised", "InfoNCE"),
    ]
    assert run.card["pooling"] == "mean"
    assert run.card["heads"] == ["dense"]
    assert run.card["dims"] == [32, 16]
    assert run.card["prompts"]["default"] == {"query": "search_query: ", "document": "search_document: "}
    saved = json.loads((run.folder / "model" / "config.json").read_text(encoding="utf-8"))
    assert saved["model_type"] == "embedline"  # no other library stretches each text by its own length
    config = saved["backbone"]
    assert config["model_type"] == "nomic_bert"
    assert config["rope_parameters"]["rope_type"] == "dynamic"
    assert config["max_position_embeddings"] == 48  # where the scaling begins
    assert "token_loss" in run.told("pretrain")
    learnt(run, untaught="untrained")
    dims = {row["dim"] for row in run.scores if row["model"] == "candidate" and row["runtime"] == "torch"}
    assert dims == {64, 32, 16}
    assert {"onnx-fp32", "onnx-int8"} <= {row["runtime"] for row in run.scores}
    long_texts_get_vectors_of_their_own(run.folder / "model")


def learnt(run: Run, untaught: str, dim: int = 64) -> None:
    """Check that the model's dense vectors rank far better than chance and than those before training.

    Chance is 0.006 at 792 documents.
    """
    words = {"head": "dense", "runtime": "torch", "dim": dim}
    score = run.score("SupportQA_ru", model="candidate", **words)
    assert score >= max(0.1, run.score("SupportQA_ru", model=untaught, **words) + 0.05), score


def long_texts_get_vectors_of_their_own(model: Path) -> None:
    """Beyond the trained length a text's vector is the same alone and beside a longer one."""
    import numpy as np

    from embedline.models.folder import load_embedder

    embedder = load_embedder(model)
    texts = ["слово " * 70, "другое слово " * 110]
    alone = np.concatenate([embedder.encode([text]) for text in texts])
    assert np.abs(embedder.encode(texts) - alone).max() < 1e-5


def test_bge_m3_tiny(work: Path) -> None:
    run = finished(work / "m3", "bge-m3-tiny")
    assert run.trained == [
        ("pretrain", "RetroMAE"),
        ("train_unsupervised", "InfoNCE"),
        ("train_supervised", "dense, lexical and multi-vector InfoNCE"),
    ]
    assert run.card["heads"] == ["dense", "lexical", "multi_vector"]
    assert (run.card["pooling"], run.card["mcls_every"]) == ("mcls", 32)
    assert {"encoder_loss", "decoder_loss"} <= set(run.told("pretrain"))
    tuned = run.told("train_supervised")
    for head in run.card["heads"]:
        assert f"{head}_loss" in tuned, sorted(tuned)
    # batches of each length, and no others
    shares = next(done for done in run.card["lineage"] if done["step"] == "train_unsupervised")["shares"]
    assert {name.rpartition(", ")[2] for name in shares} <= {"24 tokens", "64 tokens", "128 tokens"}
    assert len({name.rpartition(", ")[2] for name in shares}) > 1
    for runtime in ("torch", "onnx-fp32", "onnx-int8"):
        rows = [r for r in run.scores if r["model"] == "candidate" and r["set"] == "SupportQA_ru"]
        heads = [row["head"] for row in rows if row["runtime"] == runtime]
        assert sorted(heads) == ["dense", "hybrid", "lexical", "multi_vector"], runtime
    learnt(run, untaught="untrained")
    backbone = json.loads((run.folder / "model" / "config.json").read_text(encoding="utf-8"))
    sizes = backbone.get("backbone", backbone)
    assert sizes["max_position_embeddings"] >= 320


def test_giga_embeddings_tiny(work: Path) -> None:
    run = finished(work / "giga", "giga-embeddings-tiny")
    assert run.trained == [
        ("pretrain", "masked next tokens, from the base's own head"),
        ("train_unsupervised", "InfoNCE"),
        ("train_supervised", "InfoNCE"),
    ]
    assert run.card["pooling"] == "latent"
    assert run.card["latent"] == {"latents": 16, "heads": 4}
    pruned = next(done for done in run.card["lineage"] if done["step"] == "prune_before")
    assert len(pruned["kept_layers"]) == 3  # of 4
    assert run.card["prompts"]["short-long"] == {"instruct": "answer"}
    assert "cosent_loss" not in run.told("train_supervised")  # no source here has scores
    assert run.score("SupportSTS", model="candidate", head="dense", runtime="torch", dim=64) > 0.2
    learnt(run, untaught="base")
    sees_the_future(run.folder / "model")


def sees_the_future(model: Path) -> None:
    """A changed last token moves the first state: nothing of the causal mask is left."""
    import torch

    from embedline.models.folder import load_embedder

    embedder = load_embedder(model).eval()
    ids = embedder.tokenize(["привет мир, привет"], max_length=32)[0]
    other = [*ids[:-1], ids[-1] - 1]
    with torch.no_grad():
        states, _ = embedder.states(**embedder.pad([ids, other]))
    assert (states[0, 0] - states[1, 0]).abs().max() > 1e-4


def test_what_init_writes_runs_as_it_is(tmp_path: Path) -> None:
    """The example rows, a share of them held out: the whole line, and a model that learnt from them."""
    folder = tmp_path / "my-search"
    for words in (
        ["init", str(folder)],
        ["run", str(folder / "preset.yaml"), "--work", str(tmp_path / "runs")],
    ):
        command = [sys.executable, "-m", "embedline.cli", *words]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1700)
        assert done.returncode == 0, done.stdout + done.stderr
    run = Run((tmp_path / "runs" / "latest").resolve())
    assert run.record["model"]["name"] == "my-search"
    trained = {name for name, _ in run.trained}
    assert {"pretrain", "train_unsupervised", "train_supervised"} <= trained
    words = {"head": "dense", "runtime": "torch", "dim": 128}
    score = run.score("held_out", model="candidate", **words)
    assert score >= max(0.1, run.score("held_out", model="untrained", **words) + 0.05), score
