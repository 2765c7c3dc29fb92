"""`index`, `search` and `embed` on the folders of a small model: ours, of sentence-transformers, ONNX."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from click.testing import Result
from typer.testing import CliRunner

from embedline.cli.app import app
from embedline.config.model import Prompt
from embedline.models.backbone import new_backbone
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.folder import load_embedder, save_embedder
from embedline.models.head_vectors import encode_heads
from embedline.models.prompts import PromptTable
from embedline.models.tokenizer import train_tokenizer

PASSAGES = [
    ("a", "Пароль", "Как сбросить пароль в настройках системы."),
    ("b", "", "The printer does not answer; check the cable."),
    ("c", "Счёт", "Счёт за месяц приходит по почте."),
    ("d", "", "Reset your password in the settings."),
]
TITLED = [f"{title} {text}".strip() for _, title, text in PASSAGES]
SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def _embedder(heads: tuple[str, ...], seed: int) -> Embedder:
    prompts = PromptTable({"default": Prompt(query="query: ", document="passage: ")})
    spec = EmbedderSpec(query_length=16, document_length=40, dims=(16,), prompts=prompts)
    tokenizer = train_tokenizer(TITLED * 2, 400)
    backbone = new_backbone("bert", SIZES, tokenizer, seed)
    return Embedder(backbone, tokenizer, spec).with_spec(replace(spec, heads=heads), seed=seed).eval()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models: `three` heads, `dense` alone, and `other`, which has other weights than `dense`."""
    folder = tmp_path_factory.mktemp("models")
    heads = {"three": ("dense", "lexical", "multi_vector"), "dense": ("dense",), "other": ("dense",)}
    for seed, (name, of) in enumerate(heads.items()):
        save_embedder(_embedder(of, seed), folder / name)
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "docs.jsonl"
    _write(path, PASSAGES)
    return path


def _write(path: Path, passages: list[tuple[str, str, str]]) -> None:
    rows = [{"_id": i, "title": title, "text": text} for i, title, text in passages]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run(*arguments: object, given: str | None = None) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], input=given)


def printed(*arguments: object, given: str | None = None) -> str:
    result = run(*arguments, given=given)
    assert result.exit_code == 0, result.output
    return result.stdout


def answer(*arguments: object) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(printed(*arguments, "--json"))
    return value


def refused(*arguments: object) -> str:
    result = run(*arguments)
    assert (result.exit_code, isinstance(result.exception, SystemExit)) == (2, True), result.output
    return result.output


