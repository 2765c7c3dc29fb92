"""Vocabulary pruning: a model that has only the tokens that some texts and their languages use.

Abdaoui et al. 2020, "Load What You Need: Smaller Versions of Multilingual BERT": most of a multilingual
model's parameters are rows of tokens that its languages never use.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from embedline.compress.token_use import HELD_BACK, Coverage, choose_tokens, count_tokens
from embedline.compress.tokenizer_file import restrict
from embedline.errors import InputError
from embedline.models.embedder import Embedder
from embedline.models.reload import require_described
from embedline.models.token_rows import keep_token_rows, renumber_config

SAME = 1e-5  # largest difference of a value between the vectors of both models
_COMPARED, _COMPARED_CHARS = 16, 300  # texts whose vectors are compared
CANNOT_SAVE = "Do not prune its vocabulary: this architecture derives something from token ids."
# Files of a vocabulary beside tokenizer.json; they would still have all tokens.
_OTHER_FILES = ("vocab.txt", "vocab.json", "merges.txt", "added_tokens.json", "*.model", "*.tiktoken")


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


def _first_noted(texts: Iterable[str], sample: list[str]) -> Iterator[str]:
    """Yield the texts, and put the beginnings of the first ones into `sample`."""
    for text in texts:
        if len(sample) < _COMPARED:
            sample.append(text[:_COMPARED_CHARS])
        yield text
