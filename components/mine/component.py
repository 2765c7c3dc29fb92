"""The pipeline component of `mine`."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Metrics, Model, Output

from embedline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def mine(
    config_json: str,
    workspace: str,
    run: str,
    model: Input[Model],
    dataset: Input[Dataset],
    triplets: Output[Dataset],
    metrics: Output[Metrics],
    summary: Output[Markdown],
):
    """Choose hard negatives by the current model and by BM25, below a margin of the positive's score.

    Args:
        config_json: Settings and pins of this step as JSON, or their file, made by preflight.
        workspace: Folder shared by all steps: runs, store and checkpoints.
        run: Name of the run and of its folder in the workspace.
        model: Model that embeds queries and candidates.
        dataset: Clean records and passages.

    Returns:
        triplets: Records with negatives; strategy, rank and score of each negative.
        metrics: Metrics of this step.
        summary: Result of this step as Markdown, for the pipelines UI.
    """
    from embedline.execution.kfp_component import run_component

    run_component(
        "mine",
        config_json,
        workspace,
        run,
        inputs={"model": model, "dataset": dataset},
        outputs={"triplets": triplets},
        metrics=metrics,
        summary=summary,
    )
