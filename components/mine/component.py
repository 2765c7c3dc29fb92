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
    """Choose hard negatives with the current model and a positive-aware margin.

    Args:
        config_json: This step's part of the config, as JSON; preflight makes it.
        workspace: Folder that all steps share: runs, store and checkpoints.
        run: Name of the run, a folder of the workspace.
        model: The model that searches.
        dataset: Clean records and corpus.

    Returns:
        triplets: Records with negatives, and how each was found.
        metrics: Numbers of this step.
        summary: What the step did, for the pipelines UI.
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
