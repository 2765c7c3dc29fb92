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
    """Normalise and filter the records, remove duplicates and evaluation leaks, count what each rule removed.

    Args:
        config_json: Settings and pins of this step as JSON, or their file, made by preflight.
        workspace: Folder shared by all steps: runs, store and checkpoints.
        run: Name of the run and of its folder in the workspace.
        dataset: Records and passages from ingest.
        evaluation: Evaluation sets; their texts must not be trained on.

    Returns:
        cleaned: Clean records and passages, the rejected rows, and the counts by rule.
        metrics: Metrics of this step.
        summary: Result of this step as Markdown, for the pipelines UI.
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
