"""A text is the same token ids on all five paths: training, mining, evaluation, ONNX, the saved model."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from langchain_huggingface import HuggingFaceEmbeddings
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
from sentence_transformers import SentenceTransformer
from torch.utils.data import DataLoader

from embedline.config.model import Prompt
from embedline.config.training import ContrastiveConfig, MineConfig
from embedline.evaluation.evaluated_models import EvaluatedModel, load_torch_model
from embedline.evaluation.local import score_model
from embedline.evaluation.mteb_encoder import MtebEncoder
from embedline.evaluation.sets import EvaluationSet
from embedline.export.onnx import export_onnx
from embedline.export.runtime import CARD, OnnxEmbedder
from embedline.mining.mine import mine_negatives
from embedline.models.backbone import new_backbone
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.folder import load_embedder, save_embedder
from embedline.models.prompts import PromptTable, Side, is_long
from embedline.models.tokenizer import train_tokenizer
from embedline.steps.mine import _encoder
from embedline.training.batching.batches import Draw
from embedline.training.batching.pairs import ContrastiveBatch, ContrastiveBatches, tokenised
from embedline.training.batching.records import Record, SourceRecords
from embedline.training.batching.rows import pool_small, split_by_source

NOMIC = PromptTable(
    {
        "default": Prompt(query="search_query: ", document="search_document: "),
        "sts": Prompt(query="classification: "),
        "classification": Prompt(query="classification: "),
        "bitext": Prompt(query="clustering: "),
        "SciFact": Prompt(query="question: ", document="answer: "),
    }
)
GIGA = PromptTable(
    {
        "default": Prompt(instruct="Дан вопрос, найдите ответ"),
        "sts": Prompt(instruct="Retrieve semantically similar text"),
        "classification": Prompt(instruct="Определите тему"),
        "SciFact": Prompt(instruct="Find the article of the help desk"),
    }
)
# Some are cut where queries are, some where documents are; edges of a text are where prompts could go wrong.
TEXTS = [
    ("Как сбросить пароль?", "Откройте настройки и нажмите «Сбросить пароль»."),
    ("printer " * 12 + "does not answer", "Reinstall the driver and restart the spooler service. " * 6),
    (" Ёлка № 7 ", "a text that answers a query with spaces at its edges"),
    ("VPN", "Query: a text that looks like a prompt\nInstruct: it is none"),
]
KINDS = {
    "search": ("docs", "short-long"),
    "long queries": ("docs", "long-short"),
    "sts": ("pairs", "sts"),
    "classification": ("topics", "classification"),
    "bitext": ("parallel", "bitext"),
    "a source with a prompt of its own": ("SciFact", "short-long"),  # mteb knows a task of that name
}
LENGTHS = {"query": 24, "document": 40}
QUERIES, DOCUMENTS = [query for query, _ in TEXTS], [document for _, document in TEXTS]
SIDES: tuple[tuple[Side, list[str]], ...] = (("query", QUERIES), ("document", DOCUMENTS))
# The rows that reach a model, by side; as a set, because models see batches by length.
Ids = dict[str, set[tuple[int, ...]]]


@dataclass
class Spy:
    """Records the rows of ids that reach a model, without padding."""

    seen: list[tuple[int, ...]] = field(default_factory=list)

    def take(self, ids: Any, mask: Any) -> None:
        self.seen += [
            tuple(int(i) for i, on in zip(row, kept, strict=True) if on)
            for row, kept in zip(np.asarray(ids), np.asarray(mask), strict=True)
        ]

    def on_torch(self, model: Any) -> None:
        """A backbone takes tensors by name; a module of sentence-transformers takes one dictionary."""

        def look(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = args[0] if args else kwargs
            self.take(given["input_ids"], given["attention_mask"])

        model.register_forward_pre_hook(look, with_kwargs=True)


class Session:
    """An onnxruntime session that records its inputs."""

    def __init__(self, inner: Any, spy: Spy) -> None:
        self.inner, self.spy = inner, spy

    def run(self, outputs: Any, inputs: dict[str, np.ndarray]) -> Any:
        self.spy.take(inputs["input_ids"], inputs["attention_mask"])
        return self.inner.run(outputs, inputs)


@dataclass
class Saved:
    """One model in its three forms, each with a spy at its input."""

    table: PromptTable
    folder: Path
    onnx: Path
    embedder: Embedder
    peer: SentenceTransformer
    spy: Spy
    peer_spy: Spy


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Embedder, Path]:
    """A model whose tokenizer knows the prompts, and its export."""
    words = [text for pair in TEXTS for text in pair]
    for table in (NOMIC, GIGA):
        words += [entry.words(of_query=side) for entry in table.entries.values() for side in (True, False)]
    tokenizer = train_tokenizer(words * 3, 512)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    spec = EmbedderSpec(query_length=LENGTHS["query"], document_length=LENGTHS["document"], prompts=NOMIC)
    made = Embedder(new_backbone("bert", sizes, tokenizer, 1), tokenizer, spec).eval()
    folder = tmp_path_factory.mktemp("onnx")
    export_onnx(made, folder, 18, index_version="abc")
    return made, folder


@pytest.fixture(scope="module", params=[NOMIC, GIGA], ids=["nomic", "giga"])
def saved(
    request: pytest.FixtureRequest, exported: tuple[Embedder, Path], tmp_path_factory: pytest.TempPathFactory
) -> Saved:
    made, onnx = exported
    folder = tmp_path_factory.mktemp("model")
    save_embedder(made.with_spec(replace(made.spec, prompts=request.param)), folder)
    if request.param is not NOMIC:  # an export takes seconds, and only its card differs
        onnx = shutil.copytree(onnx, folder / "onnx")
        card = json.loads((onnx / CARD).read_text())
        (onnx / CARD).write_text(json.dumps(card | {"prompts": request.param.as_json()}))
    peer = SentenceTransformer(str(folder), device="cpu")
    embedder = load_embedder(folder)  # from the folder: the table has been through its card
    one = Saved(embedder.spec.prompts, folder, onnx, embedder, peer, Spy(), Spy())
    one.spy.on_torch(embedder.backbone)
    one.peer_spy.on_torch(peer[0])
    return one


def expected(saved: Saved, source: str, task_type: str) -> Ids:
    """Compute the ids by the recipes' definition: prompt, text, cut."""
    symmetric = task_type in {"sts", "classification", "bitext"}
    found: Ids = {}
    for side, texts in SIDES:
        keys = (source, task_type, "default")
        entry = next(saved.table.entries[key] for key in keys if key in saved.table.entries)
        if entry.instruct:
            words = f"Instruct: {entry.instruct}\nQuery: " if symmetric or side == "query" else ""
        else:
            words = entry.query if symmetric or side == "query" else entry.document
        long = symmetric or side == "document" or task_type == "long-short"
        length = LENGTHS["document" if long else "query"]
        rows = [saved.embedder.tokenizer(words + text)["input_ids"] for text in texts]
        found[side] = {tuple(row if len(row) <= length else [*row[: length - 1], row[-1]]) for row in rows}
        assert len(found[side]) == len(TEXTS)
    return found


