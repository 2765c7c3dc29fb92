import numpy as np
import pytest

from embedline.errors import InputError, StepError
from embedline.retrieval import build
from embedline.retrieval.build import build_index
from embedline.retrieval.index import Index

TEXTS = [f"passage number {n} of the corpus" for n in range(23)]
IDS = [f"d{n}" for n in range(23)]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(build, "CHUNK", 5)


def make(folder, model, ids=IDS, texts=TEXTS, **more):
    return build_index(folder, ids, texts, model.block, model.source, **{"dim": 16, **more})


def same_vectors(index, model, texts, dim=16):
    expected = model.block(texts)
    found = index.block(np.arange(len(texts)))
    cut = expected.dense[:, :dim]
    np.testing.assert_allclose(
        found.dense, cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-6 if dim == 16 else 1e-5
    )
    np.testing.assert_array_equal(found.terms.toarray(), expected.terms.toarray())
    np.testing.assert_array_equal(found.tokens.vectors, expected.tokens.vectors)
    np.testing.assert_array_equal(found.tokens.offsets, expected.tokens.offsets)


def test_an_index_holds_passages_and_the_vectors_of_all_heads(tmp_path, model):
    assert make(tmp_path / "index", model) == (23, 23, True)
    index = Index.open(tmp_path / "index")
    assert ([index.id(n) for n in range(23)], [index.text(n) for n in range(23)]) == (IDS, TEXTS)
    assert index.heads == ("dense", "lexical", "multi_vector")
    assert index.bm25.search(["number 7"], 1)[1][0, 0] == 7
    same_vectors(index, model, TEXTS)
    assert not list(tmp_path.glob(".*draft")), "the draft is gone"


def test_the_same_corpus_and_model_do_nothing(tmp_path, model):
    make(tmp_path / "index", model)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "index").rglob("*")}
    assert make(tmp_path / "index", model) == (23, 0, False)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "index").rglob("*")} == before
    assert len(model.seen) == 23


def test_only_new_and_changed_passages_are_encoded(tmp_path, model):
    make(tmp_path / "index", model)
    model.seen.clear()
    texts = ["a new one", *TEXTS[3:12], "a changed one", *TEXTS[13:]]
    ids = [f"e{n}" for n in range(len(texts))]
    assert make(tmp_path / "index", model, ids, texts) == (21, 2, True)
    assert model.seen == ["a new one", "a changed one"]
    index = Index.open(tmp_path / "index")
    assert [index.id(n) for n in range(21)] == ids
    same_vectors(index, model, texts)
    assert index.bm25.search(["changed"], 1)[1][0, 0] == 10


def test_a_renamed_passage_is_not_encoded_again(tmp_path, model):
    make(tmp_path / "index", model)
    assert make(tmp_path / "index", model, [f"x{n}" for n in range(23)]) == (23, 0, True)
    assert Index.open(tmp_path / "index").id(4) == "x4"


def test_vectors_are_taken_over_by_a_narrower_index_and_not_by_a_wider_one(tmp_path, model):
    make(tmp_path / "index", model)
    assert make(tmp_path / "index", model, dim=8) == (23, 0, True)
    same_vectors(Index.open(tmp_path / "index"), model, TEXTS, dim=8)
    assert make(tmp_path / "index", model).encoded == 23


@pytest.mark.parametrize(
    ("before", "after", "encoded"),
    [
        ("fp32", "fp16", 0),
        ("fp32", "int8", 0),
        ("int8", "fp32", 0),
        ("fp16", "fp16", 1),
        ("fp16", "fp32", 24),
    ],
)
def test_vectors_are_taken_over_only_where_they_are_exact(tmp_path, model, before, after, encoded):
    make(tmp_path / "index", model, precision=before)
    ids, texts = ([*IDS, "new"], [*TEXTS, "new"]) if encoded else (IDS, TEXTS)
    assert make(tmp_path / "index", model, ids, texts, precision=after).encoded == encoded


def test_another_model_or_prompt_encodes_all_passages(tmp_path, model):
    make(tmp_path / "index", model)
    for change in ({"index_version": "f" * 16}, {"prompt": ""}, {"length": 32}):
        model.source = type(model.source)(**{**vars(model.source), **change})
        assert make(tmp_path / "index", model).encoded == 23


def test_a_model_that_was_moved_is_noted_without_encoding(tmp_path, model):
    make(tmp_path / "index", model)
    model.source = type(model.source)(**{**vars(model.source), "model": "elsewhere"})
    assert make(tmp_path / "index", model) == (23, 0, False)
    assert Index.open(tmp_path / "index").about.source.model == "elsewhere"


def test_an_interrupted_call_is_resumed(tmp_path, model):
    whole = model.block

    def fails(texts):
        if len(model.seen) >= 10:
            raise KeyboardInterrupt
        return whole(texts)

    with pytest.raises(KeyboardInterrupt):
        build_index(tmp_path / "index", IDS, TEXTS, fails, model.source, dim=16)
    assert not (tmp_path / "index").exists()
    damaged = sorted((tmp_path / ".index.draft" / "chunks").glob("*.npz"))[0]
    damaged.write_bytes(damaged.read_bytes()[:200])
    assert make(tmp_path / "index", model) == (23, 18, True)  # one chunk of two was whole
    same_vectors(Index.open(tmp_path / "index"), model, TEXTS)


def test_a_damaged_index_is_named_and_made_again(tmp_path, model):
    make(tmp_path / "index", model)
    path = tmp_path / "index" / "dense.npy"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"dense\.npy: the file has changed"):
        Index.open(tmp_path / "index")
    assert make(tmp_path / "index", model).encoded == 23
    Index.open(tmp_path / "index")
    (tmp_path / "index" / "manifest.json").unlink()
    assert make(tmp_path / "index", model).encoded == 23


def test_an_index_put_aside_by_a_power_cut_comes_back(tmp_path, model):
    make(tmp_path / "index", model)
    (tmp_path / "index").rename(tmp_path / ".index.old")
    assert make(tmp_path / "index", model) == (23, 0, False)


def test_a_folder_that_is_no_index_is_left_alone(tmp_path, model):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("buy milk")
    with pytest.raises(InputError, match="exists and is no index"):
        make(tmp_path / "notes", model)
    assert model.seen == []


def test_vectors_that_are_not_finite_are_refused(tmp_path, model):
    whole = model.block

    def broken(texts):
        block = whole(texts)
        block.dense[0, 0] = np.nan
        return block

    with pytest.raises(StepError, match="not finite"):
        build_index(tmp_path / "index", IDS, TEXTS, broken, model.source, dim=16)
    assert not (tmp_path / "index").exists()


def test_an_index_of_another_format_is_refused(tmp_path, model, monkeypatch):
    monkeypatch.setattr("embedline.retrieval.about.FORMAT", 99)
    make(tmp_path / "index", model)
    monkeypatch.undo()
    with pytest.raises(InputError, match="format 99"):
        Index.open(tmp_path / "index")
