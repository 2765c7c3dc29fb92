"""The pipeline component of `preflight`."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Markdown, Output

from embedline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def preflight(
    preset: str,
    overrides: str,
    workspace: str,
    run_name: str,
    job_id: str,
    seed: int,
    data_root: str,
    base_model: str,
    pretrain_steps: int,
    unsupervised_steps: int,
    supervised_steps: int,
    gate_mode: str,
    promotion: str,
    experiment: str,
    summary: Output[Markdown],
) -> NamedTuple(
    "StepConfigs",
    [
        ("run", str),
        ("ingest", str),
        ("clean", str),
        ("prune_before", str),
        ("pretrain", str),
        ("train_unsupervised", str),
        ("mine", str),
        ("train_supervised", str),
        ("prune_after", str),
        ("export", str),
        ("evaluate", str),
        ("gate", str),
        ("promote", str),
        ("report", str),
    ],
):
    """Validate the run, pin everything outside it that it depends on, and print the plan.

    Args:
        preset: A shipped preset's name, or the path of a preset file.
        overrides: Changes to the preset, one section.key=value a line, or a JSON list.
        workspace: Folder shared by all steps: runs, store and checkpoints.
        run_name: Name of the run; the pipeline job's id when empty.
        job_id: Id of the pipeline job.
        seed: Seed of all random choices; -1 for the preset's.
        data_root: Folder or address that the preset's data paths start from; empty for the preset's.
        base_model: Model to start from; empty for the preset's.
        pretrain_steps: Steps of pretraining; 0 for the preset's.
        unsupervised_steps: Steps of training on pairs; 0 for the preset's.
        supervised_steps: Steps of training on triplets; 0 for the preset's.
        gate_mode: One of enforce, dry_run, off; empty for the preset's.
        promotion: Either auto or manual; empty for the preset's.
        experiment: Experiment of the tracking server; empty for the preset's.

    Returns:
        summary: Plan as Markdown, for the pipelines UI.
        run: Name of the run.
        ingest: Settings and pins of ingest, as JSON.
        clean: Settings and pins of clean, as JSON.
        prune_before: Settings and pins of prune_before, as JSON.
        pretrain: Settings and pins of pretrain, as JSON.
        train_unsupervised: Settings and pins of train_unsupervised, as JSON.
        mine: Settings and pins of mine, as JSON.
        train_supervised: Settings and pins of train_supervised, as JSON.
        prune_after: Settings and pins of prune_after, as JSON.
        export: Settings and pins of export, as JSON.
        evaluate: Settings and pins of evaluate, as JSON.
        gate: Settings and pins of gate, as JSON.
        promote: Settings and pins of promote, as JSON.
        report: Settings and pins of report, as JSON.
    """
    from embedline.planning.preflight_component import run_preflight

    inputs = {
        "seed": seed,
        "data_root": data_root,
        "base_model": base_model,
        "pretrain_steps": pretrain_steps,
        "unsupervised_steps": unsupervised_steps,
        "supervised_steps": supervised_steps,
        "gate_mode": gate_mode,
        "promotion": promotion,
        "experiment": experiment,
    }
    return run_preflight(preset, overrides, workspace, run_name, job_id, summary, inputs)
