from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from embedline.compress.layers import without_layers
from embedline.config.model import LatentConfig, Prompt
from embedline.errors import InputError, StepError
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.heads import Encoded
from embedline.models.prompts import PromptTable


@pytest.mark.parametrize("architecture", ["modernbert", "nomic_bert", "bert"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_a_texts_vector_does_not_depend_on_its_batch(
    make_embedder, texts: list[str], architecture: str, pooling: str
) -> None:
    embedder = make_embedder(architecture, pooling)
    alone = np.concatenate([embedder.encode([text]) for text in texts])
    for batch_tokens in (1, 60, 100_000):
        together = embedder.encode(texts, batch_tokens=batch_tokens)
        np.testing.assert_allclose(together, alone, atol=1e-5)


def test_vectors_are_normalised_float32_in_the_order_of_the_texts(make_embedder, texts: list[str]) -> None:
    embedder = make_embedder()
    vectors = embedder.encode(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(texts), 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    order = [3, 0, 5, 1, 4, 2]
    np.testing.assert_allclose(embedder.encode([texts[i] for i in order]), vectors[order], atol=1e-5)


def test_raw_vectors_have_the_same_direction(make_embedder, texts: list[str]) -> None:
    embedder = make_embedder()
    raw = embedder.encode(texts, normalize=False)
    np.testing.assert_allclose(
        raw / np.linalg.norm(raw, axis=1, keepdims=True), embedder.encode(texts), atol=1e-6
    )


def test_no_texts_give_no_vectors(make_embedder) -> None:
    assert make_embedder().encode([]).shape == (0, 32)


def test_a_prompt_is_put_before_the_text_and_a_long_text_is_cut(make_embedder) -> None:
    embedder = make_embedder()
    np.testing.assert_array_equal(embedder.encode(["почта"], prompt="Это: "), embedder.encode(["Это: почта"]))
    [ids] = embedder.tokenize(["слово " * 100], max_length=16)
    assert len(ids) == 16
    assert ids[0] == embedder.tokenizer.cls_token_id
    assert ids[-1] == embedder.tokenizer.sep_token_id


def test_a_vector_that_is_not_finite_is_an_error_naming_the_text(make_embedder) -> None:
    """A search would rank such a vector first, and mining would take it as a negative."""
    embedder = make_embedder("modernbert")
    where = embedder.tokenizer("cat")["input_ids"][1]
    with torch.no_grad():
        embedder.backbone.get_input_embeddings().weight[where] = float("nan")
    with pytest.raises(StepError, match=r"no finite vector for 1 of 3 texts; the first: 'cat'"):
        embedder.encode(["dog", "cat", "the sun"])


def test_encoding_needs_no_gradient_and_restores_the_mode(make_embedder) -> None:
    embedder = make_embedder("bert", hidden_dropout_prob=0.5).train()
    first, second = embedder.encode(["почта"]), embedder.encode(["почта"])
    np.testing.assert_array_equal(first, second)  # dropout was off
    assert embedder.training
    assert all(parameter.grad is None for parameter in embedder.parameters())


def test_bf16_stays_near_fp32(make_embedder, texts: list[str]) -> None:
    embedder = make_embedder()
    cosines = (embedder.encode(texts, bf16=True) * embedder.encode(texts)).sum(1)
    assert cosines.min() > 0.999


@pytest.mark.parametrize("architecture", ["modernbert", "nomic_bert", "bert"])
def test_every_token_sees_the_whole_text(make_embedder, architecture: str) -> None:
    """A causal model would not change the first state."""
    embedder = make_embedder(architecture, "cls")
    ids = torch.randint(5, 300, (1, 30))
    other = ids.clone()
    other[0, -1] += 1
    mask = torch.ones_like(ids)
    assert (embedder(ids, mask) - embedder(other, mask)).abs().max() > 1e-7


def test_prompts_are_found_by_name_then_task_then_default() -> None:
    table = PromptTable(
        {
            "faq": Prompt(query="F: "),
            "sts": Prompt(query="S: ", document="S: "),
            "default": Prompt(document="D: "),
        }
    )
    assert table.prompt("query", name="faq", task_type="sts") == "F: "
    assert table.prompt("document", name="faq") == ""  # its entry has no words for documents
    assert table.prompt("document", name="other", task_type="sts") == "S: "
    assert table.prompt("document", name="other") == "D: "
    assert PromptTable().prompt("query", name="faq") == ""
    assert PromptTable.from_json(table.as_json()) == table


ALL_HEADS = ("dense", "lexical", "multi_vector")
POOLINGS = ["mean", "cls", "last", "latent", "mcls"]


def with_all_heads(embedder: Embedder, pooling: str) -> Embedder:
    latent = LatentConfig(latents=6, heads=4)
    return embedder.with_spec(
        replace(embedder.spec, pooling=pooling, latent=latent, mcls_every=8, heads=ALL_HEADS)
    )


def represent(embedder: Embedder, ids: list[list[int]], extra: int = 0) -> Encoded:
    """Compute all heads of `ids`, padded to the longest row plus `extra` columns."""
    batch = embedder.pad(ids)
    pad = embedder.tokenizer.pad_token_id
    batch["input_ids"] = torch.nn.functional.pad(batch["input_ids"], (0, extra), value=pad)
    batch["attention_mask"] = torch.nn.functional.pad(batch["attention_mask"], (0, extra))
    with torch.no_grad():
        return embedder.represent(**batch)


@pytest.mark.parametrize("architecture", ["modernbert", "nomic_bert", "bert", "xlm-roberta", "llama"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_no_head_depends_on_padding_or_batch(
    make_embedder, texts: list[str], architecture: str, pooling: str
) -> None:
    sizes = {"num_key_value_heads": 1} if architecture == "llama" else {}
    embedder = with_all_heads(make_embedder(architecture, **sizes), pooling)
    ids = embedder.tokenize(texts, max_length=40)
    together, wider = represent(embedder, ids), represent(embedder, ids, extra=19)
    for row, its_ids in enumerate(ids):
        alone = represent(embedder, [its_ids])
        for batch in (together, wider):
            torch.testing.assert_close(batch.dense[row], alone.dense[0], atol=1e-5, rtol=0)
            for head in ("lexical", "tokens"):
                padded, real = getattr(batch, head)[row], getattr(alone, head)[0]
                torch.testing.assert_close(padded[: len(its_ids)], real, atol=1e-5, rtol=0)
                assert not padded[len(its_ids) :].any()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_head_gives_the_same_alone_as_beside_others(make_embedder, texts: list[str], pooling: str) -> None:
    embedder = with_all_heads(make_embedder(), pooling)
    ids = embedder.tokenize(texts, max_length=40)
    everything = represent(embedder, ids)
    batch = embedder.pad(ids)
    with torch.no_grad():
        assert torch.equal(embedder(**batch), everything.dense)
    for head, field in (("lexical", "lexical"), ("multi_vector", "tokens")):
        one = embedder.with_spec(replace(embedder.spec, heads=("dense", head)))
        given = represent(one, ids)
        assert torch.equal(getattr(given, field), getattr(everything, field))
        assert sum(part is None for part in given) == 1


def test_another_spec_keeps_the_weights_it_shares(make_embedder) -> None:
    embedder = with_all_heads(make_embedder(), "latent")
    same = embedder.with_spec(replace(embedder.spec, query_length=9, multi_vector_width=32))
    assert same.latent_attention is embedder.latent_attention
    assert same.heads["lexical"] is embedder.heads["lexical"]
    assert same.heads["multi_vector"] is embedder.heads["multi_vector"]  # 32 is the model's width
    other = embedder.with_spec(
        replace(embedder.spec, latent=LatentConfig(latents=3, heads=4), multi_vector_width=8)
    )
    assert other.latent_attention is not embedder.latent_attention
    assert other.heads["multi_vector"].project.weight.shape == (8, 32)
    assert other.heads["lexical"] is embedder.heads["lexical"]


def test_new_heads_follow_their_seed_and_keep_the_random_state(make_embedder) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    spec = replace(make_embedder().spec, heads=ALL_HEADS)
    one, same, other = (make_embedder().with_spec(spec, seed=seed) for seed in (1, 1, 2))
    weights = [model.heads["multi_vector"].project.weight for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    torch.manual_seed(5)
    one.with_spec(replace(spec, pooling="latent", latent=LatentConfig(latents=2, heads=2)))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_another_backbone_gets_a_copy_of_pooling_and_heads(
    make_embedder, texts: list[str], pooling: str
) -> None:
    embedder = with_all_heads(make_embedder(), pooling)
    ids = embedder.tokenize(texts, max_length=40)
    twin = embedder.with_backbone(copy.deepcopy(embedder.backbone))
    for one, other in zip(represent(embedder, ids), represent(twin, ids), strict=True):
        assert torch.equal(one, other)
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in embedder.parameters()}
    assert twin.training == embedder.training
    pruned = without_layers(embedder, [0])
    for name, weight in pruned.heads.state_dict().items():
        assert torch.equal(weight, embedder.heads.state_dict()[name])
    assert (pruned.latent_attention is None) == (pooling != "latent")


def test_a_text_without_tokens_is_one_end_of_text(make_embedder) -> None:
    """Many decoders' tokenizers add no special token, so an empty text has no tokens."""
    embedder = make_embedder("llama", "last", num_key_value_heads=1)
    bare = copy.deepcopy(embedder.tokenizer)
    bare.backend_tokenizer.post_processor = None
    embedder = Embedder(embedder.backbone, bare, embedder.spec)
    assert embedder.tokenize(["", "почта"], max_length=16)[0] == [bare.pad_token_id]
    vectors = embedder.encode(["", "почта"])
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(embedder.encode([""])[0], vectors[0], atol=1e-5)


def test_mcls_needs_a_tokenizer_that_begins_texts_with_cls(make_embedder) -> None:
    embedder = make_embedder()
    bare = copy.deepcopy(embedder.tokenizer)
    bare.backend_tokenizer.post_processor = None
    with pytest.raises(InputError, match=r"model\.pooling: mcls repeats the CLS token"):
        Embedder(embedder.backbone, bare, EmbedderSpec("mcls"))


def test_latent_heads_divide_the_width(make_embedder) -> None:
    embedder = make_embedder()
    with pytest.raises(InputError, match=r"model\.latent\.heads: the width 32 is not a multiple of 5"):
        embedder.with_spec(replace(embedder.spec, pooling="latent", latent=LatentConfig(heads=5)))
