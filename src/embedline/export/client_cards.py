"""README.md of a converted folder: the call of its loader that gives the model's own scores."""

from __future__ import annotations

import json

from embedline.models.clients import FLAG_POOLINGS, first_special
from embedline.models.embedder import Embedder
from embedline.models.folder_checks import brings_code

_FLAG = """# An embedding model for FlagEmbedding, converted by Embedline

```python
from FlagEmbedding import BGEM3FlagModel

model = BGEM3FlagModel(
    "path/to/this/folder",
{arguments}
)
heads = {{"return_dense": True, "return_sparse": {lexical}, "return_colbert_vecs": {multi_vector}}}
queries = model.encode_queries(["..."], **heads)
documents = model.encode_corpus(["..."], **heads)
{scores}
```

All these arguments matter: without them texts have no prompt and another length, and the vector is that
of the first token. `use_fp16=True` rounds the weights, on a CPU, too. `compute_score` puts no prompt before
a text, and it compares padding: give it one pair at a time, with the prompts in the texts.
{missing}A special token that a text spells out ("{mask}") gets a lexical weight here, and none in Embedline.

`sparse_linear.pt` and `colbert_linear.pt` hold tensors only and load with `weights_only=True`.
FlagEmbedding reads no other form; Embedline writes pickles nowhere else. The rest is the model's own folder,
which SentenceTransformer (dense head) and Embedline load, with the same index version.
"""
_DENSE = 'dense = queries["dense_vecs"] @ documents["dense_vecs"].T'
_LEXICAL = """lexical = model.compute_lexical_matching_score(
    queries["lexical_weights"], documents["lexical_weights"]
)"""
_LATE = """multi_vector = [
    [float(model.colbert_score(query, document)) for document in documents["colbert_vecs"]]
    for query in queries["colbert_vecs"]
]"""
_MISSING = {
    "lexical": "The model has no lexical head: `sparse_linear.pt` is zero, as all weights are.\n",
    "multi_vector": "The model has no multi-vector head: `colbert_linear.pt` is zero, as all scores are.\n",
}
_SPARSE = """---
library_name: sentence-transformers
pipeline_tag: feature-extraction
tags:
- sparse-encoder
---

# The lexical head of an embedding model, converted by Embedline

```python
from sentence_transformers import SparseEncoder

model = SparseEncoder("path/to/this/folder", trust_remote_code=True)
queries = model.encode_query(["..."])
documents = model.encode_document(["..."])
scores = model.similarity(queries, documents)
terms = model.decode(documents)  # tokens and their weights
```

`trust_remote_code=True` runs `lexical_pooling.py` and `heads.py` of this folder: sentence-transformers has no
module that computes max ReLU(W h) over the tokens of a term.
"""
_MULTI_VECTOR = """---
library_name: sentence-transformers
pipeline_tag: feature-extraction
tags:
- multi-vector-encoder
---

# The multi-vector head of an embedding model, converted by Embedline

```python
from sentence_transformers import MultiVectorEncoder

model = MultiVectorEncoder("path/to/this/folder"{code})
queries = model.encode_query(["..."])
documents = model.encode_document(["..."])
scores = model.similarity(queries, documents)  # the mean over a query's tokens
```
"""
_SIDES = """
`encode_query` and `encode_document` apply prompts and lengths: queries are cut at {query} tokens, documents
at {document}, prompt included. `encode` applies no prompt unless `prompt_name` names one.
"""
_SPELLED = """
A "{first}" that a text spells out has no vector here, and one in Embedline.
"""


def flag_card(embedder: Embedder) -> str:
    """Write the README of a folder for BGEM3FlagModel."""
    spec, tokenizer = embedder.spec, embedder.tokenizer
    arguments: dict[str, object] = {
        "pooling_method": FLAG_POOLINGS[spec.pooling],
        "use_fp16": False,
        "query_max_length": spec.query_length,
        "passage_max_length": spec.document_length,
    }
    if spec.multi_vector_width and "multi_vector" in spec.heads:
        arguments["colbert_dim"] = spec.multi_vector_width
    if query := spec.prompts.prompt("query"):
        arguments["query_instruction_for_retrieval"] = query
    if document := spec.prompts.prompt("document"):
        arguments["passage_instruction_for_retrieval"] = document
    if brings_code(embedder):
        arguments["trust_remote_code"] = True
    scores = {"dense": _DENSE, "lexical": _LEXICAL, "multi_vector": _LATE}
    return _FLAG.format(
        arguments="\n".join(f"    {name}={_literal(value)}," for name, value in arguments.items()),
        lexical="lexical" in spec.heads,
        multi_vector="multi_vector" in spec.heads,
        scores="\n".join(code for head, code in scores.items() if head in spec.heads),
        missing="".join(text for head, text in _MISSING.items() if head not in spec.heads),
        mask=tokenizer.mask_token or tokenizer.pad_token,
    )


def _literal(value: object) -> str:
    """Write a value as Python code, text in double quotes."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def sparse_card(embedder: Embedder) -> str:
    """Write the README of a folder for SparseEncoder."""
    return _SPARSE + _sides(embedder)


def multi_vector_card(embedder: Embedder) -> str:
    """Write the README of a folder for MultiVectorEncoder."""
    code = ", trust_remote_code=True" if brings_code(embedder) else ""
    first = first_special(embedder.tokenizer)
    return (
        _MULTI_VECTOR.format(code=code) + _sides(embedder) + (_SPELLED.format(first=first) if first else "")
    )


def _sides(embedder: Embedder) -> str:
    return _SIDES.format(query=embedder.spec.query_length, document=embedder.spec.document_length)
