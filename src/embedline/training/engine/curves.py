"""What the curves of a training are called and what they mean; and the one line that is made of them.

Light to import: whoever shows curves needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

# Of a step, in the order in which it goes through them.
PHASES = ("data", "forward", "backward", "optimizer", "logging")

_ALL = ("pretrain", "contrastive", "heal")


class Curve(NamedTuple):
    """One series over optimizer steps: what it is, and the kinds of training that have it."""

    about: str
    of: tuple[str, ...] = _ALL


NOTE = (
    "Means over `log_every` steps and over the processes, where nothing else is said. °: of the logged step, "
    "and of at most 1,024 of its queries (objective unified has its dense loss of every step)."
)
CURVES: dict[str, Curve] = {
    "loss": Curve("what is minimised"),
    "loss.SOURCE": Curve("the same on the batches of one source (and bucket)", ("contrastive",)),
    "dense_loss": Curve("InfoNCE of the dense scores alone, at full width °", ("contrastive",)),
    "lexical_loss": Curve("the same of the lexical scores (objective unified)", ("contrastive",)),
    "multi_vector_loss": Curve("the same of the multi-vector scores (objective unified)", ("contrastive",)),
    "cosent_loss": Curve("CoSENT, on records with scores", ("contrastive",)),
    "distillation_loss": Curve("how far the model is from its teacher, unweighted", ("contrastive",)),
    "token_loss": Curve("cross-entropy of the hidden tokens (mlm, mntp)", ("pretrain",)),
    "encoder_loss": Curve("RetroMAE: cross-entropy of the encoder's hidden tokens", ("pretrain",)),
    "decoder_loss": Curve("RetroMAE: cross-entropy of the rebuilt tokens", ("pretrain",)),
    "words_loss": Curve("RetroMAE: which words the text holds, unweighted", ("pretrain",)),
    "cosine": Curve("to the unpruned model's vectors of the same texts", ("heal",)),
    "in_batch_accuracy": Curve(
        "share of queries whose positive's cosine is above that of every negative, those included that "
        "false_negative_margin takes for answers °",
        ("contrastive",),
    ),
    "alignment": Curve(
        "mean squared distance of a query and its positive on the unit sphere (Wang & Isola 2020): 0 is "
        "best, 2 unrelated °",
        ("contrastive",),
    ),
    "uniformity": Curve(
        "log of the mean of exp(-2 d²) over pairs of queries, and of positives; the mean of both (Wang & "
        "Isola 2020): 0 is a collapsed model, -4 about the best °",
        ("contrastive",),
    ),
    "temperature": Curve("of InfoNCE, learnt or set", ("contrastive",)),
    "grad_norm": Curve("before clipping, of the logged step"),
    "learning_rate": Curve("of the logged step"),
    "tokens_per_second": Curve("tokens that all processes encode, without padding"),
    "padded_tokens_per_second": Curve("the same with padding: what the model went through"),
    "padding_share": Curve("of the tokens that the model went through"),
    "share_of_peak": Curve(
        "6 × parameters outside embedding tables × tokens_per_second, divided by what a matrix product "
        "reached on this device in this precision when the training began (all processes together); an "
        "objective's own layers and GradCache's second forward do not count as work"
    ),
    "step_seconds": Curve("wall clock, checkpoints included"),
    "data_seconds": Curve("of a step: waiting for its batch"),
    "forward_seconds": Curve("of a step: encoding, GradCache's second time included, and the loss"),
    "backward_seconds": Curve("of a step: gradients"),
    "optimizer_seconds": Curve("of a step: clipping and the update"),
    "logging_seconds": Curve("of a step: computing and writing these curves"),
    "eta_seconds": Curve("until the last step, at the speed since this process began"),
}

# What depends on the clock, or on how much of a line this process has seen: two trainings that are the same
# bit for bit differ in these.
TIMED = frozenset(
    name
    for name in CURVES
    if name.endswith(("second", "seconds")) or name in {"share_of_peak", "padding_share"}
)


def of_training(kind: str) -> dict[str, str]:
    """Name → what it is, of the curves that a kind of training has: pretrain, contrastive or heal."""
    return {name: curve.about for name, curve in CURVES.items() if kind in curve.of}


def place(name: str) -> tuple[int, str]:
    """Sorts names as they stand in `CURVES`; a source's loss and what is not known come last."""
    order = list(CURVES)
    return (order.index(name) if name in order else len(order)), name


def line(values: Mapping[str, float], step: int, steps: int | None) -> str:
    """`step 120/1000 loss 0.4210 8,012 tokens/s (24% of peak, 5% padding) 0:12:30 left`; what is not known
    is left out."""
    words = [f"step {step}/{steps}" if steps else f"step {step}"]
    if "loss" in values:
        words.append(f"loss {values['loss']:.4f}")
    if "in_batch_accuracy" in values:
        words.append(f"accuracy {values['in_batch_accuracy']:.0%}")
    if "tokens_per_second" in values:
        words.append(f"{values['tokens_per_second']:,.0f} tokens/s")
    shares = (("share_of_peak", "of peak"), ("padding_share", "padding"))
    if told := [f"{values[name]:.0%} {what}" for name, what in shares if name in values]:
        words.append(f"({', '.join(told)})")
    if "eta_seconds" in values:
        words.append(f"{timedelta(seconds=round(values['eta_seconds']))} left")
    return " ".join(words)
