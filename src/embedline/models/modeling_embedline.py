"""A transformers model of a backbone with a pooling or rotary positions that transformers does not have.

This file is copied into model folders together with pooling.py and rotary.py: they import torch and
transformers only. Load the folder with AutoModel or SentenceTransformer and `trust_remote_code=True`;
Embedline itself uses the copy in its package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, PretrainedConfig, PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES
from transformers.utils.generic import ModelOutput

from .pooling import DenseLayer, LatentAttention, Pooler
from .rotary import RowwiseRotary, has_dynamic_ntk, position_ids_of, rotary_modules

# Former names of latent attention's weights, as pattern, and their names now: older folders still load.
_RENAMED_WEIGHTS = {
    rf"^latent_attention\.{old}\.": f"latent_attention.{new}."
    for old, new in {"ask": "query", "look": "key", "take": "value", "mix": "output"}.items()
}


class EmbedlineConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """The backbone's config and the pooling on top.

    Args:
        pooling: latent, mcls, mean, cls or last.
        latents, latent_heads: rows and heads of latent attention.
        mcls_every: tokens between two CLS tokens, for pooling mcls.
        layer_norm: on the vector, without parameters.
        dense_layers: arguments of each `DenseLayer` after the pooling.
        mcls_token_id, pad_token_id: the tokenizer's, for pooling mcls.
    """

    model_type = "embedline"
    sub_configs: ClassVar[dict[str, Any]] = {"backbone": AutoConfig}

    def __init__(
        self,
        backbone: dict[str, Any] | PretrainedConfig | None = None,
        pooling: str = "latent",
        latents: int = 512,
        latent_heads: int = 8,
        mcls_every: int = 256,
        mcls_token_id: int | None = None,
        layer_norm: bool = False,
        dense_layers: Sequence[Mapping[str, Any]] = (),
        **kwargs: Any,
    ) -> None:
        if isinstance(backbone, dict):
            native = backbone.get("model_type") in CONFIG_MAPPING
            backbone = AutoConfig.for_model(**backbone) if native else PretrainedConfig.from_dict(backbone)
        self.backbone = backbone
        self.hidden_size = getattr(self.backbone, "hidden_size", 0)
        self.pooling, self.latents, self.latent_heads = pooling, latents, latent_heads
        self.mcls_every, self.mcls_token_id = mcls_every, mcls_token_id
        self.layer_norm = layer_norm
        self.dense_layers = [dict(layer) for layer in dense_layers]
        if self.dense_layers:  # sentence-transformers reads the vectors' width under this name
            self.projection_dim = self.dense_layers[-1]["out_features"]
        super().__init__(**kwargs)


@dataclass
class EmbedlineOutput(ModelOutput):
    """Token states (B × T × D) and vectors of length 1 (B × D)."""

    last_hidden_state: Tensor | None = None
    sentence_embedding: Tensor | None = None


class EmbedlineModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """A backbone and its pooling: token ids and mask in, vectors of length 1 out."""

    config_class = EmbedlineConfig
    main_input_name = "input_ids"
    _supports_sdpa = True
    _supports_flash_attn = True
    supports_gradient_checkpointing = True  # the backbone does

    def __init__(self, config: EmbedlineConfig, backbone: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.backbone: PreTrainedModel = backbone or _new_backbone(config)
        if has_dynamic_ntk(self.backbone.config):
            for owner, name in list(rotary_modules(self.backbone)):
                setattr(owner, name, RowwiseRotary(self.backbone.config))
        self.latent_attention: LatentAttention | None = None
        if config.pooling == "latent":
            self.latent_attention = LatentAttention(config.hidden_size, config.latents, config.latent_heads)
        self.dense_layers = nn.Sequential(*(DenseLayer(**layer) for layer in config.dense_layers))
        self.post_init()  # type: ignore[no-untyped-call]

    @classmethod
    def from_pretrained(cls, *args: Any, key_mapping: dict[str, str] | None = None, **kwargs: Any) -> Any:
        """Load as any transformers model, from folders with the former weight names too."""
        return super().from_pretrained(*args, key_mapping=_RENAMED_WEIGHTS | (key_mapping or {}), **kwargs)

    def get_input_embeddings(self) -> nn.Module:
        return self.backbone.get_input_embeddings()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        return_embeddings: bool = False,
        **_: Any,
    ) -> EmbedlineOutput | Tensor:
        """Map token ids and mask (B × T, padded on the right for pooling mcls) to states and vectors.

        Args:
            return_embeddings: return only the vectors, as a tensor.
        """
        mask_BT = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        config = self.config
        pool = Pooler(
            config.pooling,
            config.mcls_every,
            config.mcls_token_id,
            config.pad_token_id,
            config.layer_norm,
            self.latent_attention,
            self.dense_layers,
        )
        states_BTD, pooled_BD = pool(self._run, input_ids, mask_BT)
        vectors_BD = F.normalize(pooled_BD, dim=-1)
        return vectors_BD if return_embeddings else EmbedlineOutput(states_BTD, vectors_BD)

    def _run(self, input_ids: Tensor, mask_BT: Tensor) -> Tensor:
        inputs = {"input_ids": input_ids, "attention_mask": mask_BT}
        if has_dynamic_ntk(self.backbone.config):
            inputs["position_ids"] = position_ids_of(mask_BT)  # RowwiseRotary reads each row's length
        states: Tensor = self.backbone(**inputs).last_hidden_state
        return states


def auto_class(config: PretrainedConfig) -> Any:
    """Return the auto class that builds a backbone: AutoModel, or the encoder's of an encoder-decoder (T5).

    Raises:
        ValueError: an encoder-decoder without an encoder-only class in transformers.
    """
    if MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.get(config.model_type, "").endswith("EncoderModel"):
        return AutoModelForTextEncoding
    if config.is_encoder_decoder:
        raise ValueError(
            f"transformers has no encoder-only class for the encoder-decoder {config.model_type}"
        )
    return AutoModel


def _new_backbone(config: EmbedlineConfig) -> PreTrainedModel:
    """Make the backbone; a class that transformers does not have is in the same folder as this file."""
    inner: Any = config.backbone
    make = auto_class(inner).from_config
    if type(inner) is PretrainedConfig:
        config_class: Any = get_class_from_dynamic_module(
            inner.auto_map["AutoConfig"], str(config.name_or_path)
        )
        inner = config.backbone = config_class.from_dict(inner.to_dict())
        inner.name_or_path = config.name_or_path
        model: PreTrainedModel = make(inner, trust_remote_code=True)
    else:
        model = make(inner)
    return model
