"""The pipeline component of `prune`."""

from typing import Optional

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Markdown, Metrics, Model, Output

from embedline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def prune(
    config_json: str,
    workspace: str,
    run: str,
    step: str,
    dataset: Input[Dataset],
    pruned: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
    curves: Output[HTML],
    model: Optional[Input[Model]] = None,  # noqa: UP045  kfp knows only this spelling
):
    """Drop a share of the layers before or after training, and heal.

    Args:
        config_json: This step's part of the config, as JSON; preflight makes it.
        workspace: Folder that all steps share: runs, store and checkpoints.
        run: Name of the run, a folder of the workspace.
        step: Either prune_before or prune_after.
        dataset: Clean records, to measure and to heal on.
        model: The trained model (prune_after only).

    Returns:
        pruned: The smaller model, or the same one when pruning is off.
        metrics: Numbers of this step.
        summary: What the step did, for the pipelines UI.
        curves: The course of the training, for the pipelines UI.
    """
    from embedline.execution.kfp_component import run_component

    run_component(
        step,
        config_json,
        workspace,
        run,
        inputs={"dataset": dataset} if model is None else {"model": model, "dataset": dataset},
        outputs={"model": pruned},
        metrics=metrics,
        summary=summary,
        curves=curves,
    )
