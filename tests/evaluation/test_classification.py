"""Few-shot classification against mteb's own task classes on the same texts."""

import json
import random

import numpy as np
import pytest

from embedline.config.data import EvaluationSet
from embedline.data.evaluation_sets import lay_out
from embedline.evaluation.evaluated_models import load_torch_model
from embedline.evaluation.local import score_model
from embedline.evaluation.rumteb import score_tasks
from embedline.evaluation.sets import read_sets

WORDS = "сбросить пароль скачать счёт принтер экран reset password invoice printer screen".split()  # noqa: SIM905
TASKS = {
    "classification": ("InappropriatenessClassification", "inappropriateness-classification"),
    "multilabel": ("SensitiveTopicsClassification", "sensitive-topics-classification"),
}


def rows(kind, count, seed):
    """Texts whose labels are words that stand in them, mostly."""
    chance = random.Random(seed)
    for _ in range(count):
        words = chance.sample(WORDS, 4)
        labels = sorted({WORDS.index(word) % 3 for word in words[:2]})
        noise = [chance.randrange(3)] if chance.random() < 0.2 else labels
        yield {"text": " ".join(words), "label": noise[0] if kind == "classification" else noise}


@pytest.mark.parametrize("kind", TASKS)
def test_a_local_set_is_scored_as_mteb_scores_it(kind, tiny_model, tmp_path):
    task, name = TASKS[kind]
    folder = tmp_path / "hub" / "ai-forever" / name
    folder.mkdir(parents=True)
    files = "".join(f"  - path: {split}.jsonl\n    split: {split}\n" for split in ("train", "test"))
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n")
    for seed, (split, count) in enumerate({"train": 120, "test": 60}.items()):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows(kind, count, seed))
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    lay_out([EvaluationSet(path=str(folder), kind=kind)], tmp_path, tmp_path / "out")

    model = tiny_model()
    ours = score_model(load_torch_model("candidate", "d", model), read_sets(tmp_path / "out"), resamples=200)
    (theirs,) = score_tasks(load_torch_model("candidate", "d", model), [task], root=tmp_path / "hub")
    row = next(row for row in ours.rows if row.dim == 32)
    assert (row.metric, row.main, row.count) == ("accuracy", True, 60)
    assert row.value == pytest.approx(theirs.value, abs=1e-9)
    assert 0.1 < row.low < row.value < row.high < 1
    per_text = [entry.value for entry in ours.per_query if entry.dim == 32]
    assert np.mean(per_text) == pytest.approx(row.value)
