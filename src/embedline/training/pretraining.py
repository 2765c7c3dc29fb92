"""Pretraining on passages: RetroMAE, masked tokens or masked next tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from embedline.config.training import PretrainConfig
from embedline.errors import InputError
from embedline.models.batching import token_batches
from embedline.models.embedder import Embedder
from embedline.models.language_head import LanguageHead
from embedline.training.batching.passages import PassageBatch, Passages
from embedline.training.engine import processes
from embedline.training.engine.progress import OnMetrics
from embedline.training.engine.step_timer import Metrics, StepTimer
from embedline.training.engine.token_budget import TokenBudget
from embedline.training.engine.trainer import train
from embedline.training.objectives.mlm import MaskedLanguageModel
from embedline.training.objectives.mntp import MaskedNextTokenModel
from embedline.training.objectives.prediction import corrupt_tokens, vocabulary_size
from embedline.training.objectives.retromae import RetroMAE

Objective = RetroMAE | MaskedLanguageModel | MaskedNextTokenModel


def pretrain(
    embedder: Embedder,
    texts: Sequence[str],
    config: PretrainConfig,
    *,
    seed: int,
    bf16: bool,
    checkpoints: Path,
    on_metrics: OnMetrics,
    head: LanguageHead | None = None,
    bad_batches: Path | None = None,
) -> None:
    """Train `embedder` in place on `texts` with the configured objective, whose own layers are dropped.

    Example:
        >>> config = PretrainConfig(objective="retromae", steps=1000)
        >>> pretrain(embedder, passages, config, seed=1, bf16=True,
        ...          checkpoints=Path("checkpoints"), on_metrics=lambda metrics, step: None)

    Args:
        head: the output layer of the language model that the embedder's backbone comes from; the objective's
            prediction of tokens starts from it.
        checkpoints, on_metrics, bad_batches: as in `engine.trainer.train`.

    Raises:
        InputError: fewer passages than one batch, or a tokenizer without a token for hidden ones.
    """
    if len(texts) < config.batch:
        raise InputError(
            f"there are {len(texts)} passages, one batch needs {config.batch}.",
            where="pretrain.batch",
            fix="Lower it, or add passages to data.corpus.",
        )
    batches = Passages(
        embedder,
        texts,
        source="corpus",
        length=config.length,
        batch=config.batch,
        steps=config.steps,
        seed=seed,
        words=config.whole_words,
    )
    torch.manual_seed(seed)
    module = objective_module(embedder, texts, config, head)
    module.to(embedder.device)
    timer = StepTimer(embedder, bf16=bf16)
    step = PretrainStep(config, mask_id=mask_token(embedder.tokenizer), bf16=bf16, timer=timer)
    train(
        module,
        batches,
        step,
        config,
        checkpoints=checkpoints,
        seed=seed,
        on_metrics=on_metrics,
        budget=step.budget,
        timer=timer,
        bad_batches=bad_batches,
    )


def objective_module(
    embedder: Embedder, texts: Sequence[str], config: PretrainConfig, head: LanguageHead | None = None
) -> Objective:
    """Return the embedder with its objective's own layers on top."""
    counts_V = None if head else _token_counts(embedder, texts, config.length)
    if config.objective == "mntp":
        return MaskedNextTokenModel(embedder, head=head, frequencies_V=counts_V)
    if config.objective == "mlm":
        return MaskedLanguageModel(embedder, head=head, frequencies_V=counts_V)
    return RetroMAE(
        embedder,
        length=config.length,
        decoder_mask=config.decoder_mask,
        head=head,
        frequencies_V=counts_V,
        words_from=config.bag_of_words_from if config.bag_of_words else None,
    )


def mask_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the mask token, or "_" where a decoder's tokenizer has none (LLM2Vec); None without either."""
    if tokenizer.mask_token_id is not None:
        return int(tokenizer.mask_token_id)
    ids = tokenizer("_", add_special_tokens=False)["input_ids"]
    return int(ids[0]) if len(ids) == 1 else None


