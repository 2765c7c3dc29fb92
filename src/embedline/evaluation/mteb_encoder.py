"""Our encoder as mteb sees it."""

from __future__ import annotations

from typing import Any

import numpy as np
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction

from embedline.evaluation.local import Subject
from embedline.models.prompts import MTEB_TYPES, Side, is_long


class MtebEncoder(AbsEncoder):  # type: ignore[misc]
    """mteb's Encoder protocol over a `Subject`.

    mteb keeps results by name and revision, and takes models without a name for one and the same; hence a
    name of its own, and the model's digest as revision.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": f"embedline/{subject.model}",
                "revision": subject.digest,
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
        """Vectors (N × D) of the texts that a data loader gives; its batches are rearranged by length."""
        texts = [text for batch in inputs for text in batch["text"]]
        return self.subject.vectors(texts, *self.asked(task_metadata, prompt_type))

    def asked(self, task_metadata: Any, prompt_type: Any) -> tuple[str, int]:
        """Prompt and length for one side of a task."""
        kind = MTEB_TYPES.get(task_metadata.type, "")
        side: Side = "document" if getattr(prompt_type, "value", None) == "document" else "query"
        prompt = self.subject.prompts.prompt(side, name=task_metadata.name, task_type=kind)
        long = not kind or is_long(side, kind)  # a type that we do not know may hold texts of any length
        return prompt, self.subject.document_length if long else self.subject.query_length
