"""Masked next token prediction (BehnamGhader et al. 2024, "LLM2Vec").

    L = mean over hidden i of  -log softmax(E h_{i-1} + c)[x_i]

A decoder, made bidirectional, learns to use the tokens on the right. It was trained to predict the next token
at each position, so the hidden token i is predicted from the state before it.
"""

from __future__ import annotations

from torch import Tensor, nn

from embedline.models.embedder import Embedder
from embedline.training.objectives.prediction import TokenPredictor, token_loss


class MaskedNextTokenModel(nn.Module):
    """An embedder with a decoder's output layer, which is dropped after training.

    Args:
        embedder: the trained part, its backbone bidirectional already; its pooling and heads are not trained.
        head: a pretrained decoder's own output layer, from states to logits; a new one when None.
        frequencies_V: as in `TokenPredictor`, for a new one.
    """

    def __init__(
        self, embedder: Embedder, *, head: nn.Module | None = None, frequencies_V: Tensor | None = None
    ) -> None:
        super().__init__()
        self.embedder = embedder
        self.head = head or TokenPredictor(embedder, frequencies_V)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, masked_ids: Tensor, targets_BT: Tensor
    ) -> Tensor:
        """Return the mean loss of the target tokens, 0 when there are none.

        Args:
            input_ids, attention_mask, masked_ids: B × T; `masked_ids` is the decoder's input. LLM2Vec uses
                the token of "_" where the tokenizer has no mask token.
            targets_BT: True where a token is predicted; with `masked_ids` from `corrupt_tokens`. A row's
                first token has no state before it, and is no target.
        """
        states_BTD, _ = self.embedder.states(masked_ids, attention_mask)
        predicts_BT = _predicts(targets_BT, attention_mask)
        return token_loss(self.head, states_BTD[:, :-1][predicts_BT], input_ids[:, 1:][predicts_BT])

    def counts(
        self, input_ids: Tensor, attention_mask: Tensor, masked_ids: Tensor, targets_BT: Tensor
    ) -> Tensor:
        """Count the tokens of each text that the loss is the mean of (1 × B)."""
        return _predicts(targets_BT, attention_mask).sum(1).unsqueeze(0)


def _predicts(targets_BT: Tensor, attention_mask: Tensor) -> Tensor:
    """Return True where a state predicts the token after it (B × T-1)."""
    return targets_BT[:, 1:] & attention_mask[:, :-1].bool()
