"""Loaders of other libraries that need a model folder in a form of their own, and what each can represent."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line reads the names, without torch
    from transformers import PreTrainedTokenizerBase

    from embedline.models.embedder import Embedder

# BGEM3FlagModel's names of poolings; its default is cls.
FLAG_POOLINGS = {"cls": "cls", "mean": "mean", "last": "last_token"}


class Client(StrEnum):
    """The forms of a model folder beside its own, named after the class that loads them."""

    flagembedding = "flagembedding"
    sparse_encoder = "sparse-encoder"
    multi_vector_encoder = "multi-vector-encoder"


LOADERS = {
    Client.flagembedding: "FlagEmbedding's BGEM3FlagModel",
    Client.sparse_encoder: "sentence-transformers' SparseEncoder",
    Client.multi_vector_encoder: "sentence-transformers' MultiVectorEncoder",
}
_HEADS = {
    Client.flagembedding: ("lexical", "multi_vector"),
    Client.sparse_encoder: ("lexical",),
    Client.multi_vector_encoder: ("multi_vector",),
}


def unrepresented(embedder: Embedder, client: Client) -> str:
    """Return what of a model the loader cannot compute, or lacks; empty when it gives the same scores."""
    from transformers import AutoModel

    from embedline.models.modeling_embedline import auto_class
    from embedline.models.rotary import has_dynamic_ntk

    spec = embedder.spec
    if not set(_HEADS[client]) & embedder.heads.keys():
        return f"no {' or '.join(head.replace('_', '-') for head in _HEADS[client])} head"
    if client != Client.flagembedding:
        return ""
    if spec.pooling not in FLAG_POOLINGS:
        return f"the pooling {spec.pooling}"
    if has_dynamic_ntk(embedder.backbone.config):
        return "dynamic NTK positions"
    if spec.dense_layers:
        return "Dense layers after the pooling"
    if spec.layer_norm:
        return "a layer norm on the vector"
    if auto_class(embedder.backbone.config) is not AutoModel:
        return "the encoder of an encoder-decoder"
    if first_special(embedder.tokenizer) is None:
        return "texts that begin without a special token, whose first word it would leave out"
    if len(special_tokens(embedder.tokenizer)) > 2:
        return "texts with more than two special tokens, which would get lexical weights"
    return ""


def first_special(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the special token that begins every text; None when a text begins with its first word."""
    tokens = special_tokens(tokenizer)
    return tokens[0] if tokens and tokenizer("a")["input_ids"][0] in tokenizer.all_special_ids else None


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the different special tokens that the tokenizer adds to a text, in their order."""
    special = set(tokenizer.all_special_ids)
    ids = dict.fromkeys(row for row in tokenizer("a")["input_ids"] if row in special)
    return [str(tokenizer.convert_ids_to_tokens(token)) for token in ids]
