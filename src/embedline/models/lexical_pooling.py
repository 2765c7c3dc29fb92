"""The lexical head as a module of sentence-transformers' SparseEncoder.

None of its own modules computes max ReLU(W h) over the tokens of a term: SpladePooling takes logarithms,
SparseStaticEmbedding knows no states. This file is copied into converted folders together with heads.py: they
import torch and sentence-transformers only. Load the folder with `trust_remote_code=True`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sentence_transformers.base.modules.module import Module
from torch import Tensor

from .heads import LexicalHead


class LexicalPooling(Module):  # type: ignore[misc]
    """Token states to one weight for each token of the vocabulary, the largest of its occurrences.

    Args:
        width: of a token's state.
        vocabulary: number of tokens.
        special_ids: tokens without a weight.
    """

    config_keys: ClassVar[list[str]] = ["width", "vocabulary", "special_ids"]

    def __init__(self, width: int, vocabulary: int, special_ids: list[int]) -> None:
        super().__init__()
        self.width, self.vocabulary, self.special_ids = width, vocabulary, special_ids
        self.head = LexicalHead(width, special_ids)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        ids_BT = features["input_ids"]
        weights_BT = self.head(features["token_embeddings"], ids_BT, features["attention_mask"])
        zeros_BV = weights_BT.new_zeros(len(ids_BT), self.vocabulary)
        features["sentence_embedding"] = zeros_BV.scatter_reduce(1, ids_BT, weights_BT, "amax")
        return features

    def get_embedding_dimension(self) -> int:
        """Return the number of tokens, each of which has a dimension."""
        return self.vocabulary

    @classmethod
    def load(cls, model_name_or_path: str, **kwargs: Any) -> LexicalPooling:
        """Load settings and weights from the module's folder."""
        keys = ("subfolder", "token", "cache_folder", "revision", "local_files_only")
        source = {key: kwargs[key] for key in keys if key in kwargs}
        module = cls(**cls.load_config(model_name_or_path, **source))
        loaded: LexicalPooling = cls.load_torch_weights(model_name_or_path, model=module, **source)
        return loaded

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Save settings and weights into the module's folder."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)
