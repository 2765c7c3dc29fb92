"""BGE-M3's unified loss and self-distillation against FlagEmbedding's own, on the same hidden states."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from FlagEmbedding.finetune.embedder.encoder_only.base.modeling import BiEncoderOnlyEmbedderModel
from FlagEmbedding.finetune.embedder.encoder_only.m3.modeling import EncoderOnlyEmbedderM3Model
from torch import Tensor, nn

from embedline.models.head_scores import lexical_scores, multi_vector_scores
from embedline.models.heads import Encoded, LexicalHead, MultiVectorHead
from embedline.models.pooling import cls
from embedline.training.objectives.distillation import TeacherScores
from embedline.training.objectives.infonce import contrastive_loss
from embedline.training.objectives.negatives import NegativeRules
from embedline.training.objectives.unified import unified_loss

WIDTH, TOKEN, VOCABULARY, TEMPERATURE = 16, 12, 40, 0.02
CLS, SEP, PAD, UNKNOWN = 0, 2, 1, 3


class Given(nn.Module):
    """A backbone that returns the states it is handed."""

    config = SimpleNamespace(vocab_size=VOCABULARY)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, states: Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=states)


@pytest.fixture
def heads() -> tuple[LexicalHead, MultiVectorHead]:
    torch.manual_seed(0)
    special = [CLS, SEP, PAD, UNKNOWN]
    lexical = LexicalHead(WIDTH, special)
    torch.nn.init.normal_(lexical.weigh.weight, std=0.2)  # as after a training: some terms weigh nothing
    return lexical, MultiVectorHead(WIDTH, TOKEN, special)


def peer(heads: tuple[LexicalHead, MultiVectorHead], distill: bool) -> EncoderOnlyEmbedderM3Model:
    lexical, multi_vector = heads
    model = EncoderOnlyEmbedderM3Model(
        {"model": Given(), "sparse_linear": lexical.weigh, "colbert_linear": multi_vector.project},
        tokenizer=SimpleNamespace(
            cls_token_id=CLS, eos_token_id=SEP, pad_token_id=PAD, unk_token_id=UNKNOWN, padding_side="right"
        ),
        temperature=TEMPERATURE,
        normalize_embeddings=True,
        unified_finetuning=True,
        use_self_distill=distill,
    )
    return model.train()


def texts(count: int, length: int, seed: int) -> dict[str, Tensor]:
    """Ids with repeated terms, padding, and states that share a direction, as those of real models do.

    So no document's best token is below 0: there FlagEmbedding lets a padding vector win.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 20, (count, length), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(count):
        kept = int(torch.randint(4, length + 1, (), generator=generator))
        ids[row, kept - 1 :], mask[row, kept:] = SEP, 0
        ids[row, kept:] = PAD
    ids[:, 0] = CLS
    states = torch.randn(count, length, WIDTH, generator=generator) + 1.0
    return {"input_ids": ids, "attention_mask": mask, "states": states.requires_grad_()}


def represent(heads: tuple[LexicalHead, MultiVectorHead], features: dict[str, Tensor]) -> Encoded:
    ids, mask, states = (features[name] for name in ("input_ids", "attention_mask", "states"))
    return Encoded(
        F.normalize(cls(states, mask), dim=-1), heads[0](states, ids, mask), heads[1](states, ids, mask)
    )


def positives_first(count: int, group: int) -> Tensor:
    """Columns of FlagEmbedding's order (each query's group, its positive first) in ours."""
    places = torch.arange(count * group).view(count, group)
    return torch.cat([places[:, 0], places[:, 1:].flatten()])


