"""ONNX: export, int8, a runtime without torch, and the measured parity between them."""
