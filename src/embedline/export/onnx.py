"""Export of a model to one ONNX graph, from token ids to the outputs of every head."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from embedline.errors import InputError
from embedline.export.runtime import CARD, MODEL, OUTPUTS, TOKENIZER
from embedline.models.embedder import Embedder

# protobuf refuses messages of 2 GiB; the graph itself takes some space beside the weights.
_SINGLE_FILE_BYTES = 2_000_000_000


class HeadsGraph(nn.Module):
    """The exported module: ids and mask (B × T) to fp32 vectors of length 1 (B × D), then the other heads."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.embedder = embedder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        encoded = self.embedder.represent(input_ids, attention_mask)
        others = (part.float() for part in (encoded.lexical, encoded.tokens) if part is not None)
        return F.normalize(encoded.dense.float(), dim=-1), *others


def export_onnx(embedder: Embedder, folder: Path, opset: int, *, index_version: str = "") -> Path:
    """Write `model.onnx`, the tokenizer and `embedline.json` into `folder`; return the graph's path.

    Inputs `input_ids` and `attention_mask` are int64 (batch × sequence), both dynamic. Outputs are float32:
    `sentence_embedding` (batch × width), and for the heads that the model has `lexical_weights` (batch ×
    sequence) and `token_vectors` (batch × sequence × width of a token vector), in that order. Weights above
    2 GB are a second file, `model.onnx.data`.

    Args:
        opset: version of the ONNX operators.
        index_version: of the exported model folder; an index records and compares it.

    Raises:
        InputError: the tokenizer has no `tokenizer.json` (only such tokenizers run without transformers).

    Example:
        >>> embedder = load_embedder(Path("model"), attention="sdpa")
        >>> export_onnx(embedder, Path("onnx"), opset=20)
        >>> vectors = OnnxEmbedder(Path("onnx")).encode(["The printer does not answer."])
    """
    folder.mkdir(parents=True, exist_ok=True)
    embedder.tokenizer.save_pretrained(folder)
    if not (folder / TOKENIZER).is_file():
        raise InputError(f"the model's tokenizer cannot be written as {TOKENIZER}.", where=str(folder))
    _write_card(embedder, folder, index_version)
    example = embedder.pad([[1] * 6, [1] * 3])  # a dimension of 1 would be exported as a constant
    dynamic = {0: "batch", 1: "sequence"}
    heads = ["dense", *embedder.heads]
    weights = sum(p.numel() * 4 for p in embedder.parameters())
    was_training = embedder.training
    try:
        with _quiet(), _experts_by_gathering(embedder.backbone), torch.no_grad():
            program = torch.onnx.export(
                HeadsGraph(embedder).eval(),
                (example["input_ids"], example["attention_mask"]),
                dynamo=True,
                opset_version=opset,
                dynamic_shapes={"input_ids": dynamic, "attention_mask": dynamic},
                input_names=["input_ids", "attention_mask"],
                output_names=[OUTPUTS[head] for head in OUTPUTS if head in heads],
                verbose=False,
            )
            assert program is not None  # only without dynamo
            for weight in program.model.graph.initializers.values():
                # onnxruntime's quantiser turns weights around and would trip over the shapes noted here.
                weight.shape = weight.type = None
                weight.metadata_props.clear()
            program.save(folder / MODEL["fp32"], external_data=weights > _SINGLE_FILE_BYTES)
    finally:
        embedder.train(was_training)
    return folder / MODEL["fp32"]


def _write_card(embedder: Embedder, folder: Path, index_version: str) -> None:
    spec, tokenizer = embedder.spec, embedder.tokenizer
    card: dict[str, Any] = {
        "format": 1,
        "pooling": spec.pooling,
        "heads": ["dense", *embedder.heads],
        "hybrid": spec.hybrid.model_dump(),
        "width": embedder.width,
        "dims": list(spec.dims),
        "query_length": spec.query_length,
        "document_length": spec.document_length,
        "prompts": spec.prompts.as_json(),
        "index_version": index_version,
        "pad_token_id": tokenizer.pad_token_id or 0,
        "truncation_side": tokenizer.truncation_side,
        "empty_text_ids": embedder.tokenize([""], max_length=2)[0],
    }
    (folder / CARD).write_text(json.dumps(card, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _experts_by_gathering(backbone: PreTrainedModel) -> Iterator[None]:
    """Replace the grouped matrix product of a mixture of experts, which ONNX does not have.

    Each token gathers the weights of its experts, so long texts take much memory.
    """
    if not backbone._can_set_experts_implementation():
        yield
        return
    before = backbone.get_experts_implementation()
    backbone.set_experts_implementation("batched_mm")
    try:
        yield
    finally:
        backbone.set_experts_implementation(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings about its own internals, dozens of lines a model; errors still show."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
