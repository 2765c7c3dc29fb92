"""Fit of a fusion's weights for the finished candidate, on the records that clean set aside."""

from __future__ import annotations

import hashlib
from heapq import nsmallest
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from embedline.config.fusion import FusionConfig
from embedline.data.set_aside import SET_ASIDE, is_search
from embedline.data.tables import RECORDS, read_rows
from embedline.markdown import table
from embedline.steps.context import Context

if TYPE_CHECKING:
    from embedline.models.embedder import Embedder
    from embedline.retrieval.fusion import Fusion
    from embedline.retrieval.fusion_fit import JudgedQueries


def write_fitted(context: Context, embedder: Embedder, *, bf16: bool) -> Fusion:
    """Fit the run's fusion and write `fusion.json` into the output `model`.

    The documents searched are the positives of the records set aside, and of others of the same sources: one
    corpus for each script, as a query must find its answer among texts of the answer's language.
    """
    from embedline.retrieval.fusion import Fusion, write_fusion
    from embedline.retrieval.fusion_fit import fit_fusion

    config = context.step_config.section("fusion", FusionConfig)
    dataset = context.artifact("dataset").path
    parts = _judged(embedder, dataset, config, bf16=bf16)
    fusion = fit_fusion(Fusion(config.method, tuple(config.legs)), parts)
    write_fusion(fusion, context.output("model"))
    return fusion


def _judged(embedder: Embedder, dataset: Path, config: FusionConfig, *, bf16: bool) -> list[JudgedQueries]:
    """Search for the queries set aside, with every leg."""
    from embedline.evaluation.evaluated_models import EvaluatedModel, TorchEncoder
    from embedline.evaluation.legs import SearchTexts, search_by_head, search_by_leg
    from embedline.retrieval.fusion import DEPTH
    from embedline.retrieval.fusion_fit import JudgedQueries

    spec = embedder.spec
    model = EvaluatedModel(
        "candidate",
        "",
        TorchEncoder(embedder, bf16),
        document_length=spec.document_length,
        heads=spec.heads,
        hybrid=spec.hybrid.model_dump(),
    )
    prompts = spec.prompts.prompt("query"), spec.prompts.prompt("document")
    parts = []
    for corpus in corpora(dataset, config.documents):
        texts = SearchTexts(list(corpus.relevant), corpus.documents, *prompts, spec.query_length, DEPTH)
        legs, features = search_by_leg(model, texts, search_by_head(model, texts))
        parts.append(JudgedQueries(legs, features, list(corpus.relevant.values())))
    return parts


class Corpus(NamedTuple):
    """Documents, and queries with the indices of their documents."""

    documents: list[str]
    relevant: dict[str, frozenset[int]]


def corpora(dataset: Path, at_most: int) -> list[Corpus]:
    """Return the queries set aside, and the documents to search, by the documents' script.

    Args:
        at_most: documents together; the sources have equal parts of them, beside the queries' own.
    """
    from embedline.retrieval.query_features import main_script

    if not (dataset / SET_ASIDE).is_file():
        return []
    held = [row for row in read_rows(dataset / SET_ASIDE) if is_search(row)]
    texts = dict.fromkeys(text for row in held for text in row["positives"])
    texts |= dict.fromkeys(_others(dataset, {row["source"] for row in held}, at_most - len(texts)))
    by_script: dict[str, dict[str, int]] = {}
    for text in texts:
        documents = by_script.setdefault(main_script(text), {})
        documents[text] = len(documents)
    found = []
    for documents in by_script.values():
        relevant: dict[str, frozenset[int]] = {}
        for row in held:
            if own := frozenset(documents[text] for text in row["positives"] if text in documents):
                relevant[row["query"]] = relevant.get(row["query"], frozenset()) | own
        if relevant:
            found.append(Corpus(list(documents), relevant))
    return found


def _others(dataset: Path, sources: set[str], at_most: int) -> list[str]:
    """Return positives of the sources' other records, as many of each, those with the lowest hashes."""
    share = max(0, at_most) // max(1, len(sources))
    texts: dict[str, set[str]] = {source: set() for source in sources}
    for row in read_rows(dataset / RECORDS):
        if (source := row["source"]) in sources and is_search(row):
            texts[source].update(row["positives"])
            if len(texts[source]) > 8 * share:  # memory holds the candidates, not the source
                texts[source] = set(nsmallest(share, texts[source], key=_place))
    return [text for _, found in sorted(texts.items()) for text in nsmallest(share, found, key=_place)]


def _place(text: str) -> bytes:
    return hashlib.sha1(text.encode()).digest()


def fusion_summary(fusion: Fusion) -> str:
    """Write the scores of a fitted fusion as a table of the step's page."""
    if not fusion.scores:
        return "No record was set aside to fit the fusion's weights on; it has the default ones."
    how = f"fitted on {fusion.queries} queries" if fusion.queries else "default weights"
    rows = [(name, f"{value:.4f}") for name, value in fusion.scores.items()]
    return f"Fusion of {', '.join(fusion.legs)} ({fusion.method}, {how}).\n\n" + table(
        ("on records set aside", "nDCG@10"), rows
    )