def records(source: str, task_type: str) -> SourceRecords:
    rows = [
        Record(str(i), query, [text], [], task_type, "ru", source=source)
        for i, (query, text) in enumerate(TEXTS)
    ]
    return SourceRecords(source, rows)


def batch_of(saved: Saved, rows: list[Record]) -> ContrastiveBatch:
    """A training's batch of all rows, which are pooled when they are of several sources."""
    with tempfile.TemporaryDirectory() as folder:
        store = tokenised(saved.embedder, rows, ContrastiveConfig(negatives=0), Path(folder) / "tokens")
        sources = split_by_source(store.columns(), {})
        if len(sources) > 1:
            sources = pool_small(sources, len(rows))
        batch: ContrastiveBatch = ContrastiveBatches(
            store, sources, [Draw(*sources, np.arange(len(rows)), 0)]
        )[0]
        return batch


def training(saved: Saved, source: str, task_type: str) -> Ids:
    batch = batch_of(saved, records(source, task_type).rows)
    count, ids = batch.query_count, [tuple(row) for row in batch.ids]
    return {"query": set(ids[:count]), "document": set(ids[count:])}


def mining(saved: Saved, source: str, task_type: str, folder: Path) -> Ids:
    encode = _encoder(saved.embedder, False, None, folder)
    found: Ids = {}

    def spied(texts: list[str], name: str, kind: str, side: Any) -> np.ndarray:
        found[side], vectors = reached(saved.spy, lambda: encode(texts, name, kind, side))
        return np.asarray(vectors)

    mine_negatives({source: records(source, task_type)}, spied, MineConfig(negatives=1, depth=2), seed=0)
    return found


