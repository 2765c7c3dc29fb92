"""Parts that masked language models share: hiding tokens, and predicting them from states."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedline.models.embedder import Embedder


class TokenPredictor(nn.Module):
    """A linear layer over the vocabulary: logits = E h + c.

    E starts as the input embedding but is not tied to it: tied, Adam moves the rows of rare tokens as far as
    others, all in one direction, and a short training ends with nearly equal vectors.

    Args:
        frequencies_V: the count of each token. c starts at the logarithm of their shares, so that the first
            steps of training, and the directions of all vectors, are not spent on learning them. Equal when
            None.
    """

    def __init__(self, embedder: Embedder, frequencies_V: Tensor | None = None) -> None:
        super().__init__()
        table_VD: Tensor = embedder.backbone.get_input_embeddings().weight  # type: ignore[assignment]
        counts_V = torch.ones(len(table_VD)) if frequencies_V is None else frequencies_V.float() + 1
        self.bias_V = nn.Parameter((counts_V / counts_V.sum()).log())
        self.table_VD = nn.Parameter(table_VD.detach().clone())

    def forward(self, states: Tensor) -> Tensor:
        """Map states (… × D) to logits (… × V) in fp32."""
        return F.linear(states, self.table_VD, self.bias_V).float()


class PredictionHead(nn.Module):
    """The layer before BERT's output matrix: LayerNorm(GELU(W h + b))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
        nn.init.normal_(self.dense.weight, std=0.02)

    def forward(self, states: Tensor) -> Tensor:
        result: Tensor = self.norm(F.gelu(self.dense(states)))
        return result


def token_loss(logits: Callable[[Tensor], Tensor], states_KD: Tensor, target_K: Tensor) -> Tensor:
    """Return the mean over K targets of -log softmax(logits(state))[target]; 0 when there are none."""
    if not len(target_K):
        return states_KD.sum() * 0.0
    return F.cross_entropy(logits(states_KD), target_K)


def vocabulary_size(embedder: Embedder) -> int:
    """Return the number of rows of the embedding matrix (V); a tokenizer may use fewer."""
    return len(embedder.backbone.get_input_embeddings().weight)  # type: ignore[arg-type]


def corrupt_tokens(
    input_ids: Tensor,
    maskable_BT: Tensor,
    share: float,
    mask_id: int,
    *,
    vocabulary: int,
    random: float = 0.1,
    keep: float = 0.1,
    words_BT: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Mask tokens as BERT does (Devlin et al. 2019, section 3.1).

    Args:
        maskable_BT: True at ordinary tokens.
        share: of the maskable tokens that are to be predicted.
        mask_id: any token where the tokenizer has no mask token.
        vocabulary: tokens to draw random ones from.
        random, keep: share of the predicted tokens that become a random token, and that stay as they are;
            the rest become the mask token. BERT: 0.1 and 0.1; both 0: all of them.
        words_BT: the position of the first token of each token's word: the tokens of a word are predicted
            together, each with a fate of its own. None: each token is drawn alone.

    Returns:
        Ids to encode, and True where a token is predicted (B × T).
    """
    shape, device = input_ids.shape, input_ids.device
    targets_BT = torch.rand(shape, device=device) < share
    if words_BT is not None:
        targets_BT = targets_BT.gather(1, words_BT)
    targets_BT = maskable_BT & targets_BT
    if not random and not keep:
        return torch.where(targets_BT, mask_id, input_ids), targets_BT
    fate_BT = torch.rand(shape, device=device)
    other_BT = torch.randint(vocabulary, shape, device=device, dtype=input_ids.dtype)
    hidden_BT = torch.where(fate_BT < random, other_BT, mask_id)
    return torch.where(targets_BT & (fate_BT < 1 - keep), hidden_BT, input_ids), targets_BT
