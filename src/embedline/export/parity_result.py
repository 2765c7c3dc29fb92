"""The results of a parity measurement, as `parity.json` holds them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class HeadLimits:
    """The limits of the other heads' difference from torch, in the measures of `HeadParity`.

    Args:
        token_cosine: smallest cosine of two token vectors that passes.
        lexical_difference: largest difference of a term's weight that passes, as a share of the largest.
    """

    token_cosine: float
    lexical_difference: float


@dataclass(frozen=True)
class HeadParity:
    """One head of one exported model against torch fp32.

    Args:
        measure: worst_cosine (dense: over texts; multi_vector: over real tokens) or worst_difference
            (lexical: of any term's weight, as a share of the largest weight in all texts).
        value: the measured number.
        threshold: the smallest cosine, or the largest difference, that passes.
    """

    measure: str
    value: float
    threshold: float
    passed: bool


@dataclass(frozen=True)
class VariantParity:
    """One exported model against torch fp32; numbers without a head's name are the dense head's.

    Args:
        heads: one entry for every head of the model; `passed` covers them all.
        worst_cosine_by_dim: the worst cosine after cutting to each Matryoshka dim; `threshold` applies to
            each.
        batch_cosine: lowest cosine between a text's vector computed alone and in a batch of the other texts;
            below 1 where activations are quantised per batch.
        top1, top10: share of nearest neighbours among the texts that are the same as with torch.
        text_ms: median milliseconds for one text alone.
        tokens_per_s: tokens without padding, whole set in batches, best of two passes.
    """

    worst_cosine: float
    mean_cosine: float
    worst_difference: float
    worst_cosine_by_dim: dict[str, float]
    batch_cosine: float
    top1: float
    top10: float
    megabytes: float
    text_ms: float
    tokens_per_s: float
    torch_text_ms: float
    torch_tokens_per_s: float
    threshold: float
    passed: bool
    heads: dict[str, HeadParity] = field(default_factory=dict)


@dataclass(frozen=True)
class Parity:
    """All exported variants of one model, measured on `texts` texts (probes included)."""

    texts: int
    variants: dict[str, VariantParity]

    @property
    def passed(self) -> bool:
        """Return whether every variant passed."""
        return all(variant.passed for variant in self.variants.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the content of `parity.json`."""
        variants = {name: asdict(variant) for name, variant in self.variants.items()}
        return {"passed": self.passed, "variants": variants, "texts": self.texts}
