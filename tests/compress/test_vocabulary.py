from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from embedline.compress.token_use import HELD_BACK, choose_tokens, count_tokens
from embedline.compress.tokenizer_file import in_order, required_tokens, restrict, with_parts
from embedline.compress.vocabulary import prune_vocabulary, without_tokens
from embedline.errors import InputError
from embedline.models.backbone import new_backbone
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.folder import load_embedder, save_embedder

RUSSIAN = [
    "как",
    "настроить",
    "принтер",
    "печать",
    "почта",
    "пароль",
    "сервер",
    "доступ",
    "ошибка",
    "вход",
    "на",
    "диске,",
    "файл",
    "сети",
]
ENGLISH = [
    "how",
    "to",
    "set",
    "up",
    "the",
    "printer",
    "password",
    "server",
    "access",
    "error",
    "login",
    "disk,",
    "file",
    "network",
    "don't",
]
OTHERS = [
    "wie",
    "richte",
    "ich",
    "den",
    "drucker",
    "ein",
    "κωδικός",
    "πρόσβασης",
    "διακομιστής",
    "打印机",
    "密码",
    "服务器",
    "пошта",
    "сервіс",
    "їжак",
    "mot",
    "de",
    "passe",
    "imprimante",
    "réseau",
    "contraseña",
    "impresora",
    "où",
    "è",
    "così",
]
NAMES = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
NAMES |= {"mask_token": "<mask>"}
PROMPTS = ["query: ", "passage: "]


def _trained(model: Any, trainer: Any, before: Any, decoder: Any, after: str = "template") -> Any:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer, tokenizer.decoder = before, decoder
    generator = np.random.default_rng(0)
    words = RUSSIAN + ENGLISH + OTHERS
    tokenizer.train_from_iterator(
        (" ".join(generator.choice(words, size=6)) for _ in range(400)), trainer(special_tokens=["<unk>"])
    )
    tokenizer.add_special_tokens(list(NAMES.values()))  # after the model's own, as ModernBERT's
    tokenizer.add_tokens(["<note>"])
    ids = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    if after == "template":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=ids
        )
    elif after == "roberta":
        tokenizer.post_processor = processors.RobertaProcessing(ids[1], ids[0])
    else:
        tokenizer.post_processor = processors.BertProcessing(ids[1], ids[0])
    make: Any = PreTrainedTokenizerFast
    return make(tokenizer_object=tokenizer, model_max_length=128, **NAMES)


def unigram() -> Any:
    return _trained(
        models.Unigram(),
        lambda **k: trainers.UnigramTrainer(vocab_size=420, unk_token="<unk>", show_progress=False, **k),
        pre_tokenizers.Metaspace(),
        decoders.Metaspace(),
    )


def wordpiece() -> Any:
    return _trained(
        models.WordPiece(unk_token="<unk>"),  # type: ignore[call-arg]
        lambda **k: trainers.WordPieceTrainer(vocab_size=420, show_progress=False, **k),
        pre_tokenizers.BertPreTokenizer(),
        decoders.WordPiece(),
        "bert",
    )


def byte_level() -> Any:
    return _trained(
        models.BPE(),
        lambda **k: trainers.BpeTrainer(
            vocab_size=560,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
            **k,
        ),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
        "roberta",
    )


def merged_pieces() -> Any:
    """BPE over whole words with marks of their beginnings, as in Llama and Gemma."""
    return _trained(
        models.BPE(unk_token="<unk>", fuse_unk=True),
        lambda **k: trainers.BpeTrainer(vocab_size=420, show_progress=False, **k),
        pre_tokenizers.Metaspace(),
        decoders.Metaspace(),
    )


KINDS: dict[str, Callable[[], Any]] = {
    "unigram": unigram,
    "wordpiece": wordpiece,
    "byte_level": byte_level,
    "merged_pieces": merged_pieces,
}
TEXTS = [" ".join(pair) for pair in zip(RUSSIAN * 3, ENGLISH * 3, strict=False)]


@pytest.fixture(scope="module", params=KINDS)
def pruned(request: pytest.FixtureRequest) -> tuple[Embedder, Embedder, list[int]]:
    """A model with a tokenizer of each kind, its pruned copy, and the old ids of the tokens that stay."""
    embedder = model(KINDS[request.param]())
    rows, _ = choose_tokens(embedder, count_tokens(embedder, TEXTS, PROMPTS))
    return embedder, without_tokens(embedder, rows), rows