def _token_counts(embedder: Embedder, texts: Sequence[str], length: int, sample: int = 4096) -> Tensor:
    """Count each token in an evenly spaced sample of the passages (V)."""
    chosen = texts[:: max(1, len(texts) // sample)]
    ids = np.concatenate([np.asarray(row) for row in embedder.tokenize(chosen, max_length=length)])
    return torch.from_numpy(np.bincount(ids, minlength=vocabulary_size(embedder)))


class HiddenTokens(NamedTuple):
    """The inputs of an objective for a whole batch (B × T): a text, and its copy with some tokens hidden.

    Args:
        targets_BT: True where a token is predicted.
        decoder_targets_BT: True where RetroMAE's decoder predicts one.
        words_BT: the first token of each token's word, for RetroMAE's decoder.
    """

    input_ids: Tensor
    attention_mask: Tensor
    masked_ids: Tensor
    targets_BT: Tensor  # noqa: N815
    decoder_targets_BT: Tensor | None = None  # noqa: N815
    words_BT: Tensor | None = None  # noqa: N815

    def given(self) -> list[Tensor]:
        """Return what the objective takes: the last fields are None where it takes fewer."""
        return [tensor for tensor in self if tensor is not None]


class PretrainStep:
    """One optimizer step over a batch of passages, chunk by chunk; each hidden token weighs the same.

    The hidden tokens are drawn for the whole batch, so that neither chunks nor processes change the loss.
    """

    def __init__(
        self, config: PretrainConfig, *, mask_id: int | None, bf16: bool, timer: StepTimer | None = None
    ) -> None:
        if mask_id is None:
            raise InputError(
                f"its tokenizer has no mask token, which {config.objective} needs.", where="model.base"
            )
        self.config, self.mask_id, self.bf16, self.timer = config, mask_id, bf16, timer or StepTimer()
        self.budget = TokenBudget(config.batch_tokens)
        default = "mask" if config.objective == "retromae" else "bert"
        hidden_as = default if config.hidden_as == "auto" else config.hidden_as
        # Of the hidden tokens, the share that becomes a random token, and the share that is kept.
        self.other_share = {"mask": 0.0, "bert": 0.1}[hidden_as]
        # The losses of the objective, and their weights.
        self.weights = {"token": 1.0}
        if config.objective == "retromae":
            self.weights = {"encoder": 1.0, "decoder": 1.0}
            if config.bag_of_words:
                self.weights["words"] = config.bag_of_words

    def __call__(self, module: nn.Module, batch: PassageBatch) -> tuple[Tensor, Metrics]:
        assert isinstance(module, Objective)
        ids = batch.ids
        share = processes.share_of([len(row) for row in ids])
        processes.require_same_batch(share, ids)
        sums_L = processes.sum_over_processes(
            processes.run_in_lockstep(lambda: self._backward(module, batch, share))
        )
        metrics = {f"{name}_loss": value for name, value in zip(self.weights, sums_L, strict=True)}
        weights_L = torch.tensor(list(self.weights.values()), device=sums_L.device)
        return sums_L @ weights_L, {**metrics, "tokens": float(sum(len(row) for row in ids))}

    def _backward(self, module: Objective, batch: PassageBatch, share: np.ndarray) -> Tensor:
        """Return this process's part of each loss, and leave its gradients in the parameters."""
        ids, hidden = batch.ids, self._hidden(module, batch).given()
        processes.seed_by_rank()
        counts_LB = module.counts(*hidden)
        whole_L = counts_LB.sum(1).clamp(min=1)
        weights_L = torch.tensor(list(self.weights.values()), device=whole_L.device)
        sums_L = torch.zeros(len(weights_L), device=whole_L.device)
        for positions in token_batches([len(ids[i]) for i in share], self.budget.chunk):
            rows = share[positions]
            longest = max(len(ids[i]) for i in rows)
            chosen = torch.from_numpy(rows).to(whole_L.device)
            part_L = counts_LB[:, chosen].sum(1) / whole_L
            self.timer.padded_tokens += len(rows) * longest
            autocast = torch.autocast(whole_L.device.type, torch.bfloat16, enabled=self.bf16)
            with self.timer.phase("forward"), autocast:
                losses = module(*(tensor[chosen, :longest] for tensor in hidden))
                parts = (
                    [losses] if isinstance(losses, Tensor) else [loss for loss in losses if loss is not None]
                )
                losses_L = torch.stack(parts).float()
            with self.timer.phase("backward"):
                (losses_L @ (weights_L * part_L)).backward()  # type: ignore[no-untyped-call]
            sums_L += losses_L.detach() * part_L
        return sums_L

    def _hidden(self, module: Objective, batch: PassageBatch) -> HiddenTokens:
        """Draw the hidden tokens of the whole batch."""
        inputs, tokenizer = module.embedder.pad(batch.ids), module.embedder.tokenizer
        input_ids, mask_BT = inputs["input_ids"], inputs["attention_mask"]
        special = torch.tensor(tokenizer.all_special_ids, device=input_ids.device)
        ordinary_BT = mask_BT.bool() & ~torch.isin(input_ids, special)
        words_BT = None if batch.words is None else _padded(batch.words, input_ids)
        masked_ids, predicted_BT = corrupt_tokens(
            input_ids,
            ordinary_BT,
            self.config.encoder_mask,
            self.mask_id,
            vocabulary=len(tokenizer),
            random=self.other_share,
            keep=self.other_share,
            words_BT=words_BT,
        )
        if not isinstance(module, RetroMAE):
            return HiddenTokens(input_ids, mask_BT, masked_ids, predicted_BT)
        drawn_BT = torch.rand(input_ids.shape, device=input_ids.device) < self.config.decoder_targets
        return HiddenTokens(input_ids, mask_BT, masked_ids, predicted_BT, ordinary_BT & drawn_BT, words_BT)


def _padded(words: Sequence[Sequence[int]], like_BT: Tensor) -> Tensor:
    """Return the first tokens of words as a tensor (B × T); padding is words of one token."""
    positions = np.tile(np.arange(like_BT.shape[1]), (len(words), 1))
    for row, first in zip(positions, words, strict=True):
        row[: len(first)] = first
    return torch.from_numpy(positions).to(like_BT.device)
