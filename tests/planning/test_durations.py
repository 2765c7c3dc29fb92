"""Minutes of a run on this machine: worked by hand from speeds that the tests give."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from embedline.artifacts.workspace import Workspace
from embedline.config.load import load_config, validate_config
from embedline.config.schema import RunConfig
from embedline.models import speed
from embedline.models.layer_work import LayerWork, training_work
from embedline.models.speed import Speed
from embedline.planning import durations
from embedline.planning.cost_table import minutes
from embedline.planning.durations import step_seconds
from embedline.planning.model_size import backbone_sizes
from embedline.planning.pins import Pinned
from embedline.planning.plan import Plan, PlannedStep, predict_steps
from embedline.planning.step_configs import make_step_configs
from embedline.planning.text_lengths import Texts, corpus_texts, stage_texts

SETTINGS = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
PLENTY = 1e12  # bytes: GradCache encodes nothing twice
TRAINED, ENCODED = 1e-3, 4e-4  # seconds of a token in a layer


@pytest.fixture(autouse=True)
def a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose bf16 takes half of the time of fp32, without constants beside the measured ones."""

    def measured(work: LayerWork, *_: Any) -> Speed:
        seconds = (TRAINED if work.training else ENCODED) * work.tokens
        return Speed(work, 2 * seconds, seconds)

    monkeypatch.setattr(speed, "measured_speed", measured)
    monkeypatch.setattr(durations, "faster_precision", lambda *_: (True, ""))
    for name in ("_LOADING_S", "_CHANGE_S", "_UPDATE_S"):
        monkeypatch.setattr(durations, name, 0.0)
    monkeypatch.setattr(durations, "_OVERHEAD", 1.0)


