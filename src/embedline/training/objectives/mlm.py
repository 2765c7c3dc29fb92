"""Masked language modelling (Devlin et al. 2019, section 3.1; Nomic Embed: 30 % of the tokens).

    L = mean over hidden i of  -log softmax(E g(h_i) + c)[x_i]        g(h) = LayerNorm(GELU(W h + b))

h_i is the state of position i, given a text in which some tokens are hidden; x_i the token that stood there.
"""

from __future__ import annotations

from torch import Tensor, nn

from embedline.models.embedder import Embedder
from embedline.training.objectives.prediction import PredictionHead, TokenPredictor


class MaskedLanguageModel(nn.Module):
    """An embedder with BERT's output layer, which is thrown away after training.

    Args:
        embedder: what is trained; its pooling and heads are not.
        frequencies_V: as in `TokenPredictor`.
    """

    def __init__(self, embedder: Embedder, *, frequencies_V: Tensor | None = None) -> None:
        super().__init__()
        self.embedder = embedder
        self.head = PredictionHead(embedder.width)
        self.output = TokenPredictor(embedder, frequencies_V)
        nn.init.normal_(self.head.dense.weight, std=0.02)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, masked_ids: Tensor, targets_BT: Tensor
    ) -> Tensor:
        """The mean loss of the target tokens, 0 when there are none.

        Args:
            input_ids, attention_mask, masked_ids: B × T; `masked_ids` is what the encoder sees.
            targets_BT: True where a token is predicted; with `masked_ids` from `corrupt_tokens`.
        """
        states_BTD, _ = self.embedder.states(masked_ids, attention_mask)
        return self.output.loss(self.head(states_BTD[targets_BT]), input_ids[targets_BT])

    def counts(
        self, input_ids: Tensor, attention_mask: Tensor, masked_ids: Tensor, targets_BT: Tensor
    ) -> Tensor:
        """How many tokens of each text the loss is the mean of (1 × B)."""
        return targets_BT.sum(1).unsqueeze(0)
