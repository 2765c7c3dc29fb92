"""An embedder that needs only onnxruntime and tokenizers: no torch, no transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from embedline.errors import InputError
from embedline.models.batching import token_batches
from embedline.models.head_vectors import HeadArrays, HeadVectors, collect_heads
from embedline.models.prompts import PromptTable
from embedline.resources import usable_cores
from embedline.vectors.unit import unit

Variant = Literal["fp32", "int8"]
Scales = Literal["text", "batch"]
MODEL: dict[Variant, str] = {"fp32": "model.onnx", "int8": "model_int8.onnx"}
TOKENIZER = "tokenizer.json"
CARD = "embedline.json"
OUTPUTS = {"dense": "sentence_embedding", "lexical": "lexical_weights", "multi_vector": "token_vectors"}


class OnnxEmbedder:
    """An exported model: texts in, the same vectors out as from `models.embedder.Embedder`.

    `heads` are the model's heads (dense among them), `hybrid` their weights in a hybrid score. `alone`: texts
    are run one at a time, because int8 quantises activations over a whole batch (`export.int8_scales: text`).

    Args:
        folder: written by `export_onnx`.
        variant: fp32 or int8.
        threads: threads of one inference; when None, as many as the container may use.
        providers: onnxruntime execution providers, the preferred one first.

    Raises:
        InputError: a file is missing, or onnxruntime cannot load the graph.

    Example:
        >>> embedder = OnnxEmbedder(Path("onnx"), "int8")
        >>> prompt = embedder.prompts.prompt("query")
        >>> vectors = embedder.encode(["How do I reset my password?"], prompt=prompt)
    """

    def __init__(
        self,
        folder: Path,
        variant: Variant = "fp32",
        threads: int | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        model = folder / MODEL[variant]
        for path in (model, folder / TOKENIZER, folder / CARD):
            if not path.is_file():
                raise InputError("is missing; this is not an exported model.", where=str(path))
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        self.width: int = card["width"]
        self.dims: tuple[int, ...] = tuple(card["dims"])
        self.heads: tuple[str, ...] = tuple(card["heads"])
        self.hybrid: dict[str, float] = card.get("hybrid", {"dense": 1.0})
        self.query_length: int = card["query_length"]
        self.document_length: int = card["document_length"]
        self.prompts = PromptTable.from_json(card["prompts"])
        self.index_version: str = card["index_version"]
        self.alone = variant == "int8" and card.get("int8_scales", "batch") == "text"
        self._pad: int = card["pad_token_id"]
        self._side: str = card["truncation_side"]
        self._empty: list[int] = card.get("empty_text_ids", [self._pad])
        self._tokenizer: Any = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.no_padding()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or usable_cores()
        options.inter_op_num_threads = 1  # the graph's operators run one after another
        try:
            self._session: Any = onnxruntime.InferenceSession(model, options, providers=list(providers))
        except Exception as error:  # onnxruntime has a class for each status, without a common one
            raise InputError(f"onnxruntime cannot load it ({error}).", where=str(model)) from error

    def tokenize(self, texts: Sequence[str], *, prompt: str = "", max_length: int) -> list[list[int]]:
        """Return each text's token ids (at least one), special tokens included, cut at `max_length`."""
        self._tokenizer.enable_truncation(max_length, direction=self._side)
        rows = self._tokenizer.encode_batch_fast([prompt + text for text in texts])
        return [row.ids or self._empty for row in rows]

    @property
    def vocabulary(self) -> int:
        """Number of tokens that the tokenizer has."""
        return int(self._tokenizer.get_vocab_size())

    def token(self, term: int) -> str:
        """Return the token of an id."""
        return str(self._tokenizer.id_to_token(term))

    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt: str = "",
        max_length: int | None = None,
        batch_tokens: int = 8192,
        dim: int | None = None,
        alone: bool | None = None,
    ) -> np.ndarray:
        """Encode `texts` in their order (N × D, float32, length 1); batches hold texts of like length.

        Args:
            prompt: put before every text.
            max_length: tokens at which a text is cut; the model's document length when None.
            batch_tokens: tokens a batch, padding included: bounds the memory.
            dim: number of leading values to keep (Matryoshka) before normalising again.
            alone: run each text by itself; None: as `alone` of the embedder.

        Raises:
            InputError: `dim` is not between 1 and the model's width.
        """
        if dim is not None and not 1 <= dim <= self.width:
            raise InputError(f"dim {dim} is not between 1 and the model's width {self.width}.")
        ids = self.tokenize(texts, prompt=prompt, max_length=max_length or self.document_length)
        vectors = np.zeros((len(ids), self.width), dtype=np.float32)
        for rows in token_batches([len(row) for row in ids], self._batch_tokens(batch_tokens, alone)):
            vectors[rows] = self._session.run([OUTPUTS["dense"]], self._padded([ids[i] for i in rows]))[0]
        return vectors if dim is None else unit(vectors, dim)

    def encode_heads(
        self,
        texts: Sequence[str],
        *,
        prompt: str = "",
        max_length: int | None = None,
        batch_tokens: int = 8192,
    ) -> HeadVectors:
        """Encode `texts` with every head, in their order; arguments as for `encode`."""
        names = [head for head in OUTPUTS if head in self.heads]

        def run(batch: list[list[int]]) -> HeadArrays:
            outputs = self._session.run([OUTPUTS[head] for head in names], self._padded(batch))
            by_head = dict(zip(names, outputs, strict=True))
            return by_head["dense"], by_head.get("lexical"), by_head.get("multi_vector")

        ids = self.tokenize(texts, prompt=prompt, max_length=max_length or self.document_length)
        return collect_heads(
            ids, run, width=self.width, heads=self.heads, batch_tokens=self._batch_tokens(batch_tokens)
        )

    def _batch_tokens(self, batch_tokens: int, alone: bool | None = None) -> int:
        """Return `batch_tokens`, or 1, which makes each text a batch of its own."""
        return 1 if (self.alone if alone is None else alone) else batch_tokens

    def _padded(self, ids: list[list[int]]) -> dict[str, np.ndarray]:
        width = max(1, *map(len, ids))
        tokens = np.full((len(ids), width), self._pad, dtype=np.int64)
        mask = np.zeros((len(ids), width), dtype=np.int64)
        for i, row in enumerate(ids):
            tokens[i, : len(row)], mask[i, : len(row)] = row, 1
        return {"input_ids": tokens, "attention_mask": mask}
