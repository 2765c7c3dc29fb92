"""Vocabulary pruning: a model that has only the tokens that some texts and their languages use.

Abdaoui et al. 2020, "Load What You Need: Smaller Versions of Multilingual BERT": most of a multilingual
model's parameters are rows of tokens that its languages never use.
"""

from __future__ import annotations

import copy
import json
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from embedline.compress.tokenizer_file import (
    in_order,
    require_prunable,
    required_tokens,
    restrict,
    token_ids,
    with_parts,
)
from embedline.errors import InputError
from embedline.models.embedder import Embedder
from embedline.models.folder_checks import require_fast_tokenizer
from embedline.models.reload import require_described
from embedline.models.token_rows import keep_token_rows, renumber_config

HELD_BACK = 20  # every such text is left out of a choice of tokens, to measure it
SAME = 1e-5  # largest difference of a value between the vectors of both models
_BATCH = 1000
_COMPARED, _COMPARED_CHARS = 16, 300  # texts whose vectors are compared
_START = 32  # characters after a prompt: how it changes the cut of the text
_MAIN_SCRIPT, _COMMON_LETTER = 0.05, 1e-4  # shares of the letters of the texts, of those of their script
CANNOT_SAVE = "Do not prune its vocabulary: this architecture derives something from token ids."
# Files of a vocabulary beside tokenizer.json; they would still have all tokens.
_OTHER_FILES = ("vocab.txt", "vocab.json", "merges.txt", "added_tokens.json", "*.model", "*.tiktoken")


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


@dataclass(frozen=True)
class PrunedVocabulary:
    """What vocabulary pruning did: numbers of tokens and parameters before and after, and `Coverage`."""

    tokens_before: int
    tokens: int
    parameters_before: int
    parameters: int
    coverage: Coverage | None

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers by name."""
        numbers = {
            "tokens_before": float(self.tokens_before),
            "tokens": float(self.tokens),
            "parameters_before": float(self.parameters_before),
            "parameters": float(self.parameters),
        }
        if self.coverage:
            numbers |= {"held_back_texts_kept": self.coverage.texts}
            numbers |= {"held_back_tokens_kept": self.coverage.tokens}
        return numbers

    def sentence(self) -> str:
        """Return the numbers as text."""
        text = (
            f"{self.tokens:,} of {self.tokens_before:,} tokens kept: {self.parameters_before / 1e6:.1f}M to "
            f"{self.parameters / 1e6:.1f}M parameters ({4 * self.parameters_before / 1e6:.0f} to "
            f"{4 * self.parameters / 1e6:.0f} MB in fp32)."
        )
        if self.coverage:
            text += (
                f" Of the texts that a first choice left out (one in {HELD_BACK}), {self.coverage.texts:.1%} "
                f"keep all their tokens, and {self.coverage.tokens:.2%} of their tokens stay."
            )
        return text


def prune_vocabulary(
    embedder: Embedder,
    texts: Iterable[str],
    prompts: Collection[str] = (),
    *,
    min_count: int = 1,
    same_letters: bool = True,
) -> tuple[Embedder, PrunedVocabulary]:
    """Return a copy of `embedder` that has only the tokens that `texts` and their languages use.

    Args:
        texts: read once; each is tokenised whole.
        prompts: the words that are put before texts.
        min_count, same_letters: as in `choose_tokens`.

    Raises:
        InputError: there are no texts, the tokenizer cannot lose tokens, or the result has other vectors.

    Example:
        >>> smaller, result = prune_vocabulary(embedder, texts, ["query: ", "passage: "])
        >>> print(result.sentence())
    """
    sample: list[str] = []
    use = count_tokens(embedder, _first_noted(texts, sample), prompts)
    rows, coverage = choose_tokens(embedder, use, min_count=min_count, same_letters=same_letters)
    pruned = without_tokens(embedder, rows)
    if min_count == 1 and (difference := largest_difference(embedder, pruned, sample)) > SAME:
        raise InputError(
            f"the vectors of the same texts differ by up to {difference:.1e} without the unused tokens.",
            where="prune.vocabulary.when",
            fix=CANNOT_SAVE,
        )
    before, after = (sum(weight.numel() for weight in model.parameters()) for model in (embedder, pruned))
    return pruned, PrunedVocabulary(len(embedder.tokenizer), len(rows), before, after, coverage)


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


def without_tokens(embedder: Embedder, rows: list[int]) -> Embedder:
    """Return a copy of `embedder` that has only some tokens; texts that are made of them keep their vectors.

    Args:
        rows: old ids in the order of the new ones, from `choose_tokens`.

    Raises:
        InputError: saved and loaded, it would be another model.

    Example:
        >>> use = count_tokens(embedder, texts, prompts=["query: ", "passage: "])
        >>> rows, coverage = choose_tokens(embedder, use)
        >>> smaller = without_tokens(embedder, rows)
    """
    backbone: Any = copy.deepcopy(embedder.backbone)
    keep_token_rows(backbone, [backbone.get_input_embeddings()], rows)
    renumber_config(backbone.config, rows)
    pruned = embedder.with_backbone(backbone, restricted_tokenizer(embedder.tokenizer, rows))
    require_described(pruned, "prune.vocabulary.when", CANNOT_SAVE)
    return pruned


def restricted_tokenizer(tokenizer: PreTrainedTokenizerBase, rows: list[int]) -> PreTrainedTokenizerBase:
    """Return the tokenizer with some of its tokens, as AutoTokenizer loads it from its files.

    A tokenizer's class that builds other rules around the vocabulary is replaced by the general one.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save_pretrained(folder)
        for pattern in _OTHER_FILES:
            for path in folder.glob(pattern):
                path.unlink()
        file, settings_file = folder / "tokenizer.json", folder / "tokenizer_config.json"
        spec = restrict(json.loads(file.read_text(encoding="utf-8")), rows)
        file.write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
        settings = json.loads(settings_file.read_text(encoding="utf-8"))
        settings.pop("added_tokens_decoder", None)  # has ids; tokenizer.json says the same
        for kind in (settings.get("tokenizer_class"), "PreTrainedTokenizerFast"):
            settings["tokenizer_class"] = kind
            settings_file.write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
            made: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            made.padding_side, made.truncation_side = tokenizer.padding_side, tokenizer.truncation_side
            if made.is_fast and _rules(made.backend_tokenizer) == _rules(Tokenizer.from_file(str(file))):
                return made
    raise InputError(
        f"the tokenizer {type(tokenizer).__name__} does not load with fewer tokens as it was written.",
        where="prune.vocabulary.when",
        fix="Set it to never.",
    )


def largest_difference(one: Embedder, other: Embedder, texts: list[str]) -> float:
    """Return the largest difference of a value between the vectors (of length 1) of two models."""
    return float(np.abs(one.encode(texts) - other.encode(texts)).max(initial=0.0))


def _rules(backend: Tokenizer) -> dict[str, Any]:
    rules: dict[str, Any] = json.loads(backend.to_str())
    return {name: value for name, value in rules.items() if name not in ("truncation", "padding")}


def _encoded(backend: Tokenizer, texts: list[str]) -> Iterator[list[int]]:
    for encoding in backend.encode_batch_fast(texts, add_special_tokens=False):
        yield encoding.ids


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(texts, _BATCH)):
        yield batch


def _first_noted(texts: Iterable[str], sample: list[str]) -> Iterator[str]:
    """Yield the texts, and put the beginnings of the first ones into `sample`."""
    for text in texts:
        if len(sample) < _COMPARED:
            sample.append(text[:_COMPARED_CHARS])
        yield text


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