@pytest.fixture
def config(tmp_path: Path) -> Any:
    """Make a config whose queries have 6 tokens and documents 12, by the characters of a token."""
    rows = [{"query": "q" * 18, "pos": ["d" * 45]}] * 100
    with gzip.open(tmp_path / "pairs.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)

    def make(**changes: Any) -> RunConfig:
        values: dict[str, Any] = {
            "name": "tiny",
            "data": {"sources": [{"path": "pairs.jsonl.gz"}]},
            "model": {
                "architecture": "llama",
                "settings": SETTINGS,
                "vocabulary": 128,
                "query_length": 16,
                "document_length": 16,
            },
            "pretrain": {"enabled": False},
            "unsupervised": {"enabled": False},
            "supervised": {"steps": 3, "batch": 4, "negatives": 1, "batch_tokens": 64},
            "mine": {"enabled": False},
            "prune": {"when": "never"},
            "runtime": {"precision": "auto"},
        }
        for section, more in changes.items():
            values[section] = {**values.get(section, {}), **more}
        return validate_config(values, where="test")

    return make


def test_texts_are_sampled_and_cut_where_their_stage_cuts_them(config: Any, tmp_path: Path) -> None:
    assert stage_texts(config(), tmp_path, "supervised", 16) == Texts(100, 6.0, 12.0)
    assert stage_texts(config(), tmp_path, "supervised", 8) == Texts(100, 6.0, 8.0)
    assert corpus_texts(config(), tmp_path, 16) == Texts(0, 0.0, 0.0)


def test_a_training_takes_its_tokens_times_layers_times_the_measured_time(
    config: Any, tmp_path: Path
) -> None:
    found = step_seconds(config(), tmp_path, None, PLENTY)
    tokens = 4 * (6 + 2 * 12)
    assert found["train_supervised"] == pytest.approx(3 * tokens * 2 * TRAINED)
    found = step_seconds(config(supervised={"resident_tokens": 0}), tmp_path, None, PLENTY)
    assert found["train_supervised"] == pytest.approx(3 * tokens * 2 * (TRAINED + ENCODED)), (
        "all encoded twice"
    )


def test_the_precision_that_is_set_is_counted(config: Any, tmp_path: Path) -> None:
    auto = step_seconds(config(), tmp_path, None, PLENTY)["train_supervised"]
    fp32 = step_seconds(config(runtime={"precision": "fp32"}), tmp_path, None, PLENTY)["train_supervised"]
    assert fp32 == pytest.approx(2 * auto)


def test_pruning_counts_the_teachers_forward_pass(config: Any, tmp_path: Path) -> None:
    prune = {"when": "after", "drop_share": 0.5, "heal_steps": 10, "heal_batch": 4}
    found = step_seconds(config(prune=prune), tmp_path, None, PLENTY)
    assert found["prune_after"] == pytest.approx(10 * 4 * 16 * (1 * TRAINED + 2 * ENCODED))


def test_pretraining_counts_the_decoder_and_the_predicted_tokens(config: Any, tmp_path: Path) -> None:
    pretrain = {"enabled": True, "steps": 5, "batch": 4, "length": 16, "encoder_mask": 0.5}
    mlm = step_seconds(config(pretrain={**pretrain, "objective": "mlm"}), tmp_path, None, PLENTY)["pretrain"]
    shapes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
    work = training_work(shapes, tokens=64, length=16)
    products = 6 * 0.5 * 64 * 8 * 128 * TRAINED * work.tokens / work.operations
    assert mlm == pytest.approx(5 * (64 * 2 * TRAINED + products))
    retromae = step_seconds(config(pretrain=pretrain), tmp_path, None, PLENTY)["pretrain"]
    assert retromae > mlm + 5 * 64 * TRAINED


def test_mining_encodes_the_supervised_texts(config: Any, tmp_path: Path) -> None:
    found = step_seconds(config(mine={"enabled": True}), tmp_path, None, PLENTY)
    assert found["mine"] == pytest.approx(100 * 18 * 2 * ENCODED, rel=0.1)


def test_evaluation_counts_the_base_and_the_first_champion(config: Any, tmp_path: Path) -> None:
    (tmp_path / "faq").mkdir()
    for name in ("corpus", "queries"):
        row = {"_id": "1", "text": "d" * 45}
        (tmp_path / "faq" / f"{name}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (tmp_path / "faq" / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n1\t1\t1\n", encoding="utf-8")
    sets = {"data": {"sources": [{"path": "pairs.jsonl.gz"}], "evaluation": [{"path": "faq"}]}}
    alone = config(**sets, evaluate={"stage_sets": ["faq"]})
    model = {**alone.model.model_dump(), "base": "a"}
    by_others = [
        config(
            **sets, evaluate={"stage_sets": ["faq"], **scored}, model=model, promote={"first_champion": first}
        )
        for first, scored in (("a", {}), ("b", {}), ("b", {"score_base": False, "score_champion": False}))
    ]
    sizes = backbone_sizes(alone.model, None)
    assert sizes is not None
    candidate, *others = (durations._evaluation(each, sizes, sizes, tmp_path) for each in (alone, *by_others))
    added = candidate / 3  # candidate, before and after its stage
    assert others == pytest.approx([candidate + added, candidate + 2 * added, candidate])


def test_a_model_of_unknown_sizes_has_no_times(config: Any, tmp_path: Path) -> None:
    experts = config(model={"settings": {**SETTINGS, "num_experts": 4}})
    assert step_seconds(experts, tmp_path, None, PLENTY) == {}


def test_every_step_of_the_demo_that_works_long_is_counted(tmp_path: Path) -> None:
    found = step_seconds(load_config("demo"), tmp_path, None, PLENTY)
    assert set(found) == {
        *("ingest", "clean", "pretrain", "train_unsupervised", "mine", "train_supervised", "prune_after"),
        *("export", "evaluate"),
    }


def test_the_plan_adds_up_the_steps_that_run() -> None:
    steps = [
        PlannedStep("ingest", "cached", "k", 90.0),
        PlannedStep("train_supervised", "runs", None, 2200.0),
    ]
    steps += [PlannedStep("evaluate", "acts", None, 80.0), PlannedStep("report", "runs", None, None)]
    plan = Plan("r", "p", "n", {}, {}, {}, steps, [])
    assert "about 38 minutes here, 1 steps not counted" in plan.table()
    assert "about 37 minutes" in plan.table().splitlines()[1]


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.4, "4 s"), (119, "119 s"), (2280, "38 minutes"), (18720, "5.2 hours")]
)
def test_durations_are_written_as_people_say_them(seconds: float, text: str) -> None:
    assert minutes(seconds) == text


def test_the_last_time_is_taken_for_steps_that_do_not_train(tmp_path: Path) -> None:
    steps = [
        {"step": name, "status": "done", "cache_hit": False, "seconds": 7.0}
        for name in ("clean", "train_supervised")
    ]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"preset": "demo", "steps": steps}))
    pins = dict.fromkeys(("sources", "evaluation", "base", "teacher", "champion", "mteb"))
    configs = make_step_configs(load_config("demo"), Pinned(pins, {}))
    found = predict_steps(Workspace(tmp_path), "demo", configs, {"clean": 5.0, "train_supervised": 9.0})
    seconds = {step.step: step.seconds for step in found}
    assert (seconds["clean"], seconds["train_supervised"], seconds["mine"]) == (7.0, 9.0, None)
