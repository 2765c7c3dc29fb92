"""A registered model in MLflow's pyfunc: all heads, with the prompt and the length of a side.

This file is copied into registered folders together with heads.py: they import torch, safetensors and
sentence-transformers only, so that a server needs neither Embedline nor its versions of other packages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from .heads import LexicalHead, MultiVectorHead

SIDES = ("query", "document")
_BATCH = 32  # texts
Row = dict[str, Any]


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> ServedModel:
    """Load the model; MLflow calls this. The folder's own model class runs: it was registered with it."""
    return ServedModel(Path(path))


class ServedModel:
    """A model folder behind `predict`: dense vectors by sentence-transformers, other heads on its states."""

    def __init__(self, folder: Path) -> None:
        self.model: Any = SentenceTransformer(str(folder), trust_remote_code=True).eval()
        self.heads = _read_heads(folder / "heads.safetensors", self.model.tokenizer).to(self.model.device)

    def get_raw_model(self) -> SentenceTransformer:
        """Return the SentenceTransformer."""
        return self.model

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> np.ndarray | list[Row]:
        """Encode texts.

        Args:
            model_input: texts: a list, a column, or a table of one column.
            params: `heads`, a list of dense, lexical and multi_vector; `side`, query or document: decides the
                prompt and the length; `prompt_name`: another prompt; `truncate_dim`: number of leading values
                of the dense vector to keep. Without a side a text is cut where documents are.

        Returns:
            For the dense head alone, which is the default, N × D in float32. Else a dict for each text, of
            JSON's types: `dense` D numbers, `lexical` {token id: weight}, `multi_vector` T × K numbers.
            Vectors have length 1.

        Raises:
            ValueError: the model has no such head, prompt or dim, or there is no such side.
        """
        given = {name: value for name, value in (params or {}).items() if value is not None}
        heads = [str(head) for head in given.get("heads", ["dense"])]
        has = ["dense", *self.heads]
        if not heads or set(heads) - set(has):
            raise ValueError(f"heads: {heads} is not a list of the model's heads, {has}.")
        side = given.get("side")
        if side not in (None, *SIDES):
            raise ValueError(f"side: {side!r} is not one of {SIDES}.")
        prompt = self._prompt(given.get("prompt_name"), side)
        width, dim = int(self.model.get_embedding_dimension()), given.get("truncate_dim")
        if dim is not None and not 1 <= dim <= width:
            raise ValueError(f"truncate_dim: {dim} is not between 1 and the model's width {width}.")
        prompt, texts = self._prompt(given.get("prompt_name"), side), _texts(model_input)
        dense = torch.zeros(len(texts), width)
        rows: list[Row] = [{} for _ in texts]
        order = np.argsort([-len(text) for text in texts], kind="stable").tolist()
        for batch in (order[start : start + _BATCH] for start in range(0, len(order), _BATCH)):
            dense[batch], found = self._encode([texts[i] for i in batch], prompt, side, heads)
            for i, row in zip(batch, found, strict=True):
                rows[i] = row
        dense = F.normalize(dense[:, :dim], dim=-1)
        if heads == ["dense"]:
            return dense.numpy()
        if "dense" in heads:
            rows = [{"dense": vector, **row} for vector, row in zip(dense.tolist(), rows, strict=True)]
        return rows

    def _prompt(self, name: str | None, side: str | None) -> str:
        prompts: Mapping[str, str] = self.model.prompts
        if name is not None and name not in prompts:
            raise ValueError(f"prompt_name: {name!r} is not one of {list(prompts)}.")
        return prompts.get(name or side or "") or ""

    @torch.inference_mode()
    def _encode(
        self, texts: list[str], prompt: str, side: str | None, heads: Sequence[str]
    ) -> tuple[Tensor, list[Row]]:
        """Encode one batch: dense vectors (B × D) and, for each text, the other heads that are requested."""
        features = self.model.preprocess(texts, prompt=prompt or None, task=side)
        ids_BT, mask_BT = (features[key].to(self.model.device) for key in ("input_ids", "attention_mask"))
        outputs = self.model.transformers_model(input_ids=ids_BT, attention_mask=mask_BT)
        states_BTD = outputs.last_hidden_state
        features |= {"input_ids": ids_BT, "attention_mask": mask_BT, "token_embeddings": states_BTD}
        features["sentence_embedding"] = outputs.get("sentence_embedding")  # a class of its own pools, too
        for module in list(self.model)[1:]:
            features = module(features)
        rows: list[Row] = [{} for _ in texts]
        if "lexical" in heads:
            weights_BT = self.heads["lexical"](states_BTD, ids_BT, mask_BT)
            for row, ids_T, weights_T in zip(rows, ids_BT.tolist(), weights_BT.tolist(), strict=True):
                row["lexical"] = _terms(ids_T, weights_T)
        if "multi_vector" in heads:
            tokens_BTK = self.heads["multi_vector"](states_BTD, ids_BT, mask_BT)
            for row, tokens_TK in zip(rows, tokens_BTK, strict=True):
                row["multi_vector"] = tokens_TK[tokens_TK.any(-1)].tolist()  # 0: padding, the first special
        return features["sentence_embedding"].float().cpu(), rows


def _read_heads(file: Path, tokenizer: Any) -> nn.ModuleDict:
    heads = nn.ModuleDict()
    if not file.is_file():
        return heads
    weights, special = load_file(file), list(tokenizer.all_special_ids)
    if (weigh := weights.get("lexical.weigh.weight")) is not None:
        heads["lexical"] = LexicalHead(weigh.shape[1], special)
    if (project := weights.get("multi_vector.project.weight")) is not None:
        heads["multi_vector"] = MultiVectorHead(project.shape[1], project.shape[0], special)
    heads.load_state_dict(weights)
    return heads.eval()


def _texts(model_input: Any) -> list[str]:
    """Return the texts of a list, an array, a column or a table of one column."""
    if isinstance(model_input, str):
        return [model_input]
    if hasattr(model_input, "iloc"):  # pandas
        model_input = model_input.to_numpy()
    return [str(text) for text in np.asarray(model_input, dtype=object).ravel()]


def _terms(ids_T: list[int], weights_T: list[float]) -> dict[str, float]:
    """Return the largest weight of each token; 0 is left out."""
    terms: dict[str, float] = {}
    for token, weight in zip(map(str, ids_T), weights_T, strict=True):
        if weight > terms.get(token, 0.0):
            terms[token] = weight
    return terms
