"""Which output feeds which input, for predicting a plan.

The DAG is pipeline.py; a test holds the two together.
"""

from __future__ import annotations

_DATASET = {"dataset": "clean.dataset"}
_CANDIDATE = "prune_after.model"

WIRING: dict[str, dict[str, str]] = {
    "ingest": {},
    "clean": {"dataset": "ingest.dataset", "evaluation": "ingest.evaluation"},
    "prune_before": _DATASET,
    "pretrain": {"model": "prune_before.model", **_DATASET},
    "train_unsupervised": {"model": "pretrain.model", **_DATASET},
    "mine": {"model": "train_unsupervised.model", **_DATASET},
    "train_supervised": {"model": "train_unsupervised.model", "triplets": "mine.triplets"},
    "prune_after": {"model": "train_supervised.model", **_DATASET},
    "export": {"model": _CANDIDATE, "evaluation": "ingest.evaluation"},
    "evaluate": {
        "pretrained": "pretrain.model",
        "unsupervised": "train_unsupervised.model",
        "supervised": "train_supervised.model",
        "candidate": _CANDIDATE,
        "onnx": "export.onnx",
        "evaluation": "ingest.evaluation",
    },
    "gate": {"scores": "evaluate.scores", "onnx": "export.onnx", "candidate": _CANDIDATE},
    "promote": {
        "verdict": "gate.verdict",
        "scores": "evaluate.scores",
        "candidate": _CANDIDATE,
        "onnx": "export.onnx",
    },
    "report": {
        **_DATASET,
        "triplets": "mine.triplets",
        "onnx": "export.onnx",
        "scores": "evaluate.scores",
        "verdict": "gate.verdict",
        "promotion": "promote.promotion",
    },
}
