"""The files by which sentence-transformers, and LangChain on top of it, load a model folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import save_file

from embedline.artifacts.durable import write_json
from embedline.models.clients import Client, unrepresented
from embedline.models.dense import write_dense_layer
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.third_party import POOLING_MODES

_MODULES = "sentence_transformers.models"
# encode() has no side by itself: the README explains the arguments that name it.
_CARD = """---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
---

# An embedding model, made by Embedline

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/folder"{code})
queries = model.encode_query(["..."])
documents = model.encode_document(["..."])
scores = model.similarity(queries, documents)
```

Queries are cut at {query} tokens, documents at {document} tokens, prompt included. `encode_query` and
`encode_document` apply length and prompt. `encode` applies a prompt alone: it cuts every text at {document}
tokens unless `task="query"` is given.

```python
model.encode(["..."], prompt="...", task="query")  # or prompt_name="query", task="query"
HuggingFaceEmbeddings(model_name="...", query_encode_kwargs={{"prompt": "...", "task": "query"}})  # LangChain
```

Both sides of a symmetric task (similarity, translation, classification, clustering) are cut where documents
are: `model.encode(["..."], prompt_name="sts")`. Names of prompts: {names}.

`onnx/README.md`, where there is one, describes the exported forms: a vector of the int8 form depends on the
other texts of its batch, unless each text is run alone.

`embedline.json` holds the rest: pooling, heads, Matryoshka dims, the prompts, and the model's history.
"""

_OWN_CLASS = """
The folder brings its model class, so loaders need `trust_remote_code=True`. Without sentence-transformers:

```python
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder", trust_remote_code=True)
model = AutoModel.from_pretrained("path/to/this/folder", trust_remote_code=True)
batch = tokenizer(["..."], padding=True, truncation=True, max_length={document}, return_tensors="pt")
vectors = model(**batch, return_embeddings=True)  # of length 1; put the prompt before the texts yourself
```
"""

_OTHERS = """
## Loaders that must not be used on this folder

FlagEmbedding's `BGEM3FlagModel` finds no `.pt` files here: it makes random heads, without an error. In the
same way `SparseEncoder` and `MultiVectorEncoder` of sentence-transformers add untrained layers.
"""
_CONVERT = """
Each needs the model in a form of its own, which is written with a README that shows its use:

```sh
{commands}
```
"""


def write_st_files(embedder: Embedder, folder: Path, *, own_class: bool) -> None:
    """Write modules.json, the modules' configs, prompts and lengths, and a README into `folder`.

    Args:
        own_class: whether the folder holds its own model class, which pools and normalises.
    """
    spec = embedder.spec
    kinds: list[str] = ["Transformer"]
    transformer: dict[str, Any] = {}
    if not own_class:
        kinds += _write_modules(embedder, folder)
    else:
        output = "sentence_embedding"  # normalised already
        transformer = {
            "modality_config": {"text": {"method": "forward", "method_output_name": output}},
            "module_output_name": output,
            "unpad_inputs": False,
        }
    write_st_settings(spec, folder, [f"{_MODULES}.{kind}" for kind in kinds], transformer=transformer)
    code = ", trust_remote_code=True" if own_class else ""
    names = ", ".join(f"`{name}`" for name in spec.prompts.as_st_prompts()) or "none"
    card = _CARD + (_OWN_CLASS if own_class else "") + _OTHERS + _conversions(embedder)
    text = card.format(query=spec.query_length, document=spec.document_length, code=code, names=names)
    (folder / "README.md").write_text(text, encoding="utf-8")


def _conversions(embedder: Embedder) -> str:
    """Return the commands that convert this model for the loaders that can represent it."""
    clients = [client for client in Client if not unrepresented(embedder, client)]
    commands = "\n".join(f"embedline convert path/to/this/folder OUT --to {client}" for client in clients)
    return _CONVERT.format(commands=commands) if clients else ""


def write_st_settings(
    spec: EmbedderSpec,
    folder: Path,
    modules: Sequence[str],
    *,
    similarity: str = "cosine",
    model_type: str = "",
    transformer: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write modules.json, the lengths and the prompts.

    Args:
        modules: class of each module; the first one is the transformer, and each other has a folder, N_CLASS.
        similarity: sentence-transformers' name of the score.
        model_type: its class of model; SentenceTransformer when empty.
        transformer: more settings of the transformer module.
    """
    kinds = [module.rpartition(".")[2] for module in modules]
    listed = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": module}
        for i, (kind, module) in enumerate(zip(kinds, modules, strict=True))
    ]
    write_json(folder / "modules.json", listed)
    # encode_query and encode_document cut each at its own length, encode cuts where documents are cut.
    lengths = {"query_length": spec.query_length, "document_length": spec.document_length}
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": spec.document_length, **lengths, "do_lower_case": False, **transformer},
    )
    prompts = {"prompts": spec.prompts.as_st_prompts(), "default_prompt_name": None}
    kind = {"model_type": model_type} if model_type else {}
    write_json(
        folder / "config_sentence_transformers.json", {**kind, **prompts, "similarity_fn_name": similarity}
    )


def _write_modules(embedder: Embedder, folder: Path) -> list[str]:
    """Write the modules after the transformer, each into a folder of its own; return their kinds."""
    spec = embedder.spec
    norm = ["LayerNorm"] if spec.layer_norm else []
    kinds = ["Pooling", *("Dense" for _ in spec.dense_layers), *norm, "Normalize"]
    folders = [folder / f"{i}_{kind}" for i, kind in enumerate(kinds, 1)]
    for path in folders:
        path.mkdir(exist_ok=True)
    modes = {
        key: name == spec.pooling for key, name in POOLING_MODES.items() if key.startswith("pooling_mode")
    }
    size = {"word_embedding_dimension": embedder.state_width, "include_prompt": True}
    write_json(folders[0] / "config.json", size | modes)
    for layer, layer_spec, path in zip(embedder.dense_layers, spec.dense_layers, folders[1:], strict=False):
        write_dense_layer(layer, layer_spec, path)
    if spec.layer_norm:  # Embedline's norm has no parameters: the module gets weight 1, bias 0
        write_json(folders[-2] / "config.json", {"dimension": embedder.width})
        weights = {"norm.weight": torch.ones(embedder.width), "norm.bias": torch.zeros(embedder.width)}
        save_file(weights, folders[-2] / "model.safetensors")
    return kinds