def rules(count: int, group: int, *, in_batch: bool = True) -> NegativeRules:
    owner = torch.arange(count).repeat_interleave(group)[positives_first(count, group)]
    known = torch.zeros(count, count * group, dtype=torch.bool)
    return NegativeRules(owner, known, in_batch_negatives=in_batch)


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("distill", [False, True], ids=["joint", "self-distillation"])
def test_a_step_from_the_same_hidden_states(heads, distill: bool, group: int) -> None:
    """The same loss, and the same gradient in the states and in the weights of the heads."""
    count = 5
    queries, passages = texts(count, 9, 1), texts(count * group, 14, 2)
    leaves = [queries["states"], passages["states"], *heads[0].parameters(), *heads[1].parameters()]
    theirs = peer(heads, distill)(queries, passages).loss
    wanted = torch.autograd.grad(theirs, leaves)

    order = positives_first(count, group)
    q = represent(heads, queries)
    d = represent(heads, {name: tensor[order] for name, tensor in passages.items()})
    ours = unified_loss(
        q.dense @ d.dense.T,
        lexical_scores(queries["input_ids"], q.lexical, passages["input_ids"][order], d.lexical),
        multi_vector_scores(q.tokens, d.tokens),
        rules(count, group),
        temperature=TEMPERATURE,
        distill=distill,
    )
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for found, expected in zip(torch.autograd.grad(ours, leaves), wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def in_columns(scores: Tensor, order: Tensor) -> Tensor:
    """Scores of each query's group, in the columns of its documents."""
    count, group = scores.shape
    columns = torch.full((count, count * group), -torch.inf)
    for row in range(count):
        columns[row, row * group : (row + 1) * group] = scores[row]
    return columns[:, order]


@pytest.mark.parametrize("loss", ["kl_div", "m3_kd_loss"])
@pytest.mark.parametrize("distill", [False, True], ids=["joint", "self-distillation"])
def test_the_rows_scores_are_learnt_as_theirs_are(heads, distill: bool, loss: Any) -> None:
    """`knowledge_distillation` of either `kd_loss_type`: pos_scores and neg_scores of each query's group."""
    count, group = 4, 3
    queries, passages = texts(count, 9, 1), texts(count * group, 11, 2)
    given = torch.randn(count, group, generator=torch.Generator().manual_seed(5)) * 3
    leaves = [queries["states"], passages["states"], *heads[0].parameters(), *heads[1].parameters()]
    model = peer(heads, distill)
    model.kd_loss_type = loss
    theirs = model(queries, passages, teacher_scores=given.flatten().tolist()).loss
    wanted = torch.autograd.grad(theirs, leaves)

    order = positives_first(count, group)
    q = represent(heads, queries)
    d = represent(heads, {name: tensor[order] for name, tensor in passages.items()})
    ours = unified_loss(
        q.dense @ d.dense.T,
        lexical_scores(queries["input_ids"], q.lexical, passages["input_ids"][order], d.lexical),
        multi_vector_scores(q.tokens, d.tokens),
        rules(count, group),
        temperature=TEMPERATURE,
        distill=distill,
        teacher_scores=TeacherScores(in_columns(given, order), loss),
    )
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for found, expected in zip(torch.autograd.grad(ours, leaves), wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "in_batch"), [("kl_div", False), ("kl_div", True), ("m3_kd_loss", True)], ids=str
)
def test_the_rows_scores_and_infonce(loss: Any, in_batch: bool) -> None:
    """FlagEmbedding's model of dense vectors, whose loss is then the sum of the two, or one for the other."""
    count, group = 5, 4
    generator = torch.Generator().manual_seed(1)
    q = F.normalize(torch.randn(count, WIDTH, generator=generator), dim=-1).requires_grad_()
    p = F.normalize(torch.randn(count * group, WIDTH, generator=generator), dim=-1).requires_grad_()
    given = torch.randn(count, group, generator=generator) * 3
    model = BiEncoderOnlyEmbedderModel(
        Given(), temperature=TEMPERATURE, normalize_embeddings=True, kd_loss_type=loss
    )
    compute = model._compute_in_batch_neg_loss if in_batch else model._compute_no_in_batch_neg_loss
    _, theirs = compute(q, p, teacher_targets=given.softmax(-1))

    order = positives_first(count, group)
    ours = contrastive_loss(
        q @ p[order].T,
        rules(count, group, in_batch=in_batch),
        temperature=TEMPERATURE,
        teacher_scores=TeacherScores(in_columns(given, order), loss),
    )
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for found, expected in zip(
        torch.autograd.grad(ours, [q, p]), torch.autograd.grad(theirs, [q, p]), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_its_warm_up_is_the_joint_loss(heads) -> None:
    """Before `self_distill_start_step` theirs is the loss without distillation, after it the other one."""
    queries, passages = texts(3, 8, 3), texts(6, 8, 4)
    model = peer(heads, True)
    model.self_distill_start_step = 1
    losses = [model(queries, passages).loss for _ in range(4)]
    joint = peer(heads, False)(queries, passages).loss
    taught = peer(heads, True)(queries, passages).loss
    torch.testing.assert_close(torch.stack(losses), torch.stack([joint, joint, taught, taught]))


@pytest.mark.parametrize("distill", [False, True], ids=["joint", "self-distillation"])
@pytest.mark.parametrize("in_batch", [False, True], ids=["own negatives", "in batch"])
def test_the_same_scores_give_the_same_loss(heads, in_batch: bool, distill: bool) -> None:
    """Put together from FlagEmbedding's own functions.

    Its forward pass fails without in-batch negatives (the test below), so there the scores of the groups are
    added up here, and all that follows is theirs.
    """
    count, group = 6, 4
    dense, lexical, multi = (
        (torch.rand(count, count * group) * high).requires_grad_() for high in (1.0, 3.0, 1.0)
    )
    model = peer(heads, distill)
    q, p = torch.zeros(count, 1), torch.zeros(count * group, 1)

    def candidates(scores: Tensor) -> Tensor:
        return scores / TEMPERATURE if in_batch else model.get_local_score(q, p, scores) / TEMPERATURE

    d, s, m = map(candidates, (dense, lexical, multi))
    together = model.ensemble_score(q, p, d, s, m)
    target = torch.arange(count) * group if in_batch else torch.zeros(count, dtype=torch.int64)
    theirs = (
        model.compute_loss(d, target)
        + model.compute_loss(together, target)
        + 0.1 * model.compute_loss(s, target)
        + model.compute_loss(m, target)
    ) / 4
    if distill:
        teacher = together.detach().softmax(-1)
        taught = [model.distill_loss("kl_div", teacher, scores) for scores in (d, s, m)]
        theirs = (theirs + (taught[0] + 0.1 * taught[1] + taught[2]) / 3) / 2

    order = positives_first(count, group)
    ours = unified_loss(
        dense[:, order],
        lexical[:, order],
        multi[:, order],
        rules(count, group, in_batch=in_batch),
        temperature=TEMPERATURE,
        distill=distill,
    )
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for found, expected in zip(
        torch.autograd.grad(ours, [dense, lexical, multi]),
        torch.autograd.grad(theirs, [dense, lexical, multi]),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_theirs_fails_without_in_batch_negatives(heads) -> None:
    """Where this changes, the docstring of `unified` and the test above should too."""
    with pytest.raises(IndexError):
        peer(heads, False)(texts(5, 8, 5), texts(10, 8, 6), no_in_batch_neg_flag=True)
