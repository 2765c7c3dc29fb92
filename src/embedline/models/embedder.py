"""The embedding model: a transformers backbone, a pooling, heads, and its inputs' lengths and prompts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from embedline.config.model import HybridWeights, LatentConfig
from embedline.errors import InputError, StepError
from embedline.models.batching import token_batches
from embedline.models.heads import Encoded, LexicalHead, MultiVectorHead
from embedline.models.pooling import DenseLayer, LatentAttention, Pooler
from embedline.models.prompts import PromptTable, Side, is_long
from embedline.models.rotary import has_dynamic_ntk, position_ids_of


class DenseSpec(NamedTuple):
    """The arguments of a `DenseLayer`."""

    in_features: int
    out_features: int
    bias: bool
    activation: str
    residual: bool = False


@dataclass(frozen=True)
class EmbedderSpec:
    """The settings that define an embedder beside its weights.

    Args:
        query_length, document_length: tokens at which a text of that side is cut.
        dims: Matryoshka dims, the full width not included.
        latent: latents and heads of latent attention.
        mcls_every: tokens between two CLS tokens, for pooling mcls.
        dense_layers: sentence-transformers' Dense modules between pooling and layer norm; they set the width.
        layer_norm: subtract the vector's mean and divide by its deviation (Nomic Embed, Nussbaum et
            al. 2024), so that no prefix of it is dominated by components that are large in all vectors.
        heads: dense, lexical, multi_vector.
        multi_vector_width: width of a token vector; that of a token's state when None.
        hybrid: weight of each head in the hybrid score.
        prompts: words put before queries and documents.
    """

    pooling: str = "mean"
    latent: LatentConfig = field(default_factory=LatentConfig)
    mcls_every: int = 256
    dense_layers: tuple[DenseSpec, ...] = ()
    layer_norm: bool = False
    heads: tuple[str, ...] = ("dense",)
    multi_vector_width: int | None = None
    hybrid: HybridWeights = field(default_factory=HybridWeights)
    query_length: int = 64
    document_length: int = 256
    dims: tuple[int, ...] = ()
    prompts: PromptTable = field(default_factory=PromptTable)


class Embedder(nn.Module):
    """An embedding model: texts in, vectors out.

    Args:
        backbone: gives token states (B × T × D).

    Raises:
        InputError: the width is no multiple of the latent attention's heads, or MCLS without a CLS token.

    Example:
        >>> embedder = load_embedder(Path("model"))
        >>> vectors = embedder.encode(["The printer does not answer."])
        >>> vectors.shape  # (1, embedder.width), rows of length 1
    """

    def __init__(
        self, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, spec: EmbedderSpec
    ) -> None:
        super().__init__()
        self.backbone, self.tokenizer, self.spec = backbone, tokenizer, spec
        self.latent_attention: LatentAttention | None = None
        if spec.pooling == "latent":
            if self.state_width % spec.latent.heads:
                raise InputError(
                    f"the width {self.state_width} is not a multiple of {spec.latent.heads} heads.",
                    where="model.latent.heads",
                )
            self.latent_attention = LatentAttention(self.state_width, spec.latent.latents, spec.latent.heads)
        if spec.pooling == "mcls" and not _starts_with_cls(tokenizer):
            raise InputError(
                "mcls repeats the CLS token that begins a text; this tokenizer begins texts without one.",
                where="model.pooling",
                fix="Use mean, last or latent.",
            )
        self.dense_layers = nn.Sequential(*(DenseLayer(*layer) for layer in spec.dense_layers))
        self.heads, special = nn.ModuleDict(), list(tokenizer.all_special_ids)
        if "lexical" in spec.heads:
            self.heads["lexical"] = LexicalHead(self.state_width, special)
        if "multi_vector" in spec.heads:
            self.heads["multi_vector"] = MultiVectorHead(self.state_width, self._token_width(spec), special)

    def with_spec(self, spec: EmbedderSpec, *, seed: int = 0) -> Embedder:
        """Return these weights under another spec; a pooling or head new to the model starts at random."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            other = Embedder(self.backbone, self.tokenizer, spec).to(self.device)
        if self.spec.pooling == spec.pooling and self.spec.latent == spec.latent:
            other.latent_attention = self.latent_attention
        if self.spec.dense_layers == spec.dense_layers:
            other.dense_layers = self.dense_layers
        for name, head in self.heads.items():
            same_width = self._token_width(spec) == self._token_width(self.spec)
            if name in other.heads and (name != "multi_vector" or same_width):
                other.heads[name] = head
        return other.train(self.training)

    def with_backbone(
        self, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> Embedder:
        """Return a copy of pooling, Dense layers and heads on another backbone of the same width.

        Args:
            tokenizer: of the backbone, if its tokens have other ids.
        """
        other = Embedder(backbone, tokenizer or self.tokenizer, self.spec)
        other.latent_attention = copy.deepcopy(self.latent_attention)
        other.dense_layers = copy.deepcopy(self.dense_layers)
        new_heads, other.heads = other.heads, copy.deepcopy(self.heads)
        for name, head in new_heads.items():
            other.heads[name].special = head.special.to(self.device)
        return other.train(self.training)

    def _token_width(self, spec: EmbedderSpec) -> int:
        return spec.multi_vector_width or self.state_width

    @property
    def width(self) -> int:
        """Width of the dense vector: the last Dense layer's, or the token states'."""
        layers = self.spec.dense_layers
        return layers[-1].out_features if layers else self.state_width

    @property
    def state_width(self) -> int:
        """Width of a token's state."""
        return int(self.backbone.config.hidden_size)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map token ids and mask (B × T) to dense vectors in fp32 (B × width), not normalised."""
        return self.states(input_ids, attention_mask)[1]

    def represent(self, input_ids: Tensor, attention_mask: Tensor) -> Encoded:
        """Compute all heads in one pass, from token ids and mask (B × T)."""
        states_BTD, dense_BD = self.states(input_ids, attention_mask)
        lexical = tokens = None
        if "lexical" in self.heads:
            lexical = self.heads["lexical"](states_BTD, input_ids, attention_mask)
        if "multi_vector" in self.heads:
            tokens = self.heads["multi_vector"](states_BTD, input_ids, attention_mask)
        return Encoded(dense_BD, lexical, tokens)

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map token ids and mask (B × T) to token states (B × T × D) and vectors in fp32 (B × width)."""
        spec, tokenizer = self.spec, self.tokenizer
        pool = Pooler(
            spec.pooling,
            spec.mcls_every,
            tokenizer.cls_token_id,
            tokenizer.pad_token_id,
            spec.layer_norm,
            self.latent_attention,
            self.dense_layers,
        )
        return pool(self._run, input_ids, attention_mask)

    def _run(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if has_dynamic_ntk(self.backbone.config):
            inputs["position_ids"] = position_ids_of(attention_mask)  # RowwiseRotary reads each row's length
        states: Tensor = self.backbone(**inputs).last_hidden_state
        return states

    def tokenize(self, texts: Sequence[str], *, prompt: str = "", max_length: int) -> list[list[int]]:
        """Return each text's token ids, special tokens included, cut at `max_length`.

        A text without tokens (an empty one, where the tokenizer adds none) becomes one end-of-text token.
        """
        if not texts:
            return []
        encoded = self.tokenizer(
            [prompt + text for text in texts],
            truncation=True,
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        ids: list[list[int]] = encoded["input_ids"]
        end = self.tokenizer.eos_token_id
        return [row or [self.tokenizer.pad_token_id if end is None else end] for row in ids]

    def pad(self, ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Pad rows of ids on the right, to `input_ids` and `attention_mask` (B × T)."""
        width = max(len(row) for row in ids)
        pad = self.tokenizer.pad_token_id
        tokens = np.full((len(ids), width), 0 if pad is None else pad, dtype=np.int64)
        mask = np.zeros((len(ids), width), dtype=np.int64)
        for i, row in enumerate(ids):
            tokens[i, : len(row)], mask[i, : len(row)] = row, 1
        device = self.device
        return {
            "input_ids": torch.from_numpy(tokens).to(device),
            "attention_mask": torch.from_numpy(mask).to(device),
        }

    @torch.no_grad()
    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt: str = "",
        max_length: int | None = None,
        batch_tokens: int = 8192,
        bf16: bool = False,
        normalize: bool = True,
    ) -> np.ndarray:
        """Encode `texts` in their order (N × D, float32); batches hold texts of like length.

        Args:
            prompt: put before every text.
            max_length: tokens at which a text is cut; the model's document length when None.
            batch_tokens: tokens a batch, padding included: bounds the memory.
            bf16: compute under bf16 autocast.
            normalize: scale the vectors to length 1.

        Raises:
            StepError: a vector is not finite; a search would rank it first or last.

        Example:
            >>> embedder = load_embedder(Path("model"))
            >>> vectors = embedder.encode(["The printer does not answer.", "VPN"])
            >>> similarity = vectors[0] @ vectors[1]
        """
        was_training = self.training
        self.eval()
        ids = self.tokenize(texts, prompt=prompt, max_length=max_length or self.spec.document_length)
        vectors = np.zeros((len(ids), self.width), dtype=np.float32)
        for rows in token_batches([len(row) for row in ids], batch_tokens):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                pooled = self(**self.pad([ids[i] for i in rows]))
            pooled = F.normalize(pooled.float(), dim=-1) if normalize else pooled.float()
            vectors[rows] = pooled.cpu().numpy()
        self.train(was_training)
        not_finite = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(not_finite):
            raise StepError(
                f"the model gives no finite vector for {len(not_finite)} of {len(texts)} texts; the first: "
                f"{texts[not_finite[0]][:80]!r}.",
                fix="Check the last checkpoints of its training; runtime.precision: fp32 is safer.",
            )
        return vectors

    def encode_side(
        self,
        texts: Sequence[str],
        side: Side,
        *,
        name: str = "",
        task_type: str = "",
        document_length: int | None = None,
        bf16: bool = False,
    ) -> np.ndarray:
        """Encode queries or documents with their prompt, cut at their length; rows of length 1 (N × D).

        Args:
            name, task_type: choose the prompt, as in `PromptTable.prompt`.
            document_length: replaces the model's own.

        Example:
            >>> queries = embedder.encode_side(["How do I reset my password?"], "query")
            >>> documents = embedder.encode_side(["Open the settings."], "document")
            >>> scores = queries @ documents.T
        """
        spec = self.spec
        long = is_long(side, task_type)
        return self.encode(
            texts,
            prompt=spec.prompts.prompt(side, name=name, task_type=task_type),
            max_length=(document_length or spec.document_length) if long else spec.query_length,
            bf16=bf16,
        )


def _starts_with_cls(tokenizer: PreTrainedTokenizerBase) -> bool:
    cls = tokenizer.cls_token_id
    return cls is not None and tokenizer("a")["input_ids"][:1] == [cls]
