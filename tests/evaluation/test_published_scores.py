"""Scores of multilingual-e5-small, which others published: evaluation measures what theirs does."""

import json

import pytest
from typer.testing import CliRunner

from embedline.cli.app import app
from embedline.evaluation.evaluated_models import load_torch_model
from embedline.evaluation.rumteb import score_tasks

pytestmark = [pytest.mark.real, pytest.mark.slow]

PUBLISHED = {  # ruMTEB's main metrics; the base's weights are of 4 bits
    "RUParaPhraserSTS": 0.7046,
    "RuSTSBenchmarkSTS": 0.7808,
    "TERRa": 0.5514,
    "InappropriatenessClassification": 0.5916,
    "SensitiveTopicsClassification": 0.2281,
}
# nDCG@10 of these weights, computed with sentence-transformers.
RETRIEVAL = {"GuidesRetrieval_ru": 0.411, "GuidesRetrieval_en2ru": 0.290}


def test_the_base_has_its_published_rumteb_scores(e5_base, real_data):
    model = load_torch_model("base", "digest", e5_base)
    rows = score_tasks(model, list(PUBLISHED), root=real_data / "rumteb")
    main = {row.set: row.value for row in rows if row.main}
    assert main == {name: pytest.approx(score, abs=0.03) for name, score in PUBLISHED.items()}


def test_the_base_has_its_known_retrieval_scores(e5_base, real_data, tmp_path):
    sets = [str(real_data / "eval" / name) for name in RETRIEVAL]
    command = ["evaluate", str(e5_base), *sets, "--json", "--work", str(tmp_path)]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    scores = json.loads(done.stdout)["scores"]
    main = {row["set"]: row["value"] for row in scores if row["main"]}
    assert main == {name: pytest.approx(score, abs=0.02) for name, score in RETRIEVAL.items()}