def evaluation(saved: Saved, source: str, task_type: str, folder: Path) -> set[tuple[int, ...]]:
    """Both sides together: a set is scored in one go."""
    pairs = task_type in {"sts", "bitext"}
    one = EvaluationSet(source, task_type if pairs else "retrieval", "ru", task_type, folder)
    ids = [str(i) for i in range(len(TEXTS))]
    write(folder / "pairs", sentence1=QUERIES, sentence2=DOCUMENTS, score=[0.1, 0.5, 0.3, 0.9])
    write(folder / "corpus", id=ids, title=[""] * len(ids), text=DOCUMENTS)
    write(folder / "queries", id=ids, text=QUERIES)
    write(folder / "qrels", query_id=ids, corpus_id=ids, score=[1] * len(ids))
    subject, spy = watched(saved)
    return reached(spy, lambda: score_model(subject, [one], resamples=0))[0]


@dataclass
class Metadata:
    """Build mteb's metadata of a task."""

    name: str
    type: str


def mteb(saved: Saved, source: str, sides: tuple[Any, Any], kind: str) -> Ids:
    subject, spy = watched(saved)
    asked = MtebEncoder(subject)
    found: Ids = {}
    for (name, texts), side in zip(SIDES, sides, strict=True):
        loader = [{"text": texts[:2]}, {"text": texts[2:]}]
        how: Any = {"task_metadata": Metadata(source, kind), "prompt_type": side}
        found[name], _ = reached(spy, partial(asked.encode, loader, **how))
    return found


def mtebs_own(saved: Saved, source: str, sides: tuple[Any, Any], kind: str) -> Ids:
    """The saved folder through the wrapper that mteb itself puts around a sentence-transformers model."""
    asked = SentenceTransformerEncoderWrapper(saved.peer)
    found: Ids = {}
    for (name, texts), side in zip(SIDES, sides, strict=True):
        loader: Any = DataLoader(Dataset.from_dict({"text": texts}), batch_size=2)  # type: ignore[arg-type]
        how: Any = {"task_metadata": Metadata(source, kind), "hf_split": "test", "hf_subset": "default"}
        work = partial(asked.encode, loader, prompt_type=side, show_progress_bar=False, **how)
        found[name], _ = reached(saved.peer_spy, work)
    return found


def watched(saved: Saved) -> tuple[EvaluatedModel, Spy]:
    """The model as evaluation takes it from its folder."""
    subject, spy = load_torch_model("candidate", "digest", saved.folder), Spy()
    spy.on_torch(subject.encoder.embedder.backbone)  # type: ignore[attr-defined]
    return subject, spy


def onnx(saved: Saved, source: str, task_type: str) -> Ids:
    runtime, spy = OnnxEmbedder(saved.onnx), Spy()
    runtime._session = Session(runtime._session, spy)
    found: Ids = {}
    for side, texts in SIDES:
        words = runtime.prompts.prompt(side, name=source, task_type=task_type)
        length = runtime.document_length if is_long(side, task_type) else runtime.query_length
        found[side], _ = reached(spy, partial(runtime.encode, texts, prompt=words, max_length=length))
    return found


def sentence_transformers(saved: Saved, source: str, task_type: str) -> Ids:
    """As a user calls it: encode_query and encode_document for search, a name of the table for the rest."""
    name = source if source in saved.table.entries else task_type
    search = {"query": saved.peer.encode_query, "document": saved.peer.encode_document}
    found: Ids = {}
    for side, texts in SIDES:
        words = (
            f"{name}-document" if f"{name}-document" in saved.peer.prompts and side == "document" else name
        )
        how: dict[str, Any] = {"prompt_name": words} if name != "short-long" else {}
        encode: Any = search[side] if task_type == "short-long" else saved.peer.encode
        found[side], _ = reached(saved.peer_spy, partial(encode, texts, show_progress_bar=False, **how))
    return found


def reached(spy: Spy, work: Callable[[], Any]) -> tuple[set[tuple[int, ...]], Any]:
    spy.seen.clear()
    result = work()
    return set(spy.seen), result


def write(path: Path, **columns: list[Any]) -> None:
    pq.write_table(pa.table(columns), path.with_suffix(".parquet"))


@pytest.mark.parametrize("kind", KINDS)
def test_all_five_paths_tokenise_a_text_alike(saved: Saved, kind: str, tmp_path: Path) -> None:
    source, task_type = KINDS[kind]
    expected_ids = expected(saved, source, task_type)
    assert LENGTHS["document"] in {len(row) for row in expected_ids["document"]}  # some are cut
    assert training(saved, source, task_type) == expected_ids
    assert mining(saved, source, task_type, tmp_path / "vectors") == expected_ids
    assert evaluation(saved, source, task_type, tmp_path) == expected_ids["query"] | expected_ids["document"]
    assert onnx(saved, source, task_type) == expected_ids
    assert sentence_transformers(saved, source, task_type) == expected_ids


