import json

import numpy as np
import pytest
import scipy.sparse as sp

from embedline.artifacts.manifest import read_artifact
from embedline.errors import InputError
from embedline.retrieval.blocks import Block
from embedline.retrieval.formats import json_vectors, opensearch_terms, qdrant_terms, write_vectors

TEXTS = ["the printer", "пароль", "3.5 mm"]


def test_terms_are_qdrants_sparse_vector():
    assert qdrant_terms({9: 0.5, 2: 0.25}) == {"indices": [2, 9], "values": [0.25, 0.5]}
    assert qdrant_terms({}) == {"indices": [], "values": []}


def test_terms_are_opensearchs_rank_features():
    tokens = {1: "▁print", 2: "er", 3: "3.5", 4: ".", 5: "․", 6: "tiny"}
    terms = {3: 0.5, 1: 1.25, 2: 0.125, 4: 0.5, 5: 0.75, 6: 1e-40}
    named = opensearch_terms(terms, tokens.__getitem__)
    assert named == {"▁print": 1.25, "er": 0.125, "3․5": 0.5, "․": 0.75}
    assert not any("." in name for name in named), "a dot is the path of an inner field"
    smallest_normal = np.finfo(np.float32).tiny
    assert min(named.values()) >= smallest_normal, "Lucene refuses smaller features"


def test_json_is_a_value_a_head_or_an_object_of_all(model):
    vectors = model.vectors(TEXTS)
    dense = list(json_vectors(vectors, ["dense"], "qdrant", str))
    np.testing.assert_allclose(dense, vectors.dense, atol=1e-7)
    (first, *_) = json_vectors(vectors, model.heads, "qdrant", str)
    assert list(first) == ["dense", "lexical", "multi_vector"]
    assert first["lexical"]["indices"] == sorted(vectors.lexical[0])
    row = max(range(3), key=lambda row: len(vectors.tokens[row]))
    lines = list(json_vectors(vectors, model.heads, "qdrant", str))
    np.testing.assert_allclose(lines[row]["multi_vector"], vectors.tokens[row], atol=1e-7)
    (_, second, _) = json_vectors(vectors, ["lexical"], "opensearch", lambda term: f"t{term}")
    assert second == {f"t{term}": pytest.approx(weight) for term, weight in vectors.lexical[1].items()}


def test_a_folder_holds_the_arrays_of_every_head(tmp_path, model):
    vectors, block = model.vectors(TEXTS), model.block(TEXTS)
    files = write_vectors(tmp_path / "out", block, model.heads, ["a", "b", "c"], {"model": "m"})
    folder = tmp_path / "out"
    assert sorted(files) == sorted(path.name for path in folder.iterdir() if path.name != "manifest.json")
    np.testing.assert_array_equal(np.load(folder / "dense.npy"), vectors.dense)
    lexical = sp.load_npz(folder / "lexical.npz")
    assert lexical.shape == (3, 50)
    for row, terms in enumerate(vectors.lexical):
        assert {int(t): lexical[row, t] for t in lexical[row].indices} == {
            term: np.float32(weight) for term, weight in terms.items()
        }
    offsets, tokens = np.load(folder / "multi_vector_offsets.npy"), np.load(folder / "multi_vector.npy")
    for row, expected in enumerate(vectors.tokens):
        np.testing.assert_allclose(tokens[offsets[row] : offsets[row + 1]], expected, atol=1e-3)
    assert json.loads((folder / "ids.json").read_text()) == ["a", "b", "c"]
    assert read_artifact(folder, "vectors").manifest.metadata == {"model": "m"}
    with pytest.raises(InputError, match="exists"):
        write_vectors(folder, block, model.heads, None, {})


def test_a_block_keeps_its_rows_when_taken_and_joined(tmp_path, model):
    texts = [f"text {n}" for n in range(12)]
    whole = model.block(texts)
    odd, even = model.block(texts[1::2]), model.block(texts[::2])
    joined = even.followed_by(odd).take(np.argsort([*range(0, 12, 2), *range(1, 12, 2)]))
    joined.save(tmp_path / "block.npz")
    for block in (joined, Block.load(tmp_path / "block.npz")):
        np.testing.assert_array_equal(block.dense, whole.dense)
        np.testing.assert_array_equal(block.terms.toarray(), whole.terms.toarray())
        np.testing.assert_array_equal(block.tokens.vectors, whole.tokens.vectors)
        np.testing.assert_array_equal(block.tokens.offsets, whole.tokens.offsets)