def model(tokenizer: Any, architecture: str = "bert", **spec: Any) -> Embedder:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    backbone = new_backbone(architecture, {**sizes, "initializer_range": 0.3}, tokenizer, 1)
    return Embedder(backbone, tokenizer, EmbedderSpec(document_length=64, **spec)).eval()


def ids(embedder: Embedder, text: str) -> list[int]:
    return embedder.tokenize([text], max_length=64)[0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from([*RUSSIAN, *ENGLISH, "№7", "<note>", "<mask>"]), min_size=1, max_size=8),
    st.sampled_from(["", *PROMPTS]),
    st.sampled_from([" ", "  ", "\n"]),
)
def test_texts_of_the_corpus_words_keep_tokens_and_vectors(pruned, words, prompt, between) -> None:
    embedder, smaller, rows = pruned
    text = prompt + between.join(words)
    before, after = ids(embedder, text), ids(smaller, text)
    known = set(rows)
    if set(before) <= known:
        assert [rows[token] for token in after] == before
        np.testing.assert_allclose(smaller.encode([text]), embedder.encode([text]), atol=1e-5)
    else:  # only a word after an unusual space may have been cut otherwise than in the corpus
        assert between != " " or "№7" in words or "<note>" in words or "<mask>" in words


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(st.text(st.sampled_from("".join(sorted(set("".join([*RUSSIAN, *ENGLISH, *OTHERS, " ▁_Ё<s>🙂"])))))))
def test_any_text_whose_tokens_stay_is_cut_as_before(pruned, text) -> None:
    embedder, smaller, rows = pruned
    before = ids(embedder, text)
    if set(before) <= set(rows):
        assert [rows[token] for token in ids(smaller, text)] == before


def test_no_character_becomes_unknown(pruned) -> None:
    embedder, smaller, _ = pruned
    for word in [*OTHERS, *RUSSIAN, "зашифрованный"]:
        unknown = [m.tokenizer.unk_token_id in ids(m, word) for m in (embedder, smaller)]
        assert unknown[0] == unknown[1], word


def test_tokens_of_other_languages_go(pruned) -> None:
    embedder, smaller, _ = pruned
    assert len(smaller.tokenizer) < 0.9 * len(embedder.tokenizer)
    assert smaller.backbone.config.vocab_size == len(smaller.tokenizer)
    assert len(smaller.backbone.get_input_embeddings().weight) == len(smaller.tokenizer)


def test_special_and_added_tokens_keep_their_names(pruned) -> None:
    embedder, smaller, rows = pruned
    for name in NAMES:
        old, new = (getattr(m.tokenizer, f"{name}_id") for m in (embedder, smaller))
        assert rows[new] == old
    assert rows[smaller.tokenizer.convert_tokens_to_ids("<note>")] == (
        embedder.tokenizer.convert_tokens_to_ids("<note>")
    )
    assert smaller.backbone.config.pad_token_id == smaller.tokenizer.pad_token_id


