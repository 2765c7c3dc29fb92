"""Masked language modelling (Devlin et al. 2019, section 3.1; Nomic Embed: 30 % of the tokens).

    L = mean over hidden i of  -log softmax(E g(h_i) + c)[x_i]        g(h) = LayerNorm(GELU(W h + b))

h_i is the state of position i of a text in which some tokens are hidden, x_i the original token there.
"""

from __future__ import annotations

from torch import Tensor, nn

from embedline.models.embedder import Embedder
from embedline.training.objectives.prediction import PredictionHead, TokenPredictor, token_loss


class MaskedLanguageModel(nn.Module):
    """An embedder with BERT's output layer, which is dropped after training.

    Args:
        embedder: the trained part; its pooling and heads are not trained.
        head: a pretrained model's own output layer, from states to logits; a new one when None.
        frequencies_V: as in `TokenPredictor`, for a new one.
    """

    def __init__(
        self, embedder: Embedder, *, head: nn.Module | None = None, frequencies_V: Tensor | None = None
    ) -> None:
        super().__init__()
        self.embedder = embedder
        self.head = head or nn.Sequential(
            PredictionHead(embedder.state_width), TokenPredictor(embedder, frequencies_V)
        )

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, masked_ids: Tensor, targets_BT: Tensor
    ) -> Tensor:
        """Return the mean loss of the target tokens, 0 when there are none.

        Args:
            input_ids, attention_mask, masked_ids: B × T; `masked_ids` is the encoder's input.
            targets_BT: True where a token is predicted; with `masked_ids` from `corrupt_tokens`.
        """
        states_BTD, _ = self.embedder.states(masked_ids, attention_mask)
        return token_loss(self.head, states_BTD[targets_BT], input_ids[targets_BT])

    def counts(
        self, input_ids: Tensor, attention_mask: Tensor, masked_ids: Tensor, targets_BT: Tensor
    ) -> Tensor:
        """Count the tokens of each text that the loss is the mean of (1 × B)."""
        return targets_BT.sum(1).unsqueeze(0)
