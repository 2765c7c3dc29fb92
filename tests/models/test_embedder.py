from __future__ import annotations

import numpy as np
import pytest
import torch

from embedline.config.model import Prompt
from embedline.models.prompts import PromptTable


@pytest.mark.parametrize("architecture", ["modernbert", "nomic_bert", "bert"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_a_text_has_one_vector_whatever_its_batch(
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


def test_encoding_needs_no_gradient_and_gives_the_mode_back(make_embedder) -> None:
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
    """A model silently causal would leave the first state as it was."""
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
    assert table.prompt("document", name="faq", task_type="sts") == ""  # its entry says: nothing
    assert table.prompt("document", name="other", task_type="sts") == "S: "
    assert table.prompt("document", name="other") == "D: "
    assert PromptTable().prompt("query", name="faq") == ""
    assert PromptTable.from_json(table.as_json()) == table
