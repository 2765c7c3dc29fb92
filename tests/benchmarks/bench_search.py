"""Time of a search in an index of made-up passages, beside a plain NumPy scan, faiss and a sparse product.

    python tests/benchmarks/bench_search.py --passages 100000

A query's time is all that follows the loading of model and index: the model encodes it (12 layers × 384,
random weights), the legs search, their results are fused, and the texts of the best ten are read. On a busy
machine the CPU time of one thread (`--threads 1`) says more than the time that passes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from embedline.models.backbone import new_backbone
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.head_vectors import HeadVectors
from embedline.models.tokenizer import train_tokenizer
from embedline.retrieval.about import VectorSource
from embedline.retrieval.blocks import Block
from embedline.retrieval.bm25 import words
from embedline.retrieval.build import build_index
from embedline.retrieval.dense import PRECISIONS, DenseVectors, Precision, create_vectors, write_codes
from embedline.retrieval.index import Index, OpenIndex
from embedline.retrieval.search import MODES, Query, search_index

WIDTH, TOKEN_WIDTH, TERMS = 384, 32, 30_000
WORDS_A_PASSAGE, TERMS_A_PASSAGE, TOKENS_A_PASSAGE = 60, 50, 60
SIZES = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 1536}


class World:
    """Words with Zipf's frequencies, and random vectors."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        syllables = [a + b for a in "бвгдзклмнпрст" for b in "аеиоу"]
        self.lexicon = np.array(["".join(self.random.choice(syllables, 3)) + str(n) for n in range(100_000)])
        weights = 1 / (np.arange(len(self.lexicon)) + 10)
        self._shares = np.cumsum(weights / weights.sum())

    def texts(self, count: int, length: int) -> list[str]:
        drawn = np.searchsorted(self._shares, self.random.random((count, length)))
        return [" ".join(self.lexicon[row]) for row in drawn]

    def vectors(
        self, count: int, terms: int = TERMS_A_PASSAGE, tokens: int = TOKENS_A_PASSAGE
    ) -> HeadVectors:
        random = self.random
        columns = (TERMS * random.random((count, terms)) ** 3).astype(int)  # some terms are far commoner
        lexical = [dict.fromkeys(row.tolist(), float(random.random())) for row in columns]
        late = _unit(random.normal(size=(count * tokens, TOKEN_WIDTH))).reshape(count, tokens, TOKEN_WIDTH)
        return HeadVectors(_unit(random.normal(size=(count, WIDTH))), lexical, list(late))