@pytest.mark.parametrize(
    ("kind", "type_of_mteb"),
    [
        ("search", "Retrieval"),
        ("sts", "STS"),
        ("classification", "Classification"),
        ("bitext", "BitextMining"),
        ("a source with a prompt of its own", "Retrieval"),
    ],
)
def test_mteb_passes_the_same_ids_with_and_without_sides(saved: Saved, kind: str, type_of_mteb: str) -> None:
    from mteb.types import PromptType

    source, task_type = KINDS[kind]
    expected_ids = expected(saved, source, task_type)
    sides = (PromptType.query, PromptType.document)
    assert mteb(saved, source, sides, type_of_mteb) == expected_ids
    if type_of_mteb == "Retrieval":
        assert mtebs_own(saved, source, sides, type_of_mteb) == expected_ids
    else:
        assert mteb(saved, source, (None, None), type_of_mteb) == expected_ids
        assert mtebs_own(saved, source, (None, None), type_of_mteb) == expected_ids
        assert mteb(saved, source, sides[::-1], type_of_mteb) == expected_ids


def test_encode_with_a_prompt_text_cuts_queries_only_with_task_query(
    saved: Saved,
) -> None:
    """`encode(…, prompt=…)` passes sentence-transformers no side; the folder's README names the argument."""
    words: dict[str, Any] = {"prompt": saved.table.prompt("query")}
    long = "VPN " * 60
    how: dict[str, Any] = words | {"max_length": LENGTHS["query"]}
    expected_ids = {tuple(row) for row in saved.embedder.tokenize([long], **how)}
    encode: Any = partial(saved.peer.encode, [long], show_progress_bar=False)
    (plain,), _ = reached(saved.peer_spy, partial(encode, **words))
    assert len(plain) == LENGTHS["document"]
    assert reached(saved.peer_spy, partial(encode, **words, task="query"))[0] == expected_ids
    chain = HuggingFaceEmbeddings(
        model_name=str(saved.folder),
        model_kwargs={"device": "cpu"},
        query_encode_kwargs=words | {"task": "query"},
    )
    spy = Spy()
    spy.on_torch(chain._client[0])
    assert reached(spy, partial(chain.embed_query, long))[0] == expected_ids
    card = (saved.folder / "README.md").read_text(encoding="utf-8")
    assert 'task="query"' in card
    assert f"{LENGTHS['query']} tokens" in card
    assert f"{LENGTHS['document']} tokens" in card


def test_sources_pooled_for_training_keep_their_own_prompts(saved: Saved) -> None:
    small = {name: records(name, "short-long") for name in ("SciFact", "docs")}
    batch = batch_of(saved, [row for source in small.values() for row in source.rows])
    ids = {tuple(row) for row in batch.ids}
    wanted = [expected(saved, each, "short-long") for each in small]
    assert ids == {row for of in wanted for rows in of.values() for row in rows}


def test_mining_uses_the_prompt_of_each_source_and_task_type(saved: Saved, tmp_path: Path) -> None:
    """Mining scores a negative under the same prompt that training puts before it, whatever its source."""
    sources = {
        name: SourceRecords(name, records(name, "short-long").rows + records(name, "sts").rows)
        for name in ("docs", "SciFact")
    }
    encode = _encoder(saved.embedder, False, None, tmp_path)
    found: dict[tuple[str, str, str], set[tuple[int, ...]]] = {}

    def spied(texts: list[str], name: str, kind: str, side: Any) -> np.ndarray:
        found[name, kind, side], vectors = reached(saved.spy, lambda: encode(texts, name, kind, side))
        return np.asarray(vectors)

    prompts = saved.embedder.spec.prompts
    mined = mine_negatives(
        sources,
        spied,
        MineConfig(negatives=2, depth=3, margin=1.0),
        seed=0,
        document_prompt=lambda name, kind: prompts.prompt("document", name=name, task_type=kind),
    )
    for (name, kind, side), rows in found.items():
        assert rows == expected(saved, name, kind)[side]
    sided = {key for key in found if key[2] == "document"}
    alike = prompts.prompt("document", name="SciFact") == prompts.prompt("document", name="docs")
    assert len(sided) == (3 if alike else 4)  # texts under the same prompt are encoded once
    for name, each in sources.items():
        for row, picks in zip(each.rows, mined[name].negatives, strict=True):
            assert not {mined[name].pool[pick.index] for pick in picks} & set(row.positives)
            assert {mined[name].pool[pick.index] for pick in picks} <= set(DOCUMENTS)
