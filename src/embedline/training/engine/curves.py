"""Names and meanings of a training's curves, and the line of text that is made of them.

Light to import: showing curves needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

# The phases of a step, in their order.
PHASES = ("data", "forward", "backward", "optimizer", "logging")

_ALL = ("pretrain", "contrastive", "heal")
_CONTRASTIVE = ("contrastive",)


class Curve(NamedTuple):
    """One series over optimizer steps: its description, and the kinds of training that have it."""

    description: str
    trainings: tuple[str, ...] = _ALL


NOTE = (
    "Means over `log_every` steps and over the processes, unless the description differs. °: measured at the "
    "logged step, on at most 1,024 of its queries (objective unified measures its dense loss at every step)."
)
CURVES: dict[str, Curve] = {
    "loss": Curve("the loss that is minimised"),
    "loss.SOURCE": Curve("the loss on the batches of one source (and bucket)", _CONTRASTIVE),
    "dense_loss": Curve("InfoNCE of the dense scores alone, at full width °", _CONTRASTIVE),
    "lexical_loss": Curve("InfoNCE of the lexical scores (objective unified)", _CONTRASTIVE),
    "multi_vector_loss": Curve("InfoNCE of the multi-vector scores (objective unified)", _CONTRASTIVE),
    "cosent_loss": Curve("CoSENT loss, on records with scores", _CONTRASTIVE),
    "distillation_loss": Curve("distance of the model from its teacher, unweighted", _CONTRASTIVE),
    "token_loss": Curve("cross-entropy of the hidden tokens (mlm, mntp)", ("pretrain",)),
    "encoder_loss": Curve("RetroMAE: cross-entropy of the encoder's hidden tokens", ("pretrain",)),
    "decoder_loss": Curve("RetroMAE: cross-entropy of the rebuilt tokens", ("pretrain",)),
    "words_loss": Curve("RetroMAE: prediction of the words that the text holds, unweighted", ("pretrain",)),
    "cosine": Curve("mean cosine to the unpruned model's vectors of the same texts", ("heal",)),
    "in_batch_accuracy": Curve(
        "share of queries whose positive's cosine is above that of every negative; documents that "
        "false_negative_margin masks count as negatives °",
        _CONTRASTIVE,
    ),
    "alignment": Curve(
        "mean squared distance of a query and its positive on the unit sphere (Wang & Isola 2020): 0 is "
        "best, 2 unrelated °",
        _CONTRASTIVE,
    ),
    "uniformity": Curve(
        "log of the mean of exp(-2 d²) over pairs of queries, and of positives; the mean of both (Wang & "
        "Isola 2020): 0 is a collapsed model, -4 about the best °",
        _CONTRASTIVE,
    ),
    "lexical_query_terms": Curve(
        "active terms of a query: distinct tokens with a weight above 0 °", _CONTRASTIVE
    ),
    "lexical_query_terms_min": Curve("the least active terms of a query °", _CONTRASTIVE),
    "lexical_query_terms_max": Curve("the most active terms of a query °", _CONTRASTIVE),
    "lexical_document_terms": Curve("active terms of a document °", _CONTRASTIVE),
    "lexical_document_terms_min": Curve("the least active terms of a document °", _CONTRASTIVE),
    "lexical_document_terms_max": Curve("the most active terms of a document °", _CONTRASTIVE),
    "lexical_empty_share": Curve(
        "share of texts without an active term; above 0.5 the head has collapsed, and the training stops °",
        _CONTRASTIVE,
    ),
    "lexical_common_share": Curve(
        "share of the squared lexical weights in terms that nearly all documents have; above 0.9 the "
        "training stops °",
        _CONTRASTIVE,
    ),
    "lexical_evenness": Curve(
        "(Σw)² / (n Σw²) of a text's n active terms: 1 where all weigh the same; above 0.99 after 50 "
        "steps the head has filled up, and the training stops °",
        _CONTRASTIVE,
    ),
    "temperature": Curve("temperature of InfoNCE, trained or set", _CONTRASTIVE),
    "grad_norm": Curve("norm of the gradient of the logged step, before clipping"),
    "learning_rate": Curve("learning rate of the logged step"),
    "tokens_per_second": Curve("tokens that all processes encode, without padding"),
    "padded_tokens_per_second": Curve("tokens that all processes encode, with padding"),
    "padding_share": Curve("share of padding among the encoded tokens"),
    "share_of_peak": Curve(
        "6 × parameters outside embedding tables × tokens_per_second (2 × with a frozen encoder), divided by "
        "what a matrix product reached on this device in this precision when the training began (all "
        "processes together); an objective's own layers and GradCache's second forward do not count as work"
    ),
    "step_seconds": Curve("wall-clock time of a step, checkpoints included"),
    "data_seconds": Curve("time of a step: waiting for its batch"),
    "forward_seconds": Curve("time of a step: encoding, GradCache's second pass included, and the loss"),
    "backward_seconds": Curve("time of a step: gradients"),
    "optimizer_seconds": Curve("time of a step: clipping and the update"),
    "logging_seconds": Curve("time of a step: computing and writing these curves"),
    "eta_seconds": Curve("time until the last step, at the speed since this process began"),
}

# Curves that depend on the clock, or on when this process began: two trainings that are the same bit for bit
# differ in these.
TIMED = frozenset(
    name
    for name in CURVES
    if name.endswith(("second", "seconds")) or name in {"share_of_peak", "padding_share"}
)


def of_training(kind: str) -> dict[str, str]:
    """Return name → description of the curves of a kind of training: pretrain, contrastive or heal."""
    return {name: curve.description for name, curve in CURVES.items() if kind in curve.trainings}


def sort_key(name: str) -> tuple[int, str]:
    """Return a key that sorts names as in `CURVES`; the losses of sources and unknown names come last."""
    order = list(CURVES)
    return (order.index(name) if name in order else len(order)), name


def line(values: Mapping[str, float], step: int, steps: int | None) -> str:
    """Return `step 120/1000 loss 0.4210 8,012 tokens/s (24% of peak, 5% padding) 0:12:30 left`.

    Values that are missing are left out.
    """
    words = [f"step {step}/{steps}" if steps else f"step {step}"]
    if "loss" in values:
        words.append(f"loss {values['loss']:.4f}")
    if "in_batch_accuracy" in values:
        words.append(f"accuracy {values['in_batch_accuracy']:.0%}")
    if "tokens_per_second" in values:
        words.append(f"{values['tokens_per_second']:,.0f} tokens/s")
    shares = (("share_of_peak", "of peak"), ("padding_share", "padding"))
    if known := [f"{values[name]:.0%} {what}" for name, what in shares if name in values]:
        words.append(f"({', '.join(known)})")
    if "eta_seconds" in values:
        words.append(f"{timedelta(seconds=round(values['eta_seconds']))} left")
    return " ".join(words)