def _unit(rows: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    return scaled


def _row(name: str, calls: Sequence[Callable[[], object]], base: float | None = None) -> float:
    """Time calls, the first three left out; print and return the median of the CPU time."""
    passed, cpu = [], []
    for call in calls:
        start, start_cpu = time.perf_counter(), time.process_time()
        call()
        passed.append(1000 * (time.perf_counter() - start))
        cpu.append(1000 * (time.process_time() - start_cpu))
    median = float(np.median(cpu[3:]))
    beside = "" if base is None else f"{median / base:8.1f}×"
    columns = (np.median(passed[3:]), np.percentile(passed[3:], 95), median)
    print(f"{name:<52}{''.join(f'{value:9.1f}' for value in columns)}{beside}", flush=True)
    return median


def _made(folder: Path, world: World, texts: list[str]) -> None:
    """Index made-up passages."""
    source = VectorSource("made up", "", "", 512, ("dense", "lexical", "multi_vector"))
    ids = [str(n) for n in range(len(texts))]
    build_index(folder, ids, texts, lambda part: Block.of(world.vectors(len(part)), TERMS), source, dim=WIDTH)


def _embedder(texts: list[str]) -> Embedder:
    tokenizer = train_tokenizer(texts[:500], 4000)
    return Embedder(new_backbone("bert", SIZES, tokenizer, 0), tokenizer, EmbedderSpec()).eval()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--passages", type=int, default=100_000)
    options.add_argument("--queries", type=int, default=30)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--work", type=Path, default=None, help="folder for the indexes (about 1.5 GB)")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    world = World()
    texts = world.texts(chosen.passages, WORDS_A_PASSAGE)
    queries = world.texts(chosen.queries, 6)
    with tempfile.TemporaryDirectory(dir=chosen.work) as folder:
        start = time.perf_counter()
        _made(Path(folder) / "index", world, texts)
        print(f"index of {len(texts):,} passages, three heads: {time.perf_counter() - start:.0f} s\n")
        start = time.perf_counter()
        index = Index.open(Path(folder) / "index")
        _ = index.bm25, index.query_features
        words("разогрев")  # compiles the patterns of words
        print(f"opened, digests verified, BM25 and features read: {time.perf_counter() - start:.1f} s\n")
        print(f"{'milliseconds a query':<52}{'median':>9}{'95 %':>9}{'CPU':>9}   CPU beside the first")
        vectors = world.vectors(len(queries), terms=8, tokens=10)
        asked = [Query.of(text, vectors, row) for row, text in enumerate(queries)]
        embedder = _embedder(texts)
        _whole(index, asked, embedder)
        _dense(index, asked, Path(folder))
        _words(index, asked)


def _whole(index: OpenIndex, asked: list[Query], embedder: Embedder) -> None:
    """Time whole queries in each mode, the model's encoding included."""

    def call(query: Query, mode: str) -> Callable[[], object]:
        def run() -> list[str]:
            if mode != "bm25":
                embedder.encode_side([query.text], "query")
            return [index.text(row) for row in search_index(index, query, 10, mode).rows.tolist()]

        return run

    encode = [lambda q=q: embedder.encode_side([q.text], "query") for q in asked]
    _row("the model's encoding alone", encode)
    for mode in MODES:
        heads = "" if mode == "bm25" else ", encoding, multi-vector"
        _row(f"--mode {mode}{heads}", [call(query, mode) for query in asked])


def _dense(index: OpenIndex, asked: list[Query], folder: Path) -> None:
    """Time the dense leg at each precision beside a scan with a full sort, and faiss."""
    assert index.dense is not None
    rows = np.array(index.dense.vectors)
    vectors = [query.dense for query in asked if query.dense is not None]
    exact = [np.argsort(-(rows @ vector), kind="stable")[:10] for vector in vectors]
    print()
    first = _row("dense fp32, k = 100", [lambda v=v: index.dense.search(v, 100) for v in vectors])
    for precision in PRECISIONS[1:]:
        kept = _at_precision(folder / precision, rows, precision)
        found = [len(set(kept.search(v, 10)[1]) & set(e)) for v, e in zip(vectors, exact, strict=True)]
        name = f"dense {precision}, k = 100 ({10 * np.mean(found):.1f} % of fp32's best 10)"
        _row(name, [lambda v=v, kept=kept: kept.search(v, 100) for v in vectors], first)
    scan = [lambda v=v: np.argsort(-(rows @ v), kind="stable")[:100] for v in vectors]
    _row("NumPy: product and full sort", scan, first)
    try:
        import faiss
    except ImportError:
        return
    faiss.omp_set_num_threads(torch.get_num_threads())
    flat = faiss.IndexFlatIP(rows.shape[1])
    flat.add(rows)
    _row("faiss IndexFlatIP", [lambda v=v: flat.search(v[np.newaxis], 100) for v in vectors], first)


def _at_precision(folder: Path, rows: np.ndarray, precision: Precision) -> DenseVectors:
    folder.mkdir()
    vectors = create_vectors(folder, rows.shape, precision)
    vectors[:] = rows
    if precision == "int8":
        write_codes(folder, vectors)
    return DenseVectors.open(folder)


def _words(index: OpenIndex, asked: list[Query]) -> None:
    """Time the sparse legs beside a sparse matrix product over all passages."""
    import scipy.sparse as sp

    print()
    first = _row("BM25, k = 100", [lambda q=q: index.bm25.search([q.text], 100) for q in asked])
    matrix = sp.csr_matrix(index.bm25.postings.matrix())

    def product(text: str) -> np.ndarray:
        column = np.zeros(matrix.shape[1])
        for word in words(text):
            if (term := index.bm25.vocabulary.get(word)) is not None:
                column[term] += 1
        return np.argsort(-(matrix @ column), kind="stable")[:100]

    _row("SciPy: product with all passages, full sort", [lambda q=q: product(q.text) for q in asked], first)


if __name__ == "__main__":
    main()
