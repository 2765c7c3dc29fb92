"""What each step's key reacts to, and what it does not."""

from __future__ import annotations

from typing import Any

import pytest

from embedline.config.load import load_config
from embedline.dag import STEPS
from embedline.execution.execute import step_key
from embedline.planning.pins import Pinned
from embedline.planning.step_configs import make_step_configs
from embedline.steps.context import StepConfig

TEACHER = "teacher={model: a-teacher, filter: true}"
# Step → (overrides that change its key, overrides that do not), each on top of the demo.
KEYS: dict[str, tuple[list[str], list[str]]] = {
    "ingest": (
        [
            "data.hold_out={sources: [sts]}",
            "data.corpus.0.limit=5",
            "data.sources.0.language=en",
        ],
        ["data.sources.0.weight=3", "data.sources.0.stages=[supervised]", "seed=1", "clean.max_chars=900"],
    ),
    "clean": (
        ["clean.max_chars=900", "data.sources.0.stages=[supervised]", "fusion={queries: 50}"],
        [
            "runtime.threads=1",
            "runtime.precision=bf16",
            "data.sources.0.weight=3",
            "model.dims=[32]",
            "seed=1",
        ],
    ),
    "prune_before": (
        ["model.pooling=cls", "model.document_length=100"],
        ["model.dims=[32]", "prompts={default: {query: 'q: '}}", "prune.heal_steps=7", "runtime.threads=1"],
    ),
    "pretrain": (
        [
            "pretrain.steps=5",
            "pretrain.whole_words=true",
            "pretrain.hidden_as=bert",
            "seed=1",
            "model.pooling=cls",
            "runtime.precision=bf16",
            "data.corpus.0.weight=0.5",
        ],
        ["pretrain.log_every=3", "model.dims=[32]", "prompts={default: {query: 'q: '}}", "runtime.threads=1"],
    ),
    "train_unsupervised": (
        ["unsupervised.batch=64", "data.sources.0.weight=3", "unsupervised.prompts=true"],
        ["unsupervised.checkpoint_every=3", "supervised.steps=9", "runtime.processes=2", "mine.depth=30"],
    ),
    "mine": (
        ["mine.depth=30", "seed=1", "model.query_length=40"],
        ["model.dims=[32]", "data.sources.0.weight=3", "runtime.threads=1", "unsupervised.steps=4"],
    ),
    "train_supervised": (
        ["supervised.temperature=0.07", "supervised.matryoshka=false", "data.sources.0.weight=3"],
        ["supervised.log_every=3", "runtime.threads=1", "mine.depth=30", "export.opset=20"],
    ),
    "prune_after": (
        ["model.dims=[32]", "prompts={default: {query: 'q: '}}", "prune.when=never", "fusion={method: rrf}"],
        ["runtime.threads=1", "export.opset=20", "supervised.steps=9"],
    ),
    "export": (
        ["export.opset=20", "export.int8=false", "export.int8_scales=batch"],
        ["runtime.precision=bf16", "model.dims=[32]", "evaluate.bootstrap=10", "seed=1"],
    ),
    "evaluate": (
        [
            *("evaluate.bootstrap=10", "prompts={default: {query: 'q: '}}", "runtime.precision=bf16"),
            "fusion={method: rrf}",
        ],
        ["runtime.threads=1", "gate.mode=off", "seed=1"],
    ),
    "gate": (["gate.max_drop_vs_champion=0.2"], ["evaluate.bootstrap=10", "promote.policy=manual"]),
    "promote": (["promote.policy=manual", "promote.alias=live"], ["gate.mode=off", "seed=1"]),
    "report": (["description=other"], ["gate.mode=off", "seed=1"]),
}


def config_of(step: str, *overrides: str) -> StepConfig:
    pins = {pin: {"digest": pin} for pin in ("sources", "evaluation", "base", "teacher", "champion", "mteb")}
    configs = make_step_configs(load_config("demo", list(overrides)), Pinned(pins, {}))
    return StepConfig.model_validate_json(configs[step])


def key(step: str, *overrides: str) -> str:
    return step_key(STEPS[step], config_of(step, *overrides), {})


def test_every_step_is_listed() -> None:
    assert list(KEYS) == list(STEPS)


@pytest.mark.parametrize(("step", "override"), [(s, o) for s, (changes, _) in KEYS.items() for o in changes])
def test_a_key_changes_with_a_setting_that_the_step_reads(step: str, override: str) -> None:
    assert key(step, override) != key(step)


@pytest.mark.parametrize(("step", "override"), [(s, o) for s, (_, same) in KEYS.items() for o in same])
def test_a_key_stays_with_a_setting_that_the_step_does_not_read(step: str, override: str) -> None:
    assert key(step, override) == key(step)


@pytest.mark.parametrize("stage", ["unsupervised", "supervised"])
def test_dims_are_in_the_key_of_a_stage_that_trains_them(stage: str) -> None:
    for trained in (True, False):
        on = f"{stage}.matryoshka={str(trained).lower()}"
        changed = key(f"train_{stage}", on, "model.dims=[32]") != key(f"train_{stage}", on, "model.dims=[64]")
        assert changed is trained


def test_precision_is_in_the_key_of_clean_only_with_a_teacher_that_filters() -> None:
    assert key("clean", TEACHER) != key("clean", TEACHER, "runtime.precision=bf16")
    off = TEACHER.replace("true", "false")
    assert key("clean", off) == key("clean", off, "runtime.precision=bf16")


@pytest.mark.parametrize("step", ["prune_before", "prune_after"])
def test_which_tokens_stay_is_in_the_key_of_the_step_that_drops_them(step: str) -> None:
    for when in ("never", "before", "after"):
        vocabulary = f"prune.vocabulary.when={when}"
        base = ("model.base=b", vocabulary)
        for setting in ("min_count=2", "same_letters=false"):
            changed = key(step, *base, f"prune.vocabulary.{setting}") != key(step, *base)
            assert changed is (step == f"prune_{when}")
    prompts = "prompts={default: {query: 'q: '}}"
    assert key("prune_before", "model.base=b", "prune.vocabulary.when=before", prompts) != key(
        "prune_before", "model.base=b", "prune.vocabulary.when=before"
    )


def test_stated_pooling_and_mask_are_in_the_keys_of_the_steps_that_use_these_vectors() -> None:
    for stated in ("pooling=last", "causal=true"):
        assert key("clean", TEACHER) != key("clean", TEACHER, f"teacher.{stated}")
        base = ("model.base=b", f"model.base_{stated}")
        assert key("evaluate", *base) != key("evaluate", base[0])
        assert key("train_supervised", *base) == key("train_supervised", base[0])


def test_a_setting_that_a_step_does_not_declare_cannot_be_read() -> None:
    model: Any = config_of("pretrain").section("model", object)
    assert model.pooling
    with pytest.raises(AttributeError, match="dims"):
        _ = model.dims
    assert config_of("pretrain").section("runtime", object).threads is None  # type: ignore[attr-defined]
