"""The error for a batch in which every document answers every query, by its cause."""

from __future__ import annotations

from embedline.errors import InputError
from embedline.models.embedder import Embedder
from embedline.training.batching.pairs import ContrastiveBatch
from embedline.training.contrastive.known_positives import KnownPositives

_UNCUT = 100_000  # tokens; no text is cut there
_SHOWN_CHARS, _SHOWN_TOKENS = 40, 8


def no_negative(batch: ContrastiveBatch, embedder: Embedder) -> InputError:
    """Make the error: texts are equal, or tokens are: cut to equal beginnings, or by the tokenizer itself.

    Documents of equal tokens have one vector, so that none of them is a negative (`KnownPositives`).
    """
    if KnownPositives(batch.query_texts, batch.known_positives, batch.document_texts).everything:
        return InputError(
            f"a batch from {batch.source} holds no negative: each document answers each query.",
            where="data.sources",
            fix="Leave the source out of this stage, or give it records that differ.",
        )
    ids, texts = _largest_group(batch)
    found = f"{len(texts)} different documents of a batch from {batch.source} have the same tokens"
    first, last = embedder.tokenize([texts[0], texts[-1]], max_length=_UNCUT)
    if first != last:
        return InputError(
            f"{found} when cut to {len(ids)} with their prompt: the batch holds no negative.",
            where="training",
            fix="Raise the length of documents (document_length, query_length, buckets), or cut the prompt.",
        )
    tokenizer = embedder.tokenizer
    tokens = " ".join(tokenizer.convert_ids_to_tokens(ids[:_SHOWN_TOKENS]))
    one, other = (repr(text[:_SHOWN_CHARS]) for text in (texts[0], texts[-1]))
    return InputError(
        f"{found}: the batch holds no negative. {type(tokenizer).__name__} makes {tokens!r} of {one} and "
        f"of {other}.",
        where=f"the tokenizer of {tokenizer.name_or_path or 'the model'}",
        fix="Check its files, the vocabulary first: the texts themselves differ.",
    )


def _largest_group(batch: ContrastiveBatch) -> tuple[list[int], list[str]]:
    """Return the token ids that the most different documents have, and these documents."""
    groups: dict[tuple[int, ...], dict[str, None]] = {}
    for text, row in zip(batch.document_texts, batch.ids[batch.query_count :], strict=True):
        groups.setdefault(tuple(row), {})[text] = None
    ids, texts = max(groups.items(), key=lambda group: len(group[1]))
    return list(ids), list(texts)
