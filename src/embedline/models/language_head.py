"""The output head of a pretrained language model, without the model: token states to logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_outputs import BaseModelOutputWithPast

from embedline.errors import InputError, first_line
from embedline.models.bidirectional import is_decoder_family
from embedline.models.st_modules import transformer_folder
from embedline.models.token_rows import keep_token_rows


class LanguageHead(nn.Module):
    """The map of states (… × D) to logits (… × V) in fp32, as the language model's class computes it.

    The whole head is kept: a transform and a bias (BERT, XLM-R, ModernBERT), a cap on the logits (Gemma). The
    output matrix starts as the model's and is tied to no other weight.

    Args:
        model: a language model; its backbone is replaced in place.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        output: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self.tokens = len(output.weight)  # V
        setattr(model, model.base_model_prefix, _PassThrough())
        for module in model.modules():  # a bias shared by the head and its last layer is kept once
            for name, parameter in list(module._parameters.items()):
                if module is not output and any(parameter is shared for shared in output.parameters()):
                    del module._parameters[name]
        self.model, self._output = model, [output]  # a list: the layer is a part of the model already
        self.float()

    def keep_tokens(self, rows: Sequence[int]) -> None:
        """Leave only the logits of some tokens, in place; `rows` are old ids in the order of the new ones."""
        keep_token_rows(self.model, self._output, rows)
        self.tokens = len(rows)

    def forward(self, states: Tensor) -> Tensor:
        rows_1KD = states.reshape(1, -1, states.shape[-1])
        logits_1KV: Tensor = self.model(inputs_embeds=rows_1KD).logits
        return logits_1KV.reshape(*states.shape[:-1], -1).float()


class _PassThrough(nn.Module):
    """A module in place of the backbone that returns its input as the states."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> _Output:
        return _Output(last_hidden_state=inputs_embeds)


@dataclass
class _Output(BaseModelOutputWithPast):
    image_hidden_states: None = None  # read by models that also take images


def load_language_head(
    folder: Path, tokenizer: PreTrainedTokenizerBase, *, trust_remote_code: bool = False
) -> LanguageHead | None:
    """Load the head of the language model in `folder`; None where the folder has no weights for one.

    A decoder's head predicts the next token, an encoder's the masked one.

    Args:
        tokenizer: of the model that is trained. The head must cover its tokens; further rows, left by
            padding, are harmless. Where it has fewer tokens than the folder's own, the head gets their rows.

    Raises:
        InputError: the folder cannot be loaded, or its head covers fewer tokens.
    """
    folder = transformer_folder(folder)
    try:
        config = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
        load: Any = AutoModelForCausalLM if is_decoder_family(config) else AutoModelForMaskedLM
        if not trust_remote_code and type(config) not in load._model_mapping:
            return None
        model, loading = load.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    except (OSError, KeyError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise InputError(f"cannot be loaded ({first_line(error)}).", where=str(folder)) from error
    missing = set(loading["missing_keys"])
    own = {name for name, _ in model.named_parameters() if not name.startswith(f"{model.base_model_prefix}.")}
    if missing & own or model.get_output_embeddings() is None:
        return None
    with torch.no_grad():
        head = LanguageHead(model)
    if head.tokens < len(tokenizer):
        raise InputError(
            f"its head covers {head.tokens} tokens, its tokenizer has {len(tokenizer)}: they do not match.",
            where=str(folder),
        )
    options = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    whole: Any = AutoTokenizer.from_pretrained(folder, **options)
    if len(whole) > len(tokenizer):  # the model's vocabulary was pruned
        ids = whole.get_vocab()
        kept = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        head.keep_tokens([ids[token] for token in kept])
    return head
