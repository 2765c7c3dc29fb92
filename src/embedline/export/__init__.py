"""ONNX: export, int8, a runtime without torch, and their measured parity with torch."""
