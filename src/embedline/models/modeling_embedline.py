"""A backbone with the pooling and the rotary positions that transformers does not have, as one model.

This file travels in model folders together with pooling.py and rotary.py: they import torch and
transformers only. Load the folder with AutoModel or SentenceTransformer and `trust_remote_code=True`;
Embedline itself runs its own copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, PretrainedConfig, PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES
from transformers.utils.generic import ModelOutput

from .pooling import LatentAttention, Pooler
from .rotary import RowwiseRotary, has_dynamic_ntk, positions_of, rotary_places


class EmbedlineConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """The backbone's own config, and the pooling on top.

    Args:
        pooling: latent, mcls, mean, cls or last.
        latents, latent_heads: rows and heads of latent attention.
        mcls_every: tokens between two CLS tokens, for pooling mcls.
        layer_norm: on the pooled vector, without parameters.
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
        **kwargs: Any,
    ) -> None:
        if isinstance(backbone, dict):
            known = backbone.get("model_type") in CONFIG_MAPPING
            backbone = AutoConfig.for_model(**backbone) if known else PretrainedConfig.from_dict(backbone)
        self.backbone = backbone
        self.hidden_size = getattr(self.backbone, "hidden_size", 0)
        self.pooling, self.latents, self.latent_heads = pooling, latents, latent_heads
        self.mcls_every, self.mcls_token_id = mcls_every, mcls_token_id
        self.layer_norm = layer_norm
        super().__init__(**kwargs)


@dataclass
class EmbedlineOutput(ModelOutput):
    """Token states (B × T × D) and vectors of length one (B × D)."""

    last_hidden_state: Tensor | None = None
    sentence_embedding: Tensor | None = None


class EmbedlineModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """Token ids and mask in, vectors of length one out."""

    config_class = EmbedlineConfig
    main_input_name = "input_ids"
    _supports_sdpa = True
    _supports_flash_attn = True
    supports_gradient_checkpointing = True  # the backbone does

    def __init__(self, config: EmbedlineConfig, backbone: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.backbone: PreTrainedModel = backbone or _new_backbone(config)
        if has_dynamic_ntk(self.backbone.config):
            for owner, name in list(rotary_places(self.backbone)):
                setattr(owner, name, RowwiseRotary(self.backbone.config))
        self.latent_attention: LatentAttention | None = None
        if config.pooling == "latent":
            self.latent_attention = LatentAttention(config.hidden_size, config.latents, config.latent_heads)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.backbone.get_input_embeddings()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        return_embeddings: bool = False,
        **_: Any,
    ) -> EmbedlineOutput | Tensor:
        """Token ids and mask (B × T, padded on the right for pooling mcls) to states and vectors.

        Args:
            return_embeddings: only the vectors, as a tensor.
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
        )
        states_BTD, pooled_BD = pool(self._run, input_ids, mask_BT)
        vectors_BD = F.normalize(pooled_BD, dim=-1)
        return vectors_BD if return_embeddings else EmbedlineOutput(states_BTD, vectors_BD)

    def _run(self, input_ids: Tensor, mask_BT: Tensor) -> Tensor:
        inputs = {"input_ids": input_ids, "attention_mask": mask_BT}
        if has_dynamic_ntk(self.backbone.config):
            inputs["position_ids"] = positions_of(mask_BT)  # they carry each row's length
        states: Tensor = self.backbone(**inputs).last_hidden_state
        return states


def auto_class(config: PretrainedConfig) -> Any:
    """What makes a backbone: AutoModel, or of an encoder-decoder (T5) what takes its encoder alone.

    Raises:
        ValueError: an encoder-decoder of which transformers has no encoder alone.
    """
    if MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.get(config.model_type, "").endswith("EncoderModel"):
        return AutoModelForTextEncoding
    if config.is_encoder_decoder:
        raise ValueError(f"of the encoder-decoder {config.model_type} transformers has no encoder alone")
    return AutoModel


def _new_backbone(config: EmbedlineConfig) -> PreTrainedModel:
    """The backbone's own class; one that transformers does not have is in the same folder as this file."""
    inner: Any = config.backbone
    make = auto_class(inner).from_config
    if type(inner) is PretrainedConfig:
        kind: Any = get_class_from_dynamic_module(inner.auto_map["AutoConfig"], str(config.name_or_path))
        inner = config.backbone = kind.from_dict(inner.to_dict())
        inner.name_or_path = config.name_or_path
        model: PreTrainedModel = make(inner, trust_remote_code=True)
    else:
        model = make(inner)
    return model
