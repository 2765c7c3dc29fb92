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
    model: Optional[Input[Model]] = None,  # noqa: UP045  kfp accepts only this spelling
):
    """Drop layers before or after training, and heal the model by distillation.

    Args:
        config_json: Settings and pins of this step as JSON, or their file, made by preflight.
        workspace: Folder shared by all steps: runs, store and checkpoints.
        run: Name of the run and of its folder in the workspace.
        step: Either prune_before or prune_after.
        dataset: Clean records, for choosing the layers and healing.
        model: Trained model (prune_after only).

    Returns:
        pruned: Smaller model, or the input model when pruning is off.
        metrics: Metrics of this step.
        summary: Result of this step as Markdown, for the pipelines UI.
        curves: Training curves as HTML, for the pipelines UI.
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
