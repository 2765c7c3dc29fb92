"""What an index was made of: model, corpus, width and precision."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from embedline.errors import InputError
from embedline.retrieval.dense import Precision

FORMAT = 1


@dataclass(frozen=True)
class VectorSource:
    """What the vectors of passages depend on, beside their texts.

    Args:
        model: folder or address that the model was loaded from; named in messages, and opened by a search.
        index_version: digest of what determines the model's vectors.
        prompt: put before every passage.
        length: tokens at which a passage is cut.
        heads: the model's heads.
    """

    model: str
    index_version: str
    prompt: str
    length: int
    heads: tuple[str, ...]

    def same_vectors(self, other: VectorSource) -> bool:
        """Return whether both give the same vector of a text, wherever the model lies."""
        return replace(self, model=other.model) == other


@dataclass(frozen=True)
class About:
    """The description of an index, in its manifest.

    Args:
        source: of the vectors.
        corpus: digest of the passages' ids and texts.
        passages: their number.
        dim, precision: of the dense vectors.
    """

    source: VectorSource
    corpus: str
    passages: int
    dim: int
    precision: Precision

    def as_metadata(self) -> dict[str, Any]:
        """Return the description as the manifest holds it."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def of_metadata(cls, values: Mapping[str, Any], where: str) -> About:
        """Read the description from a manifest.

        Raises:
            InputError: another release wrote it in another format.
        """
        if values.get("format") != FORMAT:
            raise InputError(
                f"the index has the format {values.get('format')}, this release reads {FORMAT}.",
                where=where,
                fix="Make it again: embedline index CORPUS --model MODEL.",
            )
        source = VectorSource(**{**values["source"], "heads": tuple(values["source"]["heads"])})
        return cls(source, *(values[name] for name in ("corpus", "passages", "dim", "precision")))


def require_same_vectors(index: VectorSource, model: VectorSource, where: str) -> None:
    """Refuse a search with a model whose vectors are not those of the index.

    Raises:
        InputError: naming both models and what differs.
    """
    if index.same_vectors(model):
        return
    if index.index_version != model.index_version:
        was, now = f"index version {index.index_version}", f"index version {model.index_version}"
    else:
        was, now = (
            f"passages cut at {at.length} tokens after {at.prompt!r}, heads {', '.join(at.heads)}"
            for at in (index, model)
        )
    raise InputError(
        f"the index holds vectors of {index.model} ({was}), and {model.model} makes others ({now}).",
        where=where,
        fix=f"Search with the model of the index, or make the index again: embedline index CORPUS --model "
        f"{model.model}.",
    )


def text_digests(texts: Sequence[str]) -> list[bytes]:
    """Return 16 bytes of each text's SHA-256."""
    return [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16] for text in texts]


def corpus_digest(ids: Sequence[str], digests: Sequence[bytes]) -> str:
    """Return the digest of passages: their ids, and the digests of their texts, in order."""
    digest = hashlib.sha256()
    for identity, text in zip(ids, digests, strict=True):
        raw = identity.encode("utf-8", "surrogatepass")
        digest.update(f"{len(raw)} ".encode() + raw + text)
    return digest.hexdigest()