def test_other_libraries_load_the_pruned_folder(pruned, tmp_path) -> None:
    embedder, smaller, rows = pruned
    save_embedder(smaller, tmp_path)
    expected = embedder.encode(TEXTS[:8])
    theirs = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS[:8], normalize_embeddings=True)
    np.testing.assert_allclose(theirs, expected, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert [[rows[t] for t in row] for row in tokenizer(TEXTS[:8])["input_ids"]] == [
        ids(embedder, text) for text in TEXTS[:8]
    ]
    assert len(AutoModel.from_pretrained(tmp_path).get_input_embeddings().weight) == len(tokenizer)
    np.testing.assert_allclose(load_embedder(tmp_path).encode(TEXTS[:8]), expected, atol=1e-5)


@pytest.mark.parametrize("architecture", ["modernbert", "xlm-roberta", "llama"])
def test_architectures_keep_the_vectors(architecture) -> None:
    """RoBERTa's positions begin after the padding token's id, which here is not the first one."""
    embedder = model(unigram(), architecture)
    smaller, result = prune_vocabulary(embedder, TEXTS, PROMPTS)
    np.testing.assert_allclose(smaller.encode(TEXTS), embedder.encode(TEXTS), atol=1e-5)
    assert result.parameters <= result.parameters_before
    assert result.tokens == len(smaller.tokenizer)


def test_heads_ignore_the_special_tokens_by_their_new_ids() -> None:
    embedder = model(unigram(), heads=("dense", "lexical", "multi_vector"))
    smaller, _ = prune_vocabulary(embedder, TEXTS)
    with torch.no_grad():
        before, after = (
            m.represent(**m.pad(m.tokenize(TEXTS[:4], max_length=64))) for m in (embedder, smaller)
        )
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_tokens_spelled_with_the_letters_of_the_texts_stay() -> None:
    embedder = model(unigram())
    use = count_tokens(embedder, RUSSIAN[:4] + ENGLISH[:4])
    vocabulary = embedder.tokenizer.get_vocab()
    kept, used = (
        {
            embedder.tokenizer.convert_ids_to_tokens(i)
            for i in choose_tokens(embedder, use, same_letters=same)[0]
        }
        for same in (True, False)
    )
    letters = set("".join(RUSSIAN[:4]))
    russian = {t for t in vocabulary if t.strip("▁") and set(t.strip("▁")) <= letters}
    assert russian <= kept
    assert not russian <= used
    assert used < kept
    latin = {t for t in kept if len(t.strip("▁")) > 1 and t.isascii()}
    assert latin - {*NAMES.values(), "<note>"} <= used


def test_held_back_texts_measure_what_new_texts_lose() -> None:
    embedder = model(unigram())
    common = [f"{a} {b}" for a in ENGLISH for b in ENGLISH][: HELD_BACK - 1]
    _, all_stay = choose_tokens(embedder, count_tokens(embedder, [*common, common[0] + "  the"]))
    _, none_stay = choose_tokens(embedder, count_tokens(embedder, [*common, "imprimante contraseña"]))
    assert all_stay is not None
    assert (all_stay.texts, all_stay.tokens) == (1, 1)
    assert none_stay is not None
    assert none_stay.texts == 0
    assert none_stay.tokens < 1
    assert choose_tokens(embedder, count_tokens(embedder, common))[1] is None
    rows, _ = choose_tokens(embedder, count_tokens(embedder, [*common, "imprimante contraseña"]))
    assert set(ids(embedder, "imprimante contraseña")) <= set(rows)  # the final choice uses all texts


def test_rare_tokens_go_with_a_higher_count() -> None:
    embedder = model(unigram())
    use = count_tokens(embedder, [*(f"the {word}" for word in ENGLISH), "imprimante"])
    often, _ = choose_tokens(embedder, use, min_count=3)
    assert set(often) < set(choose_tokens(embedder, use)[0])


def test_parts_of_a_merged_token_stay_until_nothing_is_missing() -> None:
    spec = {
        "added_tokens": [],
        "model": {
            "type": "BPE",
            "vocab": {t: i for i, t in enumerate(["a", "b", "c", "d", "ab", "abc", "abcd", "cd"])},
            "merges": [["a", "b"], "c d", ["ab", "c"], ["abc", "d"]],
        },
    }
    kept = with_parts(spec, required_tokens(spec) | {6})
    assert kept == {0, 1, 2, 3, 4, 5, 6}
    smaller = restrict(spec, in_order(spec, kept))["model"]
    assert smaller["merges"] == [["a", "b"], ["ab", "c"], ["abc", "d"]]
    assert list(smaller["vocab"]) == ["a", "b", "c", "d", "ab", "abc", "abcd"]


def test_the_least_probable_piece_stays_because_unknown_characters_derive_from_it() -> None:
    spec = {
        "added_tokens": [],
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["ab", -30.0], ["a", -2.0]]},
    }
    assert required_tokens(spec) == {0, 1, 2}


def test_a_tokenizer_of_whole_words_is_refused(make_embedder) -> None:
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "<pad>": 1, "a": 2}, unk_token="<unk>"))
    make: Any = PreTrainedTokenizerFast
    words = make(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>")
    embedder = Embedder(make_embedder().backbone, words, EmbedderSpec())
    with pytest.raises(InputError, match="WordLevel cannot lose tokens"):
        prune_vocabulary(embedder, ["a"])


def test_a_tokenizer_in_python_is_refused(make_embedder) -> None:
    embedder = make_embedder()
    embedder.tokenizer = type("PhobertTokenizer", (), {"is_fast": False})()
    with pytest.raises(InputError, match=r"PhobertTokenizer exists in Python only.*tokenizer\.json"):
        prune_vocabulary(embedder, ["a"])


def test_no_texts_are_refused(make_embedder) -> None:
    with pytest.raises(InputError, match="no texts"):
        prune_vocabulary(make_embedder(), [])


def test_files_of_the_whole_vocabulary_are_left_out(tmp_path) -> None:
    smaller, result = prune_vocabulary(model(wordpiece()), TEXTS)
    save_embedder(smaller, tmp_path)
    saved = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert len(saved["model"]["vocab"]) <= result.tokens
    assert not [*tmp_path.glob("vocab.*"), *tmp_path.glob("*.model")]