def test_an_index_is_made_reused_and_searched_without_naming_the_model(models: Path, corpus: Path) -> None:
    made = printed("index", corpus, "--model", models / "three")
    assert made == f"{corpus}.index: 4 passages, 4 embedded, 0 kept\n"
    assert (
        printed("index", corpus, "--model", models / "three") == f"{corpus}.index: 4 passages, up to date\n"
    )
    _write(corpus, [*PASSAGES[:3], ("e", "", "A new passage.")])
    made = printed("index", corpus, "--model", models / "three")
    assert made == f"{corpus}.index: 4 passages, 1 embedded, 3 kept\n"
    found = answer("search", f"{corpus}.index", "пароль")
    assert (found["mode"], found["model"]) == ("hybrid", str(models / "three"))
    assert sorted(row["id"] for row in found["results"]) == ["a", "b", "c", "e"]
    assert found["results"][0].keys() == {"rank", "score", "id", "text"}


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid", "bm25"])
def test_a_corpus_gives_what_its_index_gives(models: Path, corpus: Path, mode: str) -> None:
    printed("index", corpus, "--model", models / "dense" if mode == "dense" else models / "three")
    kept = answer("search", f"{corpus}.index", "сбросить пароль", "--mode", mode)
    model = models / ("dense" if mode == "dense" else "three")
    fresh = answer("search", model, corpus, "сбросить пароль", "--mode", mode)
    if mode == "lexical":  # a file is searched by the head alone, an index has token vectors, too
        kept["results"].sort(key=lambda row: row["id"])
        fresh["results"].sort(key=lambda row: row["id"])
        assert [row["id"] for row in kept["results"]] == [row["id"] for row in fresh["results"]]
        return
    assert [row["id"] for row in kept["results"]] == [row["id"] for row in fresh["results"]]
    for one, other in zip(kept["results"], fresh["results"], strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_dense_scores_are_cosines_with_the_models_prompts(models: Path, corpus: Path) -> None:
    from sentence_transformers import SentenceTransformer

    found = answer("search", models / "dense", corpus, "printer", "--dim", "16")
    peer = SentenceTransformer(str(models / "dense"), device="cpu", truncate_dim=16)
    query = peer.encode_query(["printer"], normalize_embeddings=True)
    scores = (peer.encode_document(TITLED, normalize_embeddings=True) @ query.T)[:, 0]
    order = np.argsort(-scores, kind="stable")
    assert [row["text"] for row in found["results"]] == [TITLED[row] for row in order]
    np.testing.assert_allclose([row["score"] for row in found["results"]], scores[order], atol=1e-5)


def test_bm25_needs_no_model(corpus: Path, models: Path) -> None:
    found = answer("search", corpus, "принтер или пароль", "--mode", "bm25")
    assert ([row["id"] for row in found["results"]], "model" in found) == (["a"], False)
    printed("index", corpus, "--model", models / "dense")
    assert answer("search", f"{corpus}.index", "пароль", "--mode", "bm25")["results"][0]["id"] == "a"


def test_another_model_is_refused_and_a_copy_of_the_same_is_not(
    models: Path, corpus: Path, tmp_path: Path
) -> None:
    printed("index", corpus, "--model", models / "dense")
    said = refused("search", f"{corpus}.index", "пароль", "--model", models / "other")
    assert f"{models / 'dense'} (index version" in said
    assert str(models / "other") in said
    shutil.copytree(models / "dense", tmp_path / "copy")
    assert answer("search", tmp_path / "copy", f"{corpus}.index", "пароль")["model"] == str(tmp_path / "copy")


def test_an_index_whose_model_is_gone_asks_for_it(models: Path, corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "dense", tmp_path / "gone")
    printed("index", corpus, "--model", tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone")
    assert "--model" in refused("search", f"{corpus}.index", "пароль")
    answer("search", f"{corpus}.index", "пароль", "--model", models / "dense")


def test_a_third_party_folder_is_indexed_by_its_weights(models: Path, corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    shutil.copytree(models / "dense", folder)
    (folder / "embedline.json").unlink()
    printed("index", corpus, "--model", folder)
    answer("search", f"{corpus}.index", "пароль")
    assert "--pooling" in run("embed", "--help").output
    said = refused("search", f"{corpus}.index", "пароль", "--model", folder, "--pooling", "cls")
    assert "index version" in said


def test_an_exported_model_searches_the_index_of_its_original(
    models: Path, corpus: Path, tmp_path: Path
) -> None:
    from embedline.export.onnx import export_onnx

    embedder = load_embedder(models / "three", attention="sdpa")
    card = json.loads((models / "three" / "embedline.json").read_text())
    export_onnx(embedder, tmp_path / "onnx", opset=20, index_version=card["index_version"])
    printed("index", corpus, "--model", models / "three")
    ours = answer("search", f"{corpus}.index", "сбросить пароль")
    exported = answer("search", f"{corpus}.index", "сбросить пароль", "--model", tmp_path / "onnx")
    assert [row["id"] for row in exported["results"]] == [row["id"] for row in ours["results"]]
    terms = json.loads(
        printed("embed", tmp_path / "onnx", "--head", "lexical", "--sparse", "opensearch", given="printer\n")
    )
    theirs = json.loads(
        printed("embed", models / "three", "--head", "lexical", "--sparse", "opensearch", given="printer\n")
    )
    assert terms == {token: pytest.approx(weight, abs=1e-4) for token, weight in theirs.items()}


def test_queries_of_a_file_and_of_standard_input_are_answered_in_turn(
    models: Path, corpus: Path, tmp_path: Path
) -> None:
    printed("index", corpus, "--model", models / "three")
    (tmp_path / "queries.txt").write_text("пароль\n\nprinter\n", encoding="utf-8")
    alone = [answer("search", f"{corpus}.index", text, "-k", "2") for text in ("пароль", "printer")]
    for source, given in ((tmp_path / "queries.txt", None), ("-", "пароль\n\n printer \n")):
        lines = printed("search", f"{corpus}.index", "--queries", source, "-k", "2", "--json", given=given)
        assert [json.loads(line) for line in lines.splitlines()] == alone
    text = printed("search", f"{corpus}.index", "--queries", "-", "-k", "1", given="пароль\n")
    assert text.splitlines()[0] == "пароль"
    assert text.splitlines()[1].startswith(" 1  ")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["search", "CORPUS"], ["INDEX QUERY"]),
        (["search", "CORPUS", "q"], ["a corpus needs a model", "--model"]),
        (["search", "a", "b", "c", "d"], ["too many"]),
        (["search", "MODELS/dense", "CORPUS", "q", "--model", "MODELS/dense"], ["twice"]),
        (["search", "MODELS/dense", "CORPUS", "q", "--mode", "lexical"], ["no lexical head"]),
        (["search", "MODELS/dense", "CORPUS", "q", "--dim", "99"], ["32 values"]),
        (["index", "CORPUS", "--model", "MODELS/dense", "--dim", "8"], ["16, 32"]),
        (["index", "FOLDER", "--model", "MODELS/dense", "--output", "FOLDER/index"], ["lies in the corpus"]),
        (["embed", "MODELS/dense", "CORPUS", "--head", "lexical"], ["no such head", "dense"]),
        (["embed", "MODELS/three", "CORPUS", "--head", "lexical", "--dim", "16"], ["cuts dense vectors"]),
    ],
)
def test_what_cannot_be_done_is_said(
    models: Path, corpus: Path, arguments: list[str], parts: list[str]
) -> None:
    places = {"CORPUS": str(corpus), "FOLDER": str(corpus.parent), "MODELS": str(models)}
    for name, place in places.items():
        arguments = [word.replace(name, place) for word in arguments]
    said = refused(*arguments)
    for part in parts:
        assert part in said


