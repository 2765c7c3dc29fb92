"""The presets of the three papers: their numbers, the sources of these, and their tiny forms."""

from __future__ import annotations

import re
from importlib import resources

import pytest
import yaml

from embedline.config.load import PRESETS, load_config, preset_names
from embedline.config.optionpage import markdown
from embedline.config.schema import RunConfig
from embedline.models.prompts import PromptTable

FULL = ["nomic-embed", "bge-m3", "giga-embeddings"]


def text(name: str) -> str:
    return (resources.files(PRESETS) / "presets" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("preset", FULL)
def test_each_full_preset_has_a_tiny_form(preset: str) -> None:
    assert {preset, f"{preset}-tiny"} <= set(preset_names())
    assert yaml.safe_load(text(f"{preset}-tiny.yaml"))["extends"] == preset


@pytest.mark.parametrize("preset", FULL)
def test_the_tiny_form_differs_in_sizes_and_not_in_kind(preset: str) -> None:
    full, tiny = load_config(preset), load_config(f"{preset}-tiny")
    for config in (full, tiny):
        assert config.pretrain.enabled
        assert config.unsupervised.enabled
        assert config.supervised.enabled
        assert config.mine.enabled

    def kinds(config: RunConfig) -> list[object]:
        stages = (config.unsupervised, config.supervised)
        return [
            config.pretrain.objective,
            config.model.heads,
            config.model.layer_norm,
            config.model.architecture,
            config.prompts.keys(),
            config.prune,
            config.model.dynamic_ntk is None,
            config.model.positions is None,
            bool(config.model.dims),
            *(
                (s.objective, s.self_distillation, s.matryoshka, bool(s.buckets),
                 s.schedule, s.symmetric, s.prompts, s.false_negative_margin, s.size_exponent, s.clip)
                for s in stages
            ),
        ]  # fmt: skip

    assert kinds(full) == kinds(tiny)
    if preset != "bge-m3":  # MCLS is run there, which the published model was not trained with
        assert full.model.pooling == tiny.model.pooling
    assert tiny.data.root == "demo:"
    assert tiny.runtime == full.runtime.model_copy(update={"precision": "fp32"})


SOURCE = re.compile(r"\[(P|C|card|NV|LLM2Vec|2|ours)\b")
# Not numbers: texts in quotation marks, addresses, and names that hold a digit.
NAMES = re.compile(r'"[^"]*"|hub:\S+|[A-Za-z_-]+\d\w*')


@pytest.mark.parametrize("preset", FULL)
def test_every_number_has_a_source(preset: str) -> None:
    """The source is in its line's comment, or in the comment above or beside its section's key."""
    without_source: list[str] = []
    above, covered = False, 99  # a source in the comment lines above; the indentation that one speaks for
    for line in text(f"{preset}.yaml").splitlines():
        setting, _, comment = line.partition("#")
        indent = len(line) - len(line.lstrip())
        if not setting.strip():
            above = bool(line) and (above or bool(SOURCE.search(comment)))
            continue
        covered = covered if indent > covered else 99
        if above or (setting.rstrip().endswith(":") and SOURCE.search(comment)):
            covered = min(covered, indent)
        value = NAMES.sub("", setting.partition(":")[2] or setting)
        if re.search(r"\d", value) and covered == 99 and not SOURCE.search(comment):
            without_source.append(line.strip())
        above = False
    assert [line for line in without_source if not line.startswith("description:")] == []


def test_nomic_embed_as_published() -> None:
    config = load_config("nomic-embed")
    mlm, pairs, triplets = config.pretrain, config.unsupervised, config.supervised
    assert (mlm.objective, mlm.encoder_mask, mlm.length, mlm.batch) == ("mlm", 0.3, 2048, 1024 * 4)
    assert (mlm.hidden_as, mlm.whole_words) == ("bert", False)
    assert (mlm.beta1, mlm.epsilon) == (0.9, 1e-6)
    assert (mlm.learning_rate, mlm.beta2, mlm.weight_decay, mlm.warmup) == (5e-4, 0.98, 1e-5, 0.06)
    assert (pairs.batch, pairs.learning_rate, pairs.temperature, pairs.schedule) == (
        16384,
        2e-4,
        0.02,
        "cosine",
    )
    assert round(pairs.warmup * pairs.steps) == 700
    assert (triplets.batch, triplets.negatives, triplets.learning_rate) == (256, 7, 2e-5)
    assert round(triplets.warmup * triplets.steps) == 400
    assert sorted([*config.model.dims, 768]) == [64, 128, 256, 512, 768]
    assert config.model.vocabulary == 30528
    assert config.model.settings["rope_parameters"]["rope_theta"] == 1000
    assert config.clean.consistency_top_k == 2
    assert config.clean.consistency_pool == 1_000_000
    both = {name: prompt.query for name, prompt in config.prompts.items()}
    assert both["classification"] == "classification: "
    assert both["clustering"] == "clustering: "
    assert (config.prompts["default"].query, config.prompts["default"].document) == (
        "search_query: ",
        "search_document: ",
    )


def test_every_nomic_source_has_the_prefixes_of_contrastors() -> None:
    """Its loader puts a prefix that the YAML names for queries alone before documents, too (NLI, MEDI)."""
    config = load_config("nomic-embed")
    table, found = PromptTable(config.prompts), {}
    for source in config.data.sources:
        kind = {"name": source.name, "task_type": source.task_type or ""}
        found[source.name] = table.prompt("query", **kind), table.prompt("document", **kind)
    search = """
        paq gooaq yahoo_title_answer amazonqa yahoo_qa yahoo_title_question eli5 squad msmarco nq hotpot fever
    """
    clustering = """
        reddit_title_body s2orc_citation_titles s2orc_title_abstract s2orc_abstract_citation
        s2orc_abstract_body codesearch stackexchange_duplicate_questions stackexchange_title_body
        stackexchange_body_body reddit
    """
    classification = """
        amazon_reviews wikianswers wikipedia agnews ccnews npr cnn sentence_compression wikihow altlex quora
        simplewiki nli medi_wiki medi_stackexchange medi_flickr medi_supernli
    """
    assert found == {
        **dict.fromkeys(search.split(), ("search_query: ", "search_document: ")),
        **dict.fromkeys(clustering.split(), ("clustering: ", "clustering: ")),
        **dict.fromkeys(classification.split(), ("classification: ", "classification: ")),
    }


def test_bge_m3_as_published() -> None:
    config = load_config("bge-m3")
    totals = {
        bucket.tokens: (bucket.batch, tuned.batch)
        for bucket, tuned in zip(config.unsupervised.buckets, config.supervised.buckets, strict=True)
    }
    assert totals == {
        500: (67200, 1152),
        1000: (54720, 768),
        2000: (37248, 480),
        3000: (27648, 432),
        4000: (21504, 336),
        5000: (17280, 336),
        6000: (15072, 288),
        7000: (12288, 240),
        8192: (9984, 192),
    }
    retromae = config.pretrain
    assert (retromae.objective, retromae.encoder_mask, retromae.decoder_mask) == ("retromae", 0.3, 0.5)
    assert (retromae.hidden_as, retromae.whole_words) == ("bert", True)  # the authors' collator
    assert (retromae.learning_rate, retromae.warmup, retromae.weight_decay) == (7e-5, 0.1, 0.01)
    assert (config.unsupervised.objective, config.unsupervised.learning_rate) == ("infonce", 5e-5)
    tuned = config.supervised
    assert (tuned.objective, tuned.self_distillation, tuned.self_distillation_after) == (
        "unified",
        True,
        6000,
    )
    assert (tuned.negatives, tuned.temperature, tuned.learning_rate) == (7, 0.02, 1e-5)
    assert config.model.heads == ["dense", "lexical", "multi_vector"]
    assert (config.model.positions, config.model.mcls_every, config.model.hybrid.lexical) == (8192, 256, 0.3)


def test_giga_embeddings_as_published() -> None:
    config = load_config("giga-embeddings")
    shares = {source.task_type: source.weight for source in config.data.sources}
    assert shares == {
        "short-long": 33,
        "long-short": 24,
        "sts": 19,
        "bitext": 18,
        "short-short": 3,
        "long-long": 3,
    }
    assert sum(shares.values()) == 100
    assert config.unsupervised.size_exponent == config.supervised.size_exponent == 0
    assert (config.prune.when, config.prune.drop_share) == ("before", 0.25)
    assert (config.model.pooling, config.model.latent.latents, config.model.latent.heads) == (
        "latent",
        512,
        8,
    )
    assert config.unsupervised.batch == 1024
    assert (config.pretrain.objective, config.pretrain.hidden_as) == ("mntp", "bert")
    assert config.model.document_length == 4096
    for prompt in config.prompts.values():
        assert prompt.words(of_query=True).startswith("Instruct: ")
        assert prompt.words(of_query=True).endswith("\nQuery: ")
        assert prompt.words(of_query=False) == ""
    assert len(config.evaluate.mteb_tasks) == 23
    assert config.teacher is not None
    e5 = PromptTable(config.teacher.prompts)
    assert (e5.prompt("query"), e5.prompt("document")) == ("query: ", "passage: ")
    assert e5.prompt("document", task_type="bitext") == "query: "


def test_the_page_of_refused_options_is_fresh() -> None:
    assert text("OPTIONS.md") == markdown(), "python -m embedline.config.optionpage > …/presets/OPTIONS.md"
