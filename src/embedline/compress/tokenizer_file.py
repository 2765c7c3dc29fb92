"""A tokenizer.json with fewer tokens: which must stay, and the file without the others.

Texts whose tokens all stay are cut as before. Unigram: their best path is still there, and no new one.
WordPiece: the longest match is still there, and no longer one. BPE: a merge that is used makes a token that
stays, because the parts of a token that stays do (`with_parts`), and the others keep their order.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from embedline.errors import InputError

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_KINDS = ("Unigram", "WordPiece", "BPE")
Spec = Mapping[str, Any]  # the content of a tokenizer.json


def require_prunable(spec: Spec) -> None:
    """Refuse a tokenizer that has no smaller tokens to spell a word with.

    Raises:
        InputError: naming its kind.
    """
    kind = spec["model"].get("type")
    if kind not in _KINDS:
        raise InputError(
            f"a tokenizer of the kind {kind} cannot lose tokens: it cuts words by another rule.",
            where="tokenizer.json: model.type",
            fix=f"Use a model with a tokenizer of the kind {', '.join(_KINDS)}.",
        )


def token_ids(spec: Spec) -> dict[str, int]:
    """Return the id of every token, added ones included."""
    vocabulary = spec["model"]["vocab"]
    if isinstance(vocabulary, list):
        ids = {entry[0]: number for number, entry in enumerate(vocabulary)}
    else:
        ids = dict(vocabulary)
    return ids | {token["content"]: token["id"] for token in spec.get("added_tokens") or []}


def required_tokens(spec: Spec) -> set[int]:
    """Return the tokens that no choice drops: added and special ones, single characters and bytes.

    Of a Unigram model also its least probable token: the score of an unknown character derives from it.
    """
    model, ids = spec["model"], token_ids(spec)
    kept = {token["id"] for token in spec.get("added_tokens") or []}
    kept |= {ids[name] for name in _named(spec) if name in ids}
    kept |= {number for token, number in ids.items() if _is_single(token, model)}
    if model["type"] == "Unigram":
        scores = [score for _, score in model["vocab"]]
        kept.add(min(range(len(scores)), key=scores.__getitem__))
        if model.get("unk_id") is not None:
            kept.add(model["unk_id"])
    return kept


def with_parts(spec: Spec, kept: Collection[int]) -> set[int]:
    """Add the tokens that the kept ones are merged from (BPE), so that each can still be made."""
    model, ids = spec["model"], token_ids(spec)
    found = set(kept)
    if model["type"] != "BPE":
        return found
    made = [
        (ids.get(_merged(model, *pair)), ids.get(pair[0]), ids.get(pair[1]))
        for pair in reversed(_merges(model))
    ]
    size = -1
    while size != len(found):  # once more where parts have a later merge than their whole
        size = len(found)
        for whole, left, right in made:
            if whole in found:
                found |= {part for part in (left, right) if part is not None}
    return found


def in_order(spec: Spec, kept: Collection[int]) -> list[int]:
    """Return the kept ids in their new order: the library numbers added tokens after the model's own."""
    vocabulary = spec["model"]["vocab"]
    own = set(range(len(vocabulary))) if isinstance(vocabulary, list) else set(vocabulary.values())
    return sorted(kept, key=lambda number: (number not in own, number))


def restrict(spec: Spec, rows: Sequence[int]) -> dict[str, Any]:
    """Return the tokenizer.json that has only some tokens.

    Args:
        rows: old ids, in the order of the new ones (`in_order`).
    """
    new = {old: number for number, old in enumerate(rows)}
    result = copy.deepcopy({**spec, "model": None})
    result["model"] = _restricted_model(spec["model"], new)
    for token in result.get("added_tokens") or []:
        token["id"] = new[token["id"]]
    if result.get("added_tokens"):
        result["added_tokens"].sort(key=lambda token: token["id"])
    _renumber(result.get("post_processor"), {name: new[i] for name, i in token_ids(spec).items() if i in new})
    if isinstance(padding := result.get("padding"), dict):
        padding["pad_id"] = new.get(padding["pad_id"], 0)
    return result


def _restricted_model(model: Spec, new: Mapping[int, int]) -> dict[str, Any]:
    result = {name: value for name, value in model.items() if name not in ("vocab", "merges")}
    if isinstance(model["vocab"], list):
        result["vocab"] = [entry for number, entry in enumerate(model["vocab"]) if number in new]
        if model.get("unk_id") is not None:
            result["unk_id"] = new[model["unk_id"]]
        return result
    vocabulary = {token: new[number] for token, number in model["vocab"].items() if number in new}
    result["vocab"] = dict(sorted(vocabulary.items(), key=lambda item: item[1]))
    if "merges" in model:
        result["merges"] = [
            list(pair)
            for pair in _merges(model)
            if all(part in vocabulary for part in (*pair, _merged(model, *pair)))
        ]
    return result


def _merges(model: Spec) -> list[tuple[str, str]]:
    """Return the pairs of a BPE model; older files have each as one string."""
    pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
    return [(left, right) for left, right in pairs]


def _merged(model: Spec, left: str, right: str) -> str:
    prefix = model.get("continuing_subword_prefix") or ""
    return left + right.removeprefix(prefix)


def _is_single(token: str, model: Spec) -> bool:
    """Return whether a token is one character or byte, apart from the marks of a word's parts."""
    bare = token.removeprefix(model.get("continuing_subword_prefix") or "")
    bare = bare.removesuffix(model.get("end_of_word_suffix") or "")
    return len(token) <= 1 or len(bare) <= 1 or _BYTE.fullmatch(token) is not None


def _named(spec: Spec) -> Iterable[str]:
    """Yield the tokens that the file names outside its vocabulary."""
    if isinstance(unknown := spec["model"].get("unk_token"), str):
        yield unknown
    if isinstance(padding := spec.get("padding"), dict):
        yield padding["pad_token"]
    for processor in _processors(spec.get("post_processor")):
        for entry in (processor.get("special_tokens") or {}).values():
            yield from entry["tokens"]
        for name in ("sep", "cls"):
            if name in processor:
                yield processor[name][0]


def _renumber(post_processor: Any, new: Mapping[str, int]) -> None:
    """Change the ids in a post-processor, in place."""
    for processor in _processors(post_processor):
        for entry in (processor.get("special_tokens") or {}).values():
            entry["ids"] = [new[token] for token in entry["tokens"]]
        for name in ("sep", "cls"):
            if name in processor:
                processor[name] = [processor[name][0], new[processor[name][0]]]


def _processors(processor: Any) -> Iterable[dict[str, Any]]:
    if isinstance(processor, dict):
        yield processor
        for inner in processor.get("processors") or []:
            yield from _processors(inner)
