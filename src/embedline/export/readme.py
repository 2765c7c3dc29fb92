"""README.md of an exported model: its files, its runtime, and what int8 vectors depend on."""

from __future__ import annotations

from pathlib import Path

from embedline.export.parity_result import Parity
from embedline.export.runtime import Scales

_TEXT = """# An embedding model in ONNX, exported by Embedline

```python
from pathlib import Path

from embedline.export.runtime import OnnxEmbedder

embedder = OnnxEmbedder(Path("path/to/this/folder"))
prompt = embedder.prompts.prompt("query")
queries = embedder.encode(["..."], prompt=prompt, max_length=embedder.query_length)
```

`model.onnx` maps `input_ids` and `attention_mask` to `sentence_embedding`, of length 1. `parity.json` holds
the measured differences from torch, `embedline.json` the prompts and lengths.
"""
_INT8 = """
## int8

`OnnxEmbedder(folder, "int8")` runs `model_int8.onnx`. It quantises activations with one scale over the whole
input of a call, so a vector of a batch depends on the other texts of that batch. The lowest cosine between a
text alone and in a batch was {cosine:.4f} here.
"""
_SCALES: dict[Scales, str] = {
    "text": """
`OnnxEmbedder` runs this export one text at a time (`int8_scales: text`), and a vector depends on its text
alone. Other runtimes must do the same, for documents and queries.
""",
    "batch": """
`OnnxEmbedder` runs this export in batches (`int8_scales: batch`). `encode(texts, alone=True)` gives vectors
that depend on their text alone.
""",
}


def write_readme(folder: Path, parity: Parity, scales: Scales) -> None:
    """Write README.md into the folder of an exported model, with the measured effect of batches on int8."""
    text, int8 = _TEXT, parity.variants.get("int8")
    if int8 is not None:
        text += _INT8.format(cosine=int8.batch_cosine) + _SCALES[scales]
    (folder / "README.md").write_text(text, encoding="utf-8")
