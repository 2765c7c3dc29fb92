"""Section `export`: ONNX files and their parity with torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from embedline.config.base import Section


class ExportConfig(Section):
    """ONNX fp32 and int8, with a measured parity."""

    # Opset 23 has an operator for rotary positions, which onnxruntime 1.31 runs only one text at a time.
    opset: int = Field(18, ge=17, le=22, description="opset of the ONNX graph")
    int8: bool = Field(True, description="also write model_int8.onnx, quantised dynamically")
    # Measured on all-MiniLM-L6-v2: of 400 texts, alone and in a batch, the lowest cosine is 0.980. The lowest
    # cosine to fp32 is 0.987 alone, 0.983 in batches; 130 texts take 1.2 CPU seconds alone, 2.4 in batches.
    int8_scales: Literal["text", "batch"] = Field(
        "text",
        description="text: `OnnxEmbedder` runs the int8 model one text at a time, and a vector depends on "
        "its text alone; batch: activations are scaled over a batch, and a vector depends on its batch",
    )
    parity_texts: int = Field(64, ge=4, description="texts that exported models and torch are compared on")
    min_cosine_fp32: float = Field(
        0.9999, gt=0, le=1, description="lowest cosine to torch's vector that any text may have in fp32"
    )
    min_cosine_int8: float = Field(
        0.95, gt=0, le=1, description="lowest cosine to torch's vector that any text may have in int8"
    )
    min_token_cosine_fp32: float = Field(
        0.9999, gt=0, le=1, description="lowest cosine of any token's vector in fp32 (multi-vector head)"
    )
    # Measured: 0.9998 on bge-m3-tiny as trained, 0.953 on MiniLM-L6 under new heads (dense there: 0.949).
    min_token_cosine_int8: float = Field(
        0.9, gt=0, le=1, description="lowest cosine of any token's vector in int8 (multi-vector head)"
    )
    max_lexical_difference_fp32: float = Field(
        0.001,
        ge=0,
        description="largest difference of a term's weight in fp32, as a share of the largest weight",
    )
    # Measured: 0.010 on bge-m3-tiny, 0.17 on MiniLM-L6 under a new head of random weights.
    max_lexical_difference_int8: float = Field(
        0.2,
        ge=0,
        description="largest difference of a term's weight in int8, as a share of the largest weight",
    )
