"""haystack-v1 and what is measured on it; a model trained on other seeds of it, at 8,192 tokens."""

from pathlib import Path

import numpy as np
import pytest
import torch

from embedline.config.model import DynamicNTK
from embedline.config.training import ContrastiveConfig
from embedline.errors import InputError
from embedline.evaluation.evaluated_models import EvaluatedModel, TorchEncoder
from embedline.evaluation.haystack import Haystack, haystacks
from embedline.evaluation.needle import METRIC, REMOVED, needle_recall
from embedline.models.backbone import new_backbone
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.rope import apply_dynamic_ntk
from embedline.models.tokenizer import train_tokenizer
from embedline.training.batching.records import Record
from embedline.training.contrastive.training import train_contrastive


def words(text):
    return len(text.split())


class Reader:
    """Sees a text's words up to a length, and takes rare ones for what the text is about."""

    def __init__(self, reach):
        self.reach = reach

    def encode(self, texts, *, prompt, max_length, batch_tokens):
        vectors = np.full((len(texts), 4096), 1e-6, np.float32)
        for i, text in enumerate(texts):
            seen = text.split()[: self.reach]
            for quoted in [word for word in seen if set(word) & set("«»“”")]:
                vectors[i, sum(map(ord, quoted.strip("«»“”?"))) % 4096] = 1
        return vectors

    def count_tokens(self, text):
        return words(text)


def values(rows, metric):
    return {row.set: row.value for row in rows if row.metric == metric}


def test_the_fact_starts_at_its_depth_and_only_the_fact_is_removed():
    for depth in (0, 50, 700):
        for stack in haystacks(20, depth, words, seed=3):
            start = next(
                i for i, (a, b) in enumerate(zip(stack.document, stack.without, strict=False)) if a != b
            )
            assert depth <= words(stack.document[:start]) + 1 <= depth + 12
            assert words(stack.document) >= max(depth + depth // 3, depth + 64)
            end = start + len(stack.document) - len(stack.without)
            assert stack.document[:start] + stack.document[end:] == stack.without
            key = stack.query.split("«" if "«" in stack.query else "“")[1][:-2]
            assert key in stack.document
            assert not set(key.split()) & set(stack.without.split())


def test_a_seed_gives_the_same_documents_and_another_one_others():
    assert haystacks(5, 30, words, seed=1) == haystacks(5, 30, words, seed=1)
    both = haystacks(5, 30, words, seed=1), haystacks(5, 30, words, seed=2)
    assert not {s.without for s in both[0]} & {s.without for s in both[1]}
    questions = {stack.query for stack in haystacks(500, 0, words, seed=1)}
    assert len(questions) == 500
    assert isinstance(both[0][0], Haystack)


def test_a_tokenizer_without_tokens_is_refused():
    """Else a text of 30 tokens would never be long enough."""
    with pytest.raises(InputError, match="its tokenizer finds no token in"):
        haystacks(2, 30, lambda text: 0, seed=1)


def test_recall_falls_where_the_reader_stops_and_when_the_fact_is_removed():
    model = EvaluatedModel("candidate", "digest", Reader(reach=300))
    rows = needle_recall(model, [64, 200, 600], documents=16, resamples=50)
    found, removed = values(rows, METRIC), values(rows, REMOVED)
    assert min(found["Needle@64"], found["Needle@200"]) > 0.9
    assert found["Needle@600"] < 0.2
    assert max(removed.values()) < 0.2
    assert [row.main for row in rows] == [True, False] * 3
    assert all(row.kind == "needle" and row.low <= row.value <= row.high for row in rows)
    assert rows == needle_recall(model, [64, 200, 600], documents=16, resamples=50)


# (tokens of a document, documents a step, steps, learning rate): matching a key is learned on next to no
# filler, the rest teaches that filler of any length does not matter.
CURRICULUM = ((16, 48, 100, 3e-3), (256, 24, 8, 2e-3), (2000, 6, 3, 1e-3), (8100, 3, 2, 1e-3))
LONGEST = 8192
DEPTHS = {512: 24, 2048: 16, 6000: 16}  # and how many documents


@pytest.fixture(scope="module", params=["plain", "mcls", "ntk"])
def trained(tmp_path_factory, request):
    """Two layers, 64 wide, trained from scratch on seeds of the generator that nothing is measured on.

    With mcls a CLS every 256 tokens; with ntk trained on 2,000 tokens at most, stretched to 8,192.
    """
    torch.set_num_threads(1)
    sample = haystacks(400, 60, words, seed=-1)
    tokenizer = train_tokenizer(
        [text for stack in sample for text in (stack.query, stack.document)], 1024, max_length=LONGEST
    )
    settings = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "intermediate_size": 128,
        "max_position_embeddings": LONGEST,
        "initializer_range": 0.1,
        "rope_parameters": {"full_attention": {"rope_theta": 1e6, "rope_type": "default"}},
    }
    settings["rope_parameters"]["sliding_attention"] = settings["rope_parameters"]["full_attention"]
    pooling = "mcls" if request.param == "mcls" else "mean"
    spec = EmbedderSpec(pooling, query_length=32, document_length=LONGEST, mcls_every=256)
    embedder = Embedder(new_backbone("modernbert", settings, tokenizer, 1), tokenizer, spec)
    curriculum = CURRICULUM
    if request.param == "ntk":
        apply_dynamic_ntk(embedder.backbone, DynamicNTK(factor=4.0, trained_length=2048))
        curriculum = tuple(stage for stage in CURRICULUM if stage[0] <= 2048)
    for length, batch, steps, rate in curriculum:
        config = ContrastiveConfig(
            steps=steps,
            batch=batch,
            learning_rate=rate,
            schedule="constant",
            temperature=0.05,
            false_negative_margin=None,
            batch_tokens=LONGEST,
            resident_tokens=4 * LONGEST,
            prompts=False,
            checkpoint_every=steps,
            log_every=steps,
        )
        train_contrastive(
            embedder,
            _records(TorchEncoder(embedder), length, batch * steps),
            config,
            weights={},
            seed=1,
            bf16=False,
            checkpoints=Path(tmp_path_factory.mktemp(f"to-{length}")),
            on_metrics=lambda *_: None,
        )
    return embedder.eval()


