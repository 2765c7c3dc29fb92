"""A model under evaluation as an encoder of mteb."""

from __future__ import annotations

from typing import Any

import numpy as np
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction

from embedline.evaluation.evaluated_models import EvaluatedModel
from embedline.models.prompts import MTEB_TYPES, Side, is_long


class MtebEncoder(AbsEncoder):  # type: ignore[misc]
    """An `EvaluatedModel` with mteb's Encoder protocol.

    mteb keeps results by name and revision, and treats all models without a name as the same model; hence a
    name for each, and the model's digest as revision.
    """

    def __init__(self, model: EvaluatedModel) -> None:
        self.evaluated = model
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": f"embedline/{model.model}",
                "revision": model.digest,
                "similarity_fn_name": ScoringFunction.COSINE,
            }
        )

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: Any = None,
        **_: Any,
    ) -> np.ndarray:
        """Encode the texts of a data loader (N × D); its batches are rearranged by length."""
        texts = [text for batch in inputs for text in batch["text"]]
        return self.evaluated.vectors(texts, *self.prompt_and_length(task_metadata, prompt_type))

    def prompt_and_length(self, task_metadata: Any, prompt_type: Any) -> tuple[str, int]:
        """Return the prompt and the maximum length of one side of a task."""
        kind = MTEB_TYPES.get(task_metadata.type, "")
        side: Side = "document" if getattr(prompt_type, "value", None) == "document" else "query"
        prompt = self.evaluated.prompts.prompt(side, name=task_metadata.name, task_type=kind)
        long = not kind or is_long(side, kind)  # a type not listed may hold texts of any length
        return prompt, self.evaluated.document_length if long else self.evaluated.query_length
