"""Pretraining on passages: RetroMAE, masked tokens or masked next tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from embedline.config.training import PretrainConfig
from embedline.errors import InputError
from embedline.models.batching import token_batches
from embedline.models.embedder import Embedder
from embedline.models.language_head import LanguageHead
from embedline.training.batches import draw_batches
from embedline.training.engine import OnMetrics, train
from embedline.training.objectives.mlm import MaskedLanguageModel
from embedline.training.objectives.mntp import MaskedNextTokenModel
from embedline.training.objectives.prediction import corrupt_tokens, mask_tokens, vocabulary_size
from embedline.training.objectives.retromae import RetroMAE


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
) -> None:
    """Train `embedder` in place on `texts` with the configured objective, whose own layers are thrown away.

    Args:
        head: of the language model that the embedder's backbone comes from, where it has one; the
            objective's prediction of tokens starts from it.

    Raises:
        InputError: fewer passages than one batch, or no token to hide others behind.
    """
    if len(texts) < config.batch:
        raise InputError(
            f"there are {len(texts)} passages, one batch needs {config.batch}.",
            where="pretrain.batch",
            fix="Lower it, or add passages to data.corpus.",
        )
    draws = draw_batches(
        {"corpus": len(texts)}, {"corpus": 1.0}, batch=config.batch, steps=config.steps, seed=seed
    )
    torch.manual_seed(seed)
    module = objective_module(embedder, texts, config, head)
    module.to(embedder.device)
    train(
        module,
        _Passages(embedder, texts, [draw.rows for draw in draws], config.length),
        PretrainStep(config, mask_id=mask_token(embedder.tokenizer), bf16=bf16),
        config,
        checkpoints=checkpoints,
        seed=seed,
        on_metrics=on_metrics,
    )


def objective_module(
    embedder: Embedder, texts: Sequence[str], config: PretrainConfig, head: LanguageHead | None = None
) -> RetroMAE | MaskedLanguageModel | MaskedNextTokenModel:
    """The embedder with what its objective puts on top of it."""
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
        words_from=config.bag_of_words_from,
    )


def mask_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """What hides a token: the mask token, or "_" where a decoder's tokenizer has none (LLM2Vec)."""
    if tokenizer.mask_token_id is not None:
        return int(tokenizer.mask_token_id)
    ids = tokenizer("_", add_special_tokens=False)["input_ids"]
    return int(ids[0]) if len(ids) == 1 else None


def _token_counts(embedder: Embedder, texts: Sequence[str], length: int, sample: int = 4096) -> Tensor:
    """How often each token occurs in an even sample of the passages (V)."""
    chosen = texts[:: max(1, len(texts) // sample)]
    ids = np.concatenate([np.asarray(row) for row in embedder.tokenize(chosen, max_length=length)])
    return torch.from_numpy(np.bincount(ids, minlength=vocabulary_size(embedder)))


class _Passages(Sequence[Any]):
    def __init__(self, embedder: Embedder, texts: Sequence[str], rows: list[np.ndarray], length: int) -> None:
        self.embedder, self.texts, self.rows, self.length = embedder, texts, rows, length

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return {
            "ids": self.embedder.tokenize([self.texts[i] for i in self.rows[index]], max_length=self.length)
        }


class PretrainStep:
    """One optimizer step over a batch of passages, chunk by chunk; each token weighs the same."""

    def __init__(self, config: PretrainConfig, *, mask_id: int | None, bf16: bool) -> None:
        if mask_id is None:
            raise InputError(
                f"its tokenizer has no mask token, which {config.objective} needs.", where="model.base"
            )
        self.config, self.mask_id, self.bf16 = config, mask_id, bf16
        # Each loss of the objective, and its weight.
        self.weights = {"token": 1.0}
        if config.objective == "retromae":
            self.weights = {"encoder": 1.0, "decoder": 1.0, "words": config.bag_of_words}

    def __call__(self, module: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(module, RetroMAE | MaskedLanguageModel | MaskedNextTokenModel)
        ids = batch["ids"]
        total = float(sum(len(row) for row in ids))
        sums = torch.zeros(len(self.weights))
        weights = torch.tensor(list(self.weights.values()))
        for rows in token_batches([len(row) for row in ids], self.config.batch_tokens):
            chunk = [ids[i] for i in rows]
            losses = torch.stack([loss.float() for loss in self._losses(module, chunk)])
            share = sum(len(row) for row in chunk) / total
            (losses @ weights.to(losses.device) * share).backward()  # type: ignore[no-untyped-call]
            sums += losses.detach().cpu() * share
        metrics = {f"{name}_loss": value for name, value in zip(self.weights, sums.tolist(), strict=True)}
        return sums @ weights, {**metrics, "tokens": total}

    def _losses(
        self, module: RetroMAE | MaskedLanguageModel | MaskedNextTokenModel, chunk: list[list[int]]
    ) -> Sequence[Tensor]:
        inputs, tokenizer = module.embedder.pad(chunk), module.embedder.tokenizer
        input_ids, mask_BT = inputs["input_ids"], inputs["attention_mask"]
        special = torch.tensor(tokenizer.all_special_ids, device=input_ids.device)
        ordinary_BT = mask_BT.bool() & ~torch.isin(input_ids, special)
        share = self.config.encoder_mask
        if isinstance(module, RetroMAE):
            masked_ids = mask_tokens(input_ids, ordinary_BT, share, self.mask_id)
            predicted_BT = ordinary_BT & (
                torch.rand(input_ids.shape, device=input_ids.device) < self.config.decoder_targets
            )
        else:
            masked_ids, predicted_BT = corrupt_tokens(
                input_ids, ordinary_BT, share, self.mask_id, vocabulary=len(tokenizer)
            )
        with torch.autocast(input_ids.device.type, torch.bfloat16, enabled=self.bf16):
            losses: Tensor | tuple[Tensor, ...] = module(input_ids, mask_BT, masked_ids, predicted_BT)
        return (losses,) if isinstance(losses, Tensor) else losses
