"""RetroMAE with enhanced decoding (Xiao et al. 2022, section 3.3), and DupMAE's bag of words (2023)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedline.models.embedder import Embedder


class Losses(NamedTuple):
    """Means over their target tokens."""

    encoder: Tensor
    decoder: Tensor
    words: Tensor


class RetroMAE(nn.Module):
    """A lightly masked encoder, and a one-layer decoder that must rebuild the text from its vector.

    The decoder (eq. 6-9): position i asks with the sentence vector plus its position, and attends to the
    sentence vector and to a random sample of the other tokens, its own; never to itself. So each position
    learns from a context of its own, and what the sample lacks must be in the vector.

    Args:
        embedder: what is trained; its pooled vector is the bottleneck.
        length: the longest row.
        decoder_mask: share of the other tokens hidden from a position.
        frequencies_V: how often each token occurs. The output bias starts at their logarithm, so that
            training need not spend its first steps, and the directions of all vectors, on learning them.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        length: int,
        decoder_mask: float = 0.5,
        frequencies_V: Tensor | None = None,
    ) -> None:
        super().__init__()
        width = embedder.width
        self.embedder, self.decoder_mask = embedder, decoder_mask
        self.heads = next(heads for heads in range(max(1, width // 64), 0, -1) if width % heads == 0)
        table: Any = embedder.backbone.get_input_embeddings()
        counts_V = torch.ones(len(table.weight)) if frequencies_V is None else frequencies_V.float() + 1
        self.bias_V = nn.Parameter((counts_V / counts_V.sum()).log())
        self.table_VD = nn.Parameter(table.weight.detach().clone())
        self.encoder_head = _Head(width)
        self.decoder_head = _Head(width)
        self.positions = nn.Embedding(length, width)
        self.ask, self.look, self.take = (nn.Linear(width, width) for _ in range(3))
        self.mix = nn.Linear(width, width)
        self.attention_norm, self.output_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        for module in self.modules():
            if module is not embedder and isinstance(module, nn.Linear | nn.Embedding) and self._ours(module):
                nn.init.normal_(module.weight, std=0.02)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, masked_ids: Tensor, decoder_targets_BT: Tensor
    ) -> Losses:
        """The losses of encoder, decoder and bag of words.

        Args:
            input_ids, attention_mask, masked_ids: B × T; `masked_ids` is the encoder's input, and its
                targets are where it differs from `input_ids`.
            decoder_targets_BT: True where the decoder predicts.
        """
        states_BTD, pooled_BD = self.embedder.states(masked_ids, attention_mask)
        # The output matrix is not the input embedding: tied, Adam moves the rows of rare tokens as far as
        # others, all in one direction, and a short training ends with all vectors alike.
        table_VD = self.table_VD
        hidden_BT = masked_ids != input_ids
        encoder = self._loss(self.encoder_head(states_BTD[hidden_BT]), table_VD, input_ids[hidden_BT])
        # As it is searched by: of unit length, scaled to the size of a state. What all texts share in it
        # would only take room from what tells them apart.
        vector_BD = F.normalize(pooled_BD, dim=-1).to(states_BTD.dtype) * math.sqrt(self.embedder.width)
        rebuilt_BTD = self._decode(
            vector_BD, self.embedder.backbone.get_input_embeddings()(input_ids), attention_mask
        )
        decoder = self._loss(
            self.decoder_head(rebuilt_BTD[decoder_targets_BT]), table_VD, input_ids[decoder_targets_BT]
        )
        words = self._words(vector_BD, input_ids, attention_mask, table_VD)
        return Losses(encoder, decoder, words)

    def _words(self, vector_BD: Tensor, input_ids: Tensor, mask_BT: Tensor, table_VD: Tensor) -> Tensor:
        """The vector alone must say which words the text holds (DupMAE, eq. 5): the mean over its tokens.

        A token that stands twice counts twice here, which weighs words by how much of the text they are.
        """
        scores_BV = F.linear(vector_BD, table_VD, self.bias_V).float().log_softmax(-1)
        told_BT = scores_BV.gather(1, input_ids)
        return -(told_BT * mask_BT).sum() / mask_BT.sum()

    def _decode(self, vector_BD: Tensor, tokens_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        batch, length, width = tokens_BTD.shape
        place_TD = self.positions(torch.arange(length, device=tokens_BTD.device))
        asking_BTD = vector_BD.unsqueeze(1) + place_TD
        context_BSD = torch.cat([vector_BD.unsqueeze(1), tokens_BTD + place_TD], dim=1)  # S = T + 1
        attended = F.scaled_dot_product_attention(
            self._split(self.ask(asking_BTD)),
            self._split(self.look(context_BSD)),
            self._split(self.take(context_BSD)),
            attn_mask=self._sample(mask_BT).unsqueeze(1),
        )
        merged_BTD = attended.transpose(1, 2).reshape(batch, length, width)
        seen_BTD = self.attention_norm(self.mix(merged_BTD) + asking_BTD)
        rebuilt: Tensor = self.output_norm(self.feed_forward(seen_BTD) + seen_BTD)
        return rebuilt

    def _sample(self, mask_BT: Tensor) -> Tensor:
        """What a position sees (B × T × S): the vector, and a sample of real tokens, not itself (eq. 7)."""
        batch, length = mask_BT.shape
        seen_BTT = torch.rand(batch, length, length, device=mask_BT.device) >= self.decoder_mask
        seen_BTT &= mask_BT.bool().unsqueeze(1)
        seen_BTT &= ~torch.eye(length, dtype=torch.bool, device=mask_BT.device)
        always_BT1 = torch.ones(batch, length, 1, dtype=torch.bool, device=mask_BT.device)
        return torch.cat([always_BT1, seen_BTT], dim=2)

    def _split(self, states_BSD: Tensor) -> Tensor:
        batch, length, width = states_BSD.shape
        return states_BSD.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

    def _ours(self, module: nn.Module) -> bool:
        return all(module is not theirs for theirs in self.embedder.modules())

    def _loss(self, hidden_KD: Tensor, table_VD: Tensor, target_K: Tensor) -> Tensor:
        if not len(target_K):
            return hidden_KD.sum() * 0.0
        return F.cross_entropy(F.linear(hidden_KD, table_VD, self.bias_V).float(), target_K)


class _Head(nn.Module):
    """BERT's prediction head; the output matrix, one for both, is passed in where it is used."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(width, width), nn.LayerNorm(width)

    def forward(self, hidden: Tensor) -> Tensor:
        result: Tensor = self.norm(F.gelu(self.dense(hidden)))
        return result


def vocabulary_size(embedder: Embedder) -> int:
    """Rows of the embedding matrix (V); a tokenizer may use fewer."""
    return len(embedder.backbone.get_input_embeddings().weight)  # type: ignore[arg-type]


def mask_tokens(input_ids: Tensor, maskable_BT: Tensor, share: float, mask_id: int) -> Tensor:
    """Replace `share` of the maskable tokens by the mask token (B × T)."""
    drawn_BT = torch.rand(input_ids.shape, device=input_ids.device)
    return torch.where(maskable_BT & (drawn_BT < share), mask_id, input_ids)
