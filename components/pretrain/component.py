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
    """Make a tokenizer when starting from scratch, and pretrain the encoder on passages.

    Args:
        config_json: This step's part of the config, as JSON; preflight makes it.
        workspace: Folder that all steps share: runs, store and checkpoints.
        run: Name of the run, a folder of the workspace.
        model: The base, pruned or not; empty from scratch.
        dataset: Clean records and corpus.

    Returns:
        trained: The pretrained model.
        metrics: Numbers of this step.
        summary: What the step did, for the pipelines UI.
        curves: The course of the training, for the pipelines UI.
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
