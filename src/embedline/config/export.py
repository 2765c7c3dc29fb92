"""Section `export`: ONNX files and their parity."""

from __future__ import annotations

from pydantic import Field

from embedline.config.base import Section


class ExportConfig(Section):
    """ONNX fp32 and int8, with a measured parity."""

    # Opset 23 has an operator for rotary positions, which onnxruntime 1.31 runs only one text at a time.
    opset: int = Field(18, ge=17, le=22, description="of the ONNX graph")
    int8: bool = Field(True, description="also write model_int8.onnx, quantised dynamically")
    parity_texts: int = Field(64, ge=4, description="texts the exported models are compared on")
    min_cosine_fp32: float = Field(0.9999, gt=0, le=1, description="worst cosine to torch that passes")
    min_cosine_int8: float = Field(0.95, gt=0, le=1, description="the same of int8")
    min_token_cosine_fp32: float = Field(0.9999, gt=0, le=1, description="of any token's vector")
    # Measured: 0.9998 on bge-m3-tiny as trained, 0.953 on MiniLM-L6 under new heads (dense there: 0.949).
    min_token_cosine_int8: float = Field(0.9, gt=0, le=1, description="the same of int8")
    max_lexical_difference_fp32: float = Field(
        0.001, ge=0, description="of any term's weight, as a share of the largest weight"
    )
    # Measured: 0.010 on bge-m3-tiny, 0.17 on MiniLM-L6 under a new head of random weights.
    max_lexical_difference_int8: float = Field(0.2, ge=0, description="the same of int8")
