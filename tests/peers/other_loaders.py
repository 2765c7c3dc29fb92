"""Load model folders with transformers, sentence-transformers and LangChain, and without Embedline.

Run as a program: a JSON file names the folders, the texts, and where to write the loaders' outputs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from langchain_huggingface import HuggingFaceEmbeddings
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer


def automodel(folder: str, job: dict[str, Any], code: bool) -> dict[str, Any]:
    model, loading = AutoModel.from_pretrained(folder, trust_remote_code=code, output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=code)
    batch = tokenizer(
        job["documents"], padding=True, truncation=True, max_length=job["length"], return_tensors="pt"
    )
    given = {"auto ids": batch["input_ids"], "auto kernel": model.config._attn_implementation}
    with torch.no_grad():
        output = model(batch["input_ids"], attention_mask=batch["attention_mask"])
        ids = batch["input_ids"][:1].clone()
        ids[0, -2] = ids[0, -2] + 1
        changed = model(ids, attention_mask=batch["attention_mask"][:1]).last_hidden_state
        given["auto states"] = output.last_hidden_state
        given["auto looks ahead"] = (changed[0, 0] - output.last_hidden_state[0, 0]).abs().max() > 1e-6
        if code:
            given["auto vectors"] = output.sentence_embedding
            given["auto return_embeddings"] = model(**batch, return_embeddings=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    return given


def sentence_transformer(folder: str, job: dict[str, Any], code: bool) -> dict[str, Any]:
    model = SentenceTransformer(folder, device="cpu", trust_remote_code=code)
    queries = model.encode(job["queries"], prompt=job["prompt"])
    documents = model.encode(job["documents"])
    return {
        "st documents": documents,
        "st queries": queries,
        "st prompt_name": model.encode(job["queries"], prompt_name="query"),
        "st encode_query": model.encode_query(job["queries"]),
        "st similarity": model.similarity(queries, documents),
        "st truncated": model.encode(job["documents"], truncate_dim=8, normalize_embeddings=True),
        "st width": model.get_embedding_dimension(),
    }


def langchain(folder: str, job: dict[str, Any], code: bool) -> dict[str, Any]:
    arguments = {"device": "cpu", "trust_remote_code": code}
    with_words = HuggingFaceEmbeddings(
        model_name=folder, model_kwargs=arguments, query_encode_kwargs={"prompt": job["prompt"]}
    )
    with_name = HuggingFaceEmbeddings(
        model_name=folder,
        model_kwargs={**arguments, "prompts": {"query": job["prompt"]}},
        query_encode_kwargs={"prompt_name": "query"},
    )
    return {
        "langchain documents": with_words.embed_documents(job["documents"]),
        "langchain queries": [with_words.embed_query(text) for text in job["queries"]],
        "langchain prompt_name": [with_name.embed_query(text) for text in job["queries"]],
    }


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for folder in job["folders"]:
        code = any(Path(folder).glob("*.py"))
        given: dict[str, Any] = {}
        loaders = [automodel, sentence_transformer, *([langchain] if folder in job["langchain"] else [])]
        for load in loaders:
            given |= load(folder, job, code)
        assert "embedline" not in sys.modules
        np.savez(Path(folder) / "given.npz", **{name: np.asarray(value) for name, value in given.items()})


if __name__ == "__main__":
    main()
