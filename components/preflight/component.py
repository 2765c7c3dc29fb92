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
    summary: Output[Markdown],
) -> NamedTuple(
    "Slices",
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
    """Validate the whole run, pin every outside thing and print the plan, before anything is spent.

    Args:
        preset: A shipped preset's name, or the path of a preset file.
        overrides: Changes to the preset, one section.key=value a line, or a JSON list.
        workspace: Folder that all steps share: runs, store and checkpoints.
        run_name: Name of the run; the pipeline job's id when empty.
        job_id: Id of the pipeline job.

    Returns:
        summary: The plan, for the pipelines UI.
        run: Name of the run.
        ingest: Config slice of ingest, as JSON.
        clean: Config slice of clean, as JSON.
        prune_before: Config slice of prune_before, as JSON.
        pretrain: Config slice of pretrain, as JSON.
        train_unsupervised: Config slice of train_unsupervised, as JSON.
        mine: Config slice of mine, as JSON.
        train_supervised: Config slice of train_supervised, as JSON.
        prune_after: Config slice of prune_after, as JSON.
        export: Config slice of export, as JSON.
        evaluate: Config slice of evaluate, as JSON.
        gate: Config slice of gate, as JSON.
        promote: Config slice of promote, as JSON.
        report: Config slice of report, as JSON.
    """
    from embedline.steps.component import run_preflight

    plan = run_preflight(preset, overrides, workspace, run_name, job_id, summary)
    return (plan.run, *plan.slices.values())