def _records(encoder, length, count):
    """Documents of `length` tokens, the fact at depths spread over all of it."""
    rows = []
    while len(rows) < count:
        depth = int(np.random.default_rng([length, len(rows)]).uniform(0, length))
        seed, group = 1_000_000 + length + len(rows), min(16, count - len(rows))
        stacks = haystacks(group, depth, encoder.count_tokens, seed=seed, length=length)
        rows += [
            Record(
                f"{length}-{len(rows) + i}", s.query, [s.document], [], "short-long", "ru", source="haystack"
            )
            for i, s in enumerate(stacks)
        ]
    return rows


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_needles_after_512_2048_and_6000_tokens_are_found(trained):
    model = EvaluatedModel(
        "candidate", "digest", TorchEncoder(trained), query_length=32, document_length=LONGEST
    )
    for depth, documents in DEPTHS.items():
        rows = needle_recall(model, [depth], documents=documents, seed=7, resamples=0)
        (found,), (removed,) = values(rows, METRIC).values(), values(rows, REMOVED).values()
        print(f"recall@1 after {depth} tokens: {found:.2f}, without the needle {removed:.2f}")  # noqa: T201
        assert found >= 0.7, (depth, found)
        assert removed <= 0.3, (depth, removed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_long_texts_encode_alike_in_batches_within_the_token_budget(trained, monkeypatch):
    encoder = TorchEncoder(trained)
    texts = [
        stack.document
        for depth in (0, 300, 2000)
        for stack in haystacks(3, depth, encoder.count_tokens, seed=5)
    ]
    texts += [haystacks(1, 6000, encoder.count_tokens, seed=5)[0].document]
    alone = np.concatenate([trained.encode([text], max_length=LONGEST) for text in texts])
    shapes = []
    honest = trained.backbone.forward

    def watched(*args, **kwargs):
        shapes.append(tuple(kwargs["input_ids"].shape))
        return honest(*args, **kwargs)

    monkeypatch.setattr(trained.backbone, "forward", watched)
    together = trained.encode(texts, max_length=LONGEST, batch_tokens=8192)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert max(rows * length for rows, length in shapes) <= 8192
    assert 1 < len(shapes) < len(texts)
