"""RetroMAE with enhanced decoding (Xiao et al. 2022, section 3.3), and DupMAE's bag of words (2023).

The encoder sees a text with few tokens hidden, and predicts them; h is its vector of the text. A decoder of
one layer rebuilds the text, e_i the embedding of token i and p_i that of its position:

    H1 = h + p_1, …, h + p_T                  H2 = h, e_1 + p_1, …, e_T + p_T
    A  = softmax( H1 Wq (H2 Wk)ᵀ / √d + M ) H2 Wv
    M_ij = 0 for j = 0 and for j in a sample of the other tokens, drawn for each i; -∞ elsewhere, and at i
    L  = mean over hidden i of  -log p(x_i | encoder)  +  mean over i of  -log p(x_i | A_i + H1_i)

Where words are given, encoder and samples lack whole words, as in the authors' code; the paper draws tokens.

Two things differ from the paper. h is the embedder's vector, normalised as in search and scaled to the length
√D of a state; a linear map leads back to D where Dense layers give another width. The output matrix is not
the input embedding (for the reason see `TokenPredictor`).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedline.models.embedder import Embedder
from embedline.training.objectives.prediction import PredictionHead, TokenPredictor, token_loss


class Losses(NamedTuple):
    """The losses as means over the target tokens; `words` is None where that loss is off."""

    encoder: Tensor
    decoder: Tensor
    words: Tensor | None


class RetroMAE(nn.Module):
    """A lightly masked encoder, and a one-layer decoder that must rebuild the text from its vector.

    Each position is predicted from a context of its own; the vector must hold what the context lacks.

    Args:
        embedder: the trained part; its pooled vector is the bottleneck.
        length: tokens of the longest row.
        decoder_mask: share of the other tokens hidden from a position.
        head: a pretrained model's own output layer, from states to logits. It then serves encoder and decoder
            both, as in the authors' code; new ones share their output matrix alone.
        frequencies_V: as in `TokenPredictor`, for new ones.
        words_from: what the text's words are predicted from; None: they are not. tokens: the states of its
            ordinary tokens, as in DupMAE, which takes B × T × V scores. vector: the pooled vector alone.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        length: int,
        decoder_mask: float = 0.5,
        head: nn.Module | None = None,
        frequencies_V: Tensor | None = None,
        words_from: Literal["vector", "tokens"] | None = None,
    ) -> None:
        super().__init__()
        width = embedder.state_width
        self.widened = nn.Identity() if embedder.width == width else nn.Linear(embedder.width, width)
        self.decoder_mask, self.words_from = decoder_mask, words_from
        self.heads = next(heads for heads in range(max(1, width // 64), 0, -1) if width % heads == 0)
        self.positions = nn.Embedding(length, width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.projection = nn.Linear(width, width)
        self.attention_norm, self.output_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Embedding):
                nn.init.normal_(layer.weight, std=0.02)
        self.embedder = embedder
        self.output = head or TokenPredictor(embedder, frequencies_V)
        self.encoder_head, self.decoder_head = (
            nn.Identity() if head else PredictionHead(width) for _ in range(2)
        )

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        masked_ids: Tensor,
        targets_BT: Tensor,
        decoder_targets_BT: Tensor,
        words_BT: Tensor | None = None,
    ) -> Losses:
        """Return the losses of encoder, decoder and, with `words_from`, bag of words.

        Args:
            input_ids, attention_mask, masked_ids: B × T; `masked_ids` is the encoder's input.
            targets_BT: True where the encoder predicts; with `masked_ids` from `corrupt_tokens`.
            decoder_targets_BT: True where the decoder predicts.
            words_BT: as in `corrupt_tokens`: the words that a position's context lacks are whole.
        """
        states_BTD, pooled_BD = self.embedder.states(masked_ids, attention_mask)
        encoder = token_loss(self.output, self.encoder_head(states_BTD[targets_BT]), input_ids[targets_BT])
        vector_BD = self.widened(F.normalize(pooled_BD, dim=-1).to(states_BTD.dtype))
        vector_BD = vector_BD * math.sqrt(self.embedder.state_width)
        table = self.embedder.backbone.get_input_embeddings()
        rebuilt_BTD = self._decode(vector_BD, table(input_ids), attention_mask, words_BT)
        decoder = token_loss(
            self.output, self.decoder_head(rebuilt_BTD[decoder_targets_BT]), input_ids[decoder_targets_BT]
        )
        words = None
        if self.words_from == "vector":
            words = self._words_of_vector(vector_BD, input_ids, attention_mask)
        if self.words_from == "tokens":
            words = self._words_of_tokens(states_BTD, input_ids, attention_mask)
        return Losses(encoder, decoder, words)

    def counts(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        masked_ids: Tensor,
        targets_BT: Tensor,
        decoder_targets_BT: Tensor,
        words_BT: Tensor | None = None,
    ) -> Tensor:
        """Count the tokens of each text that each loss is the mean of (2 or 3 × B); 1 a text for DupMAE."""
        counts = [targets_BT.sum(1), decoder_targets_BT.sum(1)]
        if self.words_from == "vector":
            counts.append(attention_mask.sum(1))
        if self.words_from == "tokens":
            counts.append(torch.ones_like(counts[0]))
        return torch.stack(counts)

    def _words_of_vector(self, vector_BD: Tensor, input_ids: Tensor, mask_BT: Tensor) -> Tensor:
        """Return the mean over all tokens of -log softmax(E h + c)[x_i]; words weigh by their counts."""
        log_shares_BT: Tensor = self.output(vector_BD).log_softmax(-1).gather(1, input_ids)
        return -(log_shares_BT * mask_BT).sum() / mask_BT.sum()

    def _words_of_tokens(self, states_BTD: Tensor, input_ids: Tensor, mask_BT: Tensor) -> Tensor:
        """Return DupMAE's loss: -1/|X| Σ log softmax(μ)[x] over the distinct words x of X.

        μ = max over i of (E h_i + c). |X| counts the ordinary tokens, as in the authors' code. The mean over
        texts.
        """
        special = torch.tensor(self.embedder.tokenizer.all_special_ids, device=input_ids.device)
        ordinary_BT = mask_BT.bool() & ~torch.isin(input_ids, special)
        logits_BTV: Tensor = self.output(states_BTD)
        lowest = torch.finfo(logits_BTV.dtype).min
        log_shares_BV = logits_BTV.masked_fill(~ordinary_BT.unsqueeze(-1), lowest).amax(1).log_softmax(-1)
        present_BV = torch.zeros_like(log_shares_BV).scatter_reduce(
            1, input_ids, ordinary_BT.to(log_shares_BV), "amax"
        )
        return -((log_shares_BV * present_BV).sum(-1) / ordinary_BT.sum(-1).clamp(min=1)).mean()

    def _decode(
        self,
        vector_BD: Tensor,
        tokens_BTD: Tensor,
        mask_BT: Tensor,
        words_BT: Tensor | None = None,
    ) -> Tensor:
        batch, length, width = tokens_BTD.shape
        positions_TD = self.positions(torch.arange(length, device=tokens_BTD.device))
        queries_BTD = vector_BD.unsqueeze(1) + positions_TD
        context_BSD = torch.cat([vector_BD.unsqueeze(1), tokens_BTD + positions_TD], dim=1)  # S = T + 1
        attended = F.scaled_dot_product_attention(
            self._split(self.query(queries_BTD)),
            self._split(self.key(context_BSD)),
            self._split(self.value(context_BSD)),
            attn_mask=self._sample(mask_BT, words_BT).unsqueeze(1),
        )
        merged_BTD = attended.transpose(1, 2).reshape(batch, length, width)
        attended_BTD = self.attention_norm(self.projection(merged_BTD) + queries_BTD)
        rebuilt: Tensor = self.output_norm(self.feed_forward(attended_BTD) + attended_BTD)
        return rebuilt

    def _sample(self, mask_BT: Tensor, words_BT: Tensor | None = None) -> Tensor:
        """Draw each position's context (B × T × S): the vector, and a sample of real tokens, not itself."""
        batch, length = mask_BT.shape
        context_BTT = torch.rand(batch, length, length, device=mask_BT.device) >= self.decoder_mask
        if words_BT is not None:
            context_BTT = context_BTT.gather(2, words_BT.unsqueeze(1).expand(-1, length, -1))
        context_BTT &= mask_BT.bool().unsqueeze(1)
        context_BTT &= ~torch.eye(length, dtype=torch.bool, device=mask_BT.device)
        always_BT1 = torch.ones(batch, length, 1, dtype=torch.bool, device=mask_BT.device)
        return torch.cat([always_BT1, context_BTT], dim=2)

    def _split(self, states_BSD: Tensor) -> Tensor:
        batch, length, width = states_BSD.shape
        return states_BSD.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
