"""mteb's own task classes on our models, from local copies in hub layout."""

import gzip
import json

import pytest
from scipy.stats import spearmanr

from embedline.errors import InputError, StepError
from embedline.evaluation.evaluated_models import load_torch_model
from embedline.evaluation.rumteb import score_tasks
from embedline.models.folder import load_embedder

REAL = (
    "RUParaPhraserSTS",
    "RuSTSBenchmarkSTS",
    "TERRa",
    "InappropriatenessClassification",
    "SensitiveTopicsClassification",
)


def test_a_made_up_copy_of_a_hub_dataset_is_scored_with_our_prompts(tiny_model, hub_copies):
    import mteb

    folder = tiny_model()
    task = mteb.get_task("RUParaPhraserSTS")
    path = task.metadata.dataset["path"]
    (row,) = score_tasks(
        load_torch_model("candidate", "digest", folder), ["RUParaPhraserSTS"], root=hub_copies
    )
    assert type(task).metadata.dataset["path"] == path  # the class is left as it was
    with gzip.open(
        hub_copies / "merionum" / "ru_paraphraser" / "test.jsonl.gz", "rt", encoding="utf-8"
    ) as file:
        data = [json.loads(line) for line in file]
    model = load_embedder(folder)
    one, two = (
        model.encode([row[f"text_{side}"] for row in data], prompt="q: ", max_length=32) for side in (1, 2)
    )
    expected = spearmanr((one * two).sum(1), [float(row["class"]) for row in data]).statistic
    assert row.value == pytest.approx(expected, abs=1e-4)
    assert (row.metric, row.kind, row.count, row.dim) == ("cosine_spearman", "sts", 8, 32)
    assert (row.main, row.language, row.prompt) == (True, "ru", "'q: '")
    assert row.revision.startswith("43265056790b8f7c59e0139acb4be0a8dad2c8f4 mteb 2")


def test_another_checkpoint_under_the_same_name_gets_its_own_scores(tiny_model, hub_copies):
    values = [
        score_tasks(
            load_torch_model("candidate", digest, tiny_model(seed)), ["RUParaPhraserSTS"], root=hub_copies
        )
        for seed, digest in ((1, "one"), (2, "two"))
    ]
    assert values[0][0].value != values[1][0].value


def test_a_changed_copy_is_read_anew(tiny_model, hub_copies):
    """`datasets` keeps what it made of a folder by the folder's name and README, not by its rows."""
    model = load_torch_model("candidate", "digest", tiny_model())
    (before,) = score_tasks(model, ["RUParaPhraserSTS"], root=hub_copies)
    path = hub_copies / "merionum" / "ru_paraphraser" / "test.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = file.readlines()
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(lines[:5])
    (after,) = score_tasks(model, ["RUParaPhraserSTS"], root=hub_copies)
    assert (before.count, after.count) == (8, 5)


def test_an_unknown_task_and_a_missing_copy_are_reported(tiny_model, tmp_path):
    model = load_torch_model("candidate", "digest", tiny_model())
    with pytest.raises(InputError, match="no task 'RUParaPhraser'"):
        score_tasks(model, ["RUParaPhraser"])
    with pytest.raises(StepError, match=r"mteb task TERRa: could not be run .*mteb_root"):
        score_tasks(model, ["TERRa"], root=tmp_path)


@pytest.mark.real
def test_the_five_real_tasks_give_the_same_scores_twice(tiny_model, real_data):
    folder = tiny_model()

    def score(names):
        return score_tasks(load_torch_model("candidate", "d", folder), names, root=real_data / "rumteb")

    rows = score(REAL)
    assert [row.set for row in rows] == list(REAL)
    assert all(-1 <= row.value <= 1 for row in rows)
    counts = {"RUParaPhraserSTS": 1924, "RuSTSBenchmarkSTS": 1376, "TERRa": 307}
    assert {row.set: row.count for row in rows if row.set in counts} == counts
    # tasks keep a random state: a second evaluation in one process must not see the first one's
    again = score(["SensitiveTopicsClassification"])
    assert again[0].value == rows[-1].value
