"""The pipeline component of `clean`."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Markdown, Metrics, Output

from embedline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def clean(
    config_json: str,
    workspace: str,
    run: str,
    dataset: Input[Dataset],
    evaluation: Input[Artifact],
    cleaned: Output[Dataset],
    metrics: Output[Metrics],
    summary: Output[Markdown],
):
    """Normalise, filter, remove duplicates and evaluation leaks; a funnel says what went where.

    Args:
        config_json: This step's part of the config, as JSON; preflight makes it.
        workspace: Folder that all steps share: runs, store and checkpoints.
        run: Name of the run, a folder of the workspace.
        dataset: Records and corpus as ingested.
        evaluation: Held-out sets that no training row may leak.

    Returns:
        cleaned: What is left, with the funnel and the rejected rows.
        metrics: Numbers of this step.
        summary: What the step did, for the pipelines UI.
    """
    from embedline.execution.kfp_component import run_component

    run_component(
        "clean",
        config_json,
        workspace,
        run,
        inputs={"dataset": dataset, "evaluation": evaluation},
        outputs={"dataset": cleaned},
        metrics=metrics,
        summary=summary,
    )
