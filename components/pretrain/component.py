"""The pipeline component of `pretrain`."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Markdown, Metrics, Model, Output

from embedline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def pretrain(
    config_json: str,
    workspace: str,
    run: str,
    model: Input[Model],
    dataset: Input[Dataset],
    trained: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
    curves: Output[HTML],
):
    """Train a tokenizer when starting from scratch, and pretrain the encoder on passages.

    Args:
        config_json: Settings and pins of this step as JSON, or their file, made by preflight.
        workspace: Folder shared by all steps: runs, store and checkpoints.
        run: Name of the run and of its folder in the workspace.
        model: Base, pruned or not; empty when starting from scratch.
        dataset: Clean records and passages.

    Returns:
        trained: Pretrained model.
        metrics: Metrics of this step.
        summary: Result of this step as Markdown, for the pipelines UI.
        curves: Training curves as HTML, for the pipelines UI.
    """
    from embedline.orchestration.train_job import run_training

    run_training(
        "pretrain",
        config_json,
        workspace,
        run,
        inputs={"model": model, "dataset": dataset},
        outputs={"model": trained},
        metrics=metrics,
        summary=summary,
        curves=curves,
    )
