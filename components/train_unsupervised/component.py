"""The pipeline component of `train_unsupervised`."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Markdown, Metrics, Model, Output

from embedline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_unsupervised(
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
    """Train stage two on weak pairs: InfoNCE, GradCache, single-source batches.

    Args:
        config_json: Settings and pins of this step as JSON, or their file, made by preflight.
        workspace: Folder shared by all steps: runs, store and checkpoints.
        run: Name of the run and of its folder in the workspace.
        model: Pretrained model.
        dataset: Clean records and passages.

    Returns:
        trained: Model after this stage.
        metrics: Metrics of this step.
        summary: Result of this step as Markdown, for the pipelines UI.
        curves: Training curves as HTML, for the pipelines UI.
    """
    from embedline.orchestration.train_job import run_training

    run_training(
        "train_unsupervised",
        config_json,
        workspace,
        run,
        inputs={"model": model, "dataset": dataset},
        outputs={"model": trained},
        metrics=metrics,
        summary=summary,
        curves=curves,
    )
