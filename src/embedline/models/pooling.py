"""Poolings: token states to one vector a text; and the Dense layers after them.

This file is copied into model folders whose pooling transformers does not have: it imports torch only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def mean(states_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Average the states of real tokens, in fp32 (B × D)."""
    weights = mask_BT.unsqueeze(-1).to(torch.float32)
    return (states_BTD.float() * weights).sum(1) / weights.sum(1).clamp(min=1)


def cls(states_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Take the state of the first real token (B × D); padding may be on either side."""
    first = mask_BT.to(torch.int64).argmax(1)
    return states_BTD[torch.arange(first.shape[0], device=first.device), first].float()


def last(states_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Take the state of the last real token (B × D); padding may be on either side."""
    length = mask_BT.shape[1]
    final = length - 1 - mask_BT.to(torch.int64).flip(1).argmax(1)
    return states_BTD[torch.arange(final.shape[0], device=final.device), final].float()


class LatentAttention(nn.Module):
    """NV-Embed's pooling (Lee et al. 2024, section 3.1): O = softmax(Q Kᵀ) V, an MLP, the mean over tokens.

    The token states are the queries; keys and values come from a trained array of `latents` rows, split among
    `heads`. The MLP is the paper's: two linear layers, GELU between them. What the paper leaves open follows
    its authors' released code: linear maps before and after the attention, the scale 1/√d, a layer norm
    before each of the two parts and a residual around it. A new module therefore starts near the mean of the
    states, which a pretrained backbone needs. (The released MLP gates its GELU; the paper's does not.)
    """

    def __init__(self, width: int, latents: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads = heads
        self.latents_RD = nn.Parameter(torch.randn(latents, width) * 0.02)
        self.query, self.key, self.value, self.output = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.state_norm, self.latent_norm, self.mlp_norm = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, states_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        states_BTD = states_BTD.to(self.latents_RD.dtype)
        latents_RD = self.latent_norm(self.latents_RD)
        attended_BTD = self.output(
            self._merge(
                F.scaled_dot_product_attention(
                    self._split(self.query(self.state_norm(states_BTD))),
                    self._split(self.key(latents_RD).unsqueeze(0)).expand(states_BTD.shape[0], -1, -1, -1),
                    self._split(self.value(latents_RD).unsqueeze(0)).expand(states_BTD.shape[0], -1, -1, -1),
                )
            )
        )
        attended_BTD = attended_BTD + states_BTD
        return mean(self.mlp(self.mlp_norm(attended_BTD)) + attended_BTD, mask_BT)

    def _split(self, rows_BTD: Tensor) -> Tensor:
        batch, length, width = rows_BTD.shape
        return rows_BTD.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

    def _merge(self, rows_BHTd: Tensor) -> Tensor:
        batch, heads, length, part = rows_BHTd.shape
        return rows_BHTd.transpose(1, 2).reshape(batch, length, heads * part)


# The activations of a Dense layer, by the dotted name that sentence-transformers saves.
ACTIVATIONS: dict[str, type[nn.Module]] = {
    f"{kind.__module__}.{kind.__name__}": kind
    for kind in (nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.ELU, nn.LeakyReLU)
}


class DenseLayer(nn.Module):
    """A Dense module of sentence-transformers after the pooling: y = f(W x + b), plus x where it is residual.

    LaBSE has one (tanh, with bias), EmbeddingGemma two (768 to 3072 to 768, identity, without bias).

    Args:
        activation: f, a name in ACTIVATIONS.
        residual: add the input; through a matrix of its own where the widths differ.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool, activation: str, residual: bool = False
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.activation = ACTIVATIONS[activation]()
        self.residual: nn.Module | None = None
        if residual and in_features == out_features:
            self.residual = nn.Identity()
        elif residual:
            self.residual = nn.Linear(in_features, out_features, bias=False)

    def forward(self, vectors_BD: Tensor) -> Tensor:
        vectors_BD = vectors_BD.to(self.linear.weight.dtype)
        out: Tensor = self.activation(self.linear(vectors_BD))
        if self.residual is not None:
            out = out + self.residual(vectors_BD)
        return out.float()


POOLING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mean": mean, "cls": cls, "last": last}


def insert_cls(
    input_ids: Tensor, mask_BT: Tensor, every: int, *, cls_id: int, pad_id: int
) -> tuple[Tensor, Tensor]:
    """Insert a CLS token before every `every` tokens: MCLS (Chen et al. 2024, "M3-Embedding", section 3.3).

    There is no branch and no loop, so that it exports to ONNX.

    Args:
        input_ids, mask_BT: rows that start with the tokenizer's own CLS and are padded on the right.

    Returns:
        Ids and mask (B × S) of rows whose positions 0, every + 1, 2 (every + 1), … hold a CLS; a CLS whose
        block is all padding is masked.
    """
    length = input_ids.shape[1]
    place_S = torch.arange(length + (length - 1) // every, device=input_ids.device)
    token_S = place_S - place_S // (every + 1)  # the token there: one place later for each inserted CLS
    is_cls_S = place_S % (every + 1) == 0
    # An inserted CLS is real if the token after it is; the row's own CLS always is.
    real_S = token_S + (is_cls_S & (place_S > 0)).to(token_S.dtype)
    mask = F.pad(mask_BT, (0, 1))[:, real_S]
    marks = torch.where(mask.bool(), cls_id, pad_id).to(input_ids.dtype)
    return torch.where(is_cls_S, marks, input_ids[:, token_S]), mask


def mcls(states_BSD: Tensor, mask_BS: Tensor, every: int) -> Tensor:
    """Average the states of the CLS tokens that `insert_cls` placed (B × D)."""
    return mean(states_BSD[:, :: every + 1], mask_BS[:, :: every + 1])


def without_inserted(states_BSD: Tensor, every: int, length: int) -> Tensor:
    """Return the states of the `length` tokens of the rows before `insert_cls` (B × T × D)."""
    place_T = torch.arange(length, device=states_BSD.device)
    return states_BSD[:, place_T + (place_T - 1).clamp(min=0) // every]


@dataclass(frozen=True)
class Pooler:
    """Token ids to token states and one vector a text, for every pooling.

    Args:
        pooling: a name in POOLING, latent or mcls.
        every, cls_id, pad_id: for pooling mcls: tokens between two CLS tokens, and the ids of CLS and pad.
        layer_norm: apply a layer norm without parameters to the vector, after the Dense layers.
        latent_attention: the module of pooling latent.
        dense_layers: maps the pooled vectors (B × D) to those of the model's width; may be empty.
    """

    pooling: str
    every: int
    cls_id: int | None
    pad_id: int | None
    layer_norm: bool
    latent_attention: LatentAttention | None
    dense_layers: nn.Sequential

    def __call__(
        self, run: Callable[[Tensor, Tensor], Tensor], input_ids: Tensor, mask_BT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return token states (B × T × D) and fp32 vectors (B × width); `run` maps ids and mask to states."""
        if self.pooling == "mcls":
            assert self.cls_id is not None
            ids, mask_BS = insert_cls(
                input_ids, mask_BT, self.every, cls_id=self.cls_id, pad_id=self.pad_id or 0
            )
            states_BSD = run(ids, mask_BS)
            states_BTD = without_inserted(states_BSD, self.every, input_ids.shape[1])
            pooled_BD = mcls(states_BSD, mask_BS, self.every)
        else:
            states_BTD = run(input_ids, mask_BT)
            pooled_BD = (self.latent_attention or POOLING[self.pooling])(states_BTD, mask_BT)
        pooled_BD = self.dense_layers(pooled_BD)
        if self.layer_norm:
            pooled_BD = F.layer_norm(pooled_BD.float(), pooled_BD.shape[-1:])
        return states_BTD, pooled_BD
