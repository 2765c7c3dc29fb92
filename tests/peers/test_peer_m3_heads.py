"""BGE-M3's dense, lexical and multi-vector scores, against FlagEmbedding: one checkpoint, the same texts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from FlagEmbedding import BGEM3FlagModel
from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3Model
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

from embedline.errors import InputError
from embedline.models.embedder import Embedder
from embedline.models.folder import load_embedder, save_embedder
from embedline.models.head_scores import hybrid_scores, lexical_scores, multi_vector_scores
from embedline.models.heads import Encoded
from embedline.models.tokenizer import train_tokenizer

QUERIES = ["Как настроить почту на телефоне?", "printer printer does not answer", "VPN", "почта почта"]
DOCUMENTS = [
    "Настройка почты: откройте настройки телефона и введите адрес почты.",
    "The printer answers when it is switched on. The printer does not answer otherwise.",
    "VPN и почта",
    "Ёлка",
    "Переустановите драйвер и перезапустите службу печати.",
]


@pytest.fixture(scope="module", params=[None, 16], ids=["full width", "width 16"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a random XLM-R with M3's two linear heads by FlagEmbedding's own `save`."""
    folder = tmp_path_factory.mktemp("m3")
    backend = train_tokenizer(QUERIES + DOCUMENTS, 400, lowercase=False).backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="[CLS]",
        cls_token="[CLS]",
        eos_token="[SEP]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
        mask_token="[MASK]",
        model_max_length=64,
    )
    torch.manual_seed(3)
    config = XLMRobertaConfig(
        vocab_size=448,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=70,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.3,
    )
    sparse, late = torch.nn.Linear(32, 1), torch.nn.Linear(32, request.param or 32)
    torch.nn.init.constant_(sparse.bias, 1.3)  # some weights are zero, not all
    heads = {"colbert_linear": late, "sparse_linear": sparse}
    model = EncoderOnlyEmbedderM3Model({"model": XLMRobertaModel(config), **heads}, tokenizer=tokenizer)
    model.save(str(folder))
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def peer(checkpoint: Path) -> BGEM3FlagModel:
    width = torch.load(checkpoint / "colbert_linear.pt", weights_only=True)["weight"].shape[0]
    return BGEM3FlagModel(
        str(checkpoint), use_fp16=False, devices=["cpu"], colbert_dim=width, query_max_length=64
    )


@pytest.fixture(scope="module")
def embedder(checkpoint: Path) -> Embedder:
    return load_embedder(checkpoint).eval()


def represent(embedder: Embedder, texts: list[str]) -> tuple[torch.Tensor, Encoded]:
    inputs = embedder.pad(embedder.tokenize(texts, max_length=64))
    with torch.no_grad():
        return inputs["input_ids"], embedder.represent(**inputs)


def test_the_checkpoint_has_three_heads_and_cls_pooling(embedder: Embedder) -> None:
    assert embedder.spec.heads == ("dense", "lexical", "multi_vector")
    assert embedder.spec.pooling == "cls"
    assert embedder.spec.document_length == 64  # the tokenizer's bound, of 69 positions


def test_dense_vectors_lexical_weights_and_token_vectors_are_flagembeddings(
    embedder: Embedder, peer: BGEM3FlagModel
) -> None:
    theirs = peer.encode(
        DOCUMENTS, max_length=64, return_dense=True, return_sparse=True, return_colbert_vecs=True
    )
    ids, ours = represent(embedder, DOCUMENTS)
    dense = torch.nn.functional.normalize(ours.dense, dim=-1)
    np.testing.assert_allclose(dense.numpy(), theirs["dense_vecs"], atol=1e-6)
    for row, weights, vectors in zip(
        range(len(DOCUMENTS)), theirs["lexical_weights"], theirs["colbert_vecs"], strict=True
    ):
        by_term: dict[str, float] = {}
        for term, weight in zip(ids[row].tolist(), ours.lexical[row].tolist(), strict=True):
            if weight > 0:
                by_term[str(term)] = max(weight, by_term.get(str(term), 0.0))
        assert by_term == pytest.approx(dict(weights), abs=1e-6)
        real = ours.tokens[row][(ours.tokens[row] != 0).any(-1)]
        np.testing.assert_allclose(real.numpy(), vectors, atol=1e-6)


def test_scores_are_flagembeddings(embedder: Embedder, peer: BGEM3FlagModel) -> None:
    (q_ids, q), (d_ids, d) = represent(embedder, QUERIES), represent(embedder, DOCUMENTS)
    normalize = torch.nn.functional.normalize
    ours = {
        "dense": normalize(q.dense, dim=-1) @ normalize(d.dense, dim=-1).T,
        "lexical": lexical_scores(q_ids, q.lexical, d_ids, d.lexical),
        "multi_vector": multi_vector_scores(q.tokens, d.tokens),
    }
    assert (ours["lexical"] > 0).any()
    assert (q.lexical == 0).any()
    # One pair at a time: in FlagEmbedding's batches padding takes part in the maximum over a passage.
    mixed = hybrid_scores(ours, embedder.spec.hybrid)
    for i, query in enumerate(QUERIES):
        for j, document in enumerate(DOCUMENTS):
            theirs = peer.compute_score([(query, document)], weights_for_different_modes=[1.0, 0.3, 1.0])
            assert ours["dense"][i, j].item() == pytest.approx(theirs["dense"][0], abs=1e-5)
            assert ours["lexical"][i, j].item() == pytest.approx(theirs["sparse"][0], abs=1e-5)
            assert ours["multi_vector"][i, j].item() == pytest.approx(theirs["colbert"][0], abs=1e-5)
            assert mixed[i, j].item() / 2.3 == pytest.approx(theirs["colbert+sparse+dense"][0], abs=1e-5)


def test_scores_of_encoded_texts_are_flagembeddings(embedder: Embedder, peer: BGEM3FlagModel) -> None:
    """FlagEmbedding's second way to score: from the output of `encode`."""
    options = {"max_length": 64, "return_sparse": True, "return_colbert_vecs": True}
    theirs_q, theirs_d = peer.encode(QUERIES, **options), peer.encode(DOCUMENTS, **options)
    (q_ids, q), (d_ids, d) = represent(embedder, QUERIES), represent(embedder, DOCUMENTS)
    np.testing.assert_allclose(
        lexical_scores(q_ids, q.lexical, d_ids, d.lexical).numpy(),
        peer.compute_lexical_matching_score(theirs_q["lexical_weights"], theirs_d["lexical_weights"]),
        atol=1e-5,
    )
    late = [
        [float(peer.colbert_score(query, document)) for document in theirs_d["colbert_vecs"]]
        for query in theirs_q["colbert_vecs"]
    ]
    np.testing.assert_allclose(multi_vector_scores(q.tokens, d.tokens).numpy(), late, atol=1e-5)


def test_the_checkpoint_is_saved_as_our_folder(embedder: Embedder, tmp_path: Path) -> None:
    save_embedder(embedder, tmp_path)
    again = load_embedder(tmp_path).eval()
    assert again.spec == embedder.spec
    assert not list(tmp_path.rglob("*.pt"))
    (_, before), (_, after) = represent(embedder, DOCUMENTS), represent(again, DOCUMENTS)
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one, other)


def test_code_in_a_pickled_head_does_not_run(checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "evil")
    mark = tmp_path / "run"
    torch.save({"weight": Trap(mark), "bias": torch.zeros(1)}, folder / "sparse_linear.pt")
    with pytest.raises(InputError, match="does not hold a linear layer"):
        load_embedder(folder)
    assert not mark.exists()


class Trap:
    """An object whose unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)