def test_an_index_keeps_its_width(models: Path, corpus: Path) -> None:
    printed("index", corpus, "--model", models / "three", "--dim", "16", "--precision", "int8")
    answer("search", f"{corpus}.index", "пароль")
    assert "one width" in refused("search", f"{corpus}.index", "пароль", "--dim", "16")


def test_embed_writes_every_head(models: Path, corpus: Path, tmp_path: Path) -> None:
    embedder = load_embedder(models / "three")
    expected = encode_heads(embedder, TITLED, prompt="passage: ")
    printed("embed", models / "three", corpus, "--head", "all", "--output", tmp_path / "vectors")
    folder = tmp_path / "vectors"
    np.testing.assert_allclose(np.load(folder / "dense.npy"), expected.dense, atol=1e-6)
    lexical = sp.load_npz(folder / "lexical.npz")
    assert lexical.shape == (4, len(embedder.tokenizer))
    assert lexical.nnz == sum(map(len, expected.lexical or []))
    offsets = np.load(folder / "multi_vector_offsets.npy")
    assert np.diff(offsets).tolist() == [len(tokens) for tokens in expected.tokens or []]
    lines = printed("embed", models / "three", corpus, "--head", "all").splitlines()
    points = [json.loads(line) for line in lines]
    assert [point["id"] for point in points] == ["a", "b", "c", "d"]
    assert points[0]["vector"].keys() == {"dense", "lexical", "multi_vector"}
    assert points[0]["vector"]["lexical"]["indices"] == sorted((expected.lexical or [])[0])
    named = json.loads(
        printed("embed", models / "three", "--head", "lexical", "--sparse", "opensearch", given="printer\n")
    )
    assert set(named) <= set(embedder.tokenizer.get_vocab())


def test_embed_cuts_the_dense_vectors_alone(models: Path, corpus: Path) -> None:
    lines = printed("embed", models / "three", corpus, "--head", "all", "--dim", "16").splitlines()
    vector = json.loads(lines[0])["vector"]
    assert (len(vector["dense"]), len(vector["multi_vector"][0])) == (16, 32)
    assert np.linalg.norm(vector["dense"]) == pytest.approx(1, abs=1e-5)
