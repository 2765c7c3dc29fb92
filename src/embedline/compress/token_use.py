"""The tokens that texts use, and the choice of those that a smaller vocabulary keeps."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import islice

import numpy as np
from tokenizers import Tokenizer

from embedline.compress.tokenizer_file import (
    in_order,
    require_prunable,
    required_tokens,
    token_ids,
    with_parts,
)
from embedline.errors import InputError
from embedline.models.embedder import Embedder
from embedline.models.folder_checks import require_fast_tokenizer

HELD_BACK = 20  # every such text is left out of a choice of tokens, to measure it
_BATCH = 1000
_START = 32  # characters after a prompt: how it changes the cut of the text
_MAIN_SCRIPT, _COMMON_LETTER = 0.05, 1e-4  # shares of the letters of the texts, of those of their script


@dataclass
class TokenUse:
    """The tokens of some texts.

    Args:
        counts: of each token id (V), in the texts that were not held back.
        characters: counts of characters in all texts.
        held: the different tokens of each text that was held back, and how often each occurs.
    """

    counts: np.ndarray
    characters: Counter[str] = field(default_factory=Counter)
    held: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    @property
    def all_counts(self) -> np.ndarray:
        """Counts in all texts (V)."""
        total = self.counts.copy()
        for ids, times in self.held:
            total[ids] += times
        return total


@dataclass(frozen=True)
class Coverage:
    """The share of the texts, and of their tokens, that stay as they are."""

    texts: float
    tokens: float


def count_tokens(embedder: Embedder, texts: Iterable[str], prompts: Collection[str] = ()) -> TokenUse:
    """Count the tokens of different texts, whole ones, and of the words put before them.

    Raises:
        InputError: the tokenizer exists in Python only.
    """
    require_fast_tokenizer(embedder.tokenizer, "prune.vocabulary")
    backend: Tokenizer = embedder.tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    use = TokenUse(np.zeros(max(backend.get_vocab(with_added_tokens=True).values()) + 1, dtype=np.int64))
    number = 0
    for batch in _batches(_different(texts)):
        starts = [prompt + text[:_START] for prompt in prompts if prompt for text in batch]
        for ids in _encoded(backend, starts):
            np.add.at(use.counts, ids, 1)
        for text, ids in zip(batch, _encoded(backend, batch), strict=True):
            use.characters.update(text)
            if number % HELD_BACK == HELD_BACK - 1:
                use.held.append(np.unique(ids, return_counts=True))
            else:
                np.add.at(use.counts, ids, 1)
            number += 1
    if not number:
        raise InputError("there are no texts to choose the tokens by.", where="prune.vocabulary")
    return use


def choose_tokens(
    embedder: Embedder, use: TokenUse, *, min_count: int = 1, same_letters: bool = True
) -> tuple[list[int], Coverage | None]:
    """Choose the tokens to keep; return them (old ids in new order) and what held-back texts keep of theirs.

    Single characters, bytes, and special and added tokens stay, as do tokens without a letter.

    Args:
        min_count: tokens with at least so many occurrences stay.
        same_letters: so do tokens that are spelled with the letters of the texts, where these are of a script
            that is not Latin: other texts of the language use them. A multilingual tokenizer shares its
            Latin tokens among dozens of languages: of those that are spelled with a to z (XLM-R has 80,000)
            English documentation uses a fifth.

    Returns:
        The coverage is None where no text was held back: there are fewer than 20.

    Raises:
        InputError: tokenizers of this kind cannot lose tokens.
    """
    backend: Tokenizer = embedder.tokenizer.backend_tokenizer
    spec = json.loads(backend.to_str())
    require_prunable(spec)
    always = required_tokens(spec)
    if same_letters:
        always |= set(_spelled_with(backend, token_ids(spec).values(), _alphabet(use.characters)))
    if _counts_from_padding(embedder):  # RoBERTa's positions begin after the padding token's id
        always |= set(range(int(embedder.backbone.config.pad_token_id)))
    known = set(token_ids(spec).values())

    def chosen(counts: np.ndarray) -> set[int]:
        used = set(np.flatnonzero(counts >= min_count).tolist())
        return with_parts(spec, (always | used) & known)

    coverage = _coverage(chosen(use.counts), use) if use.held else None
    return in_order(spec, chosen(use.all_counts)), coverage


def _encoded(backend: Tokenizer, texts: list[str]) -> Iterator[list[int]]:
    for encoding in backend.encode_batch_fast(texts, add_special_tokens=False):
        yield encoding.ids


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(texts, _BATCH)):
        yield batch


def _different(texts: Iterable[str]) -> Iterator[str]:
    seen: set[int] = set()
    for text in texts:
        if (digest := hash(text)) not in seen:
            seen.add(digest)
            yield text


def _coverage(kept: set[int], use: TokenUse) -> Coverage:
    texts = tokens = total = 0
    for ids, times in use.held:
        stays = np.fromiter((number in kept for number in ids.tolist()), dtype=bool, count=len(ids))
        texts += bool(stays.all())
        tokens += int(times[stays].sum())
        total += int(times.sum())
    return Coverage(texts / len(use.held), tokens / max(1, total))


@cache
def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNNAMED").split()[0]


def _alphabet(characters: Counter[str]) -> set[str]:
    """Return the common letters, in both cases, of the main scripts of the texts, Latin excepted."""
    letters = {character: times for character, times in characters.items() if character.isalpha()}
    scripts: Counter[str] = Counter()
    for letter, times in letters.items():
        scripts[_script(letter)] += times
    main = {script for script, times in scripts.items() if times >= _MAIN_SCRIPT * scripts.total()} - {
        "LATIN"
    }
    common = {
        letter
        for letter, times in letters.items()
        if (script := _script(letter)) in main and times >= _COMMON_LETTER * scripts[script]
    }
    return {form for letter in common for form in (letter, letter.lower(), letter.upper())}


def _spelled_with(backend: Tokenizer, ids: Iterable[int], alphabet: set[str]) -> Iterator[int]:
    """Yield the tokens that have no letter but those of an alphabet; parts of a character are left out."""
    for number in ids:
        text = backend.decode([number], skip_special_tokens=False) if backend.decoder else ""
        text = text or backend.id_to_token(number) or ""
        if "\ufffd" not in text and all(c in alphabet for c in text if c.isalpha()):
            yield number


def _counts_from_padding(embedder: Embedder) -> bool:
    positions = (
        module
        for owner in embedder.backbone.modules()
        for name, module in owner.named_children()
        if name == "position_embeddings"
    )
    return any(getattr(module, "padding_idx", None) is not None for module in positions)
