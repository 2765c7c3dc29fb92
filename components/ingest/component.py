"""The pipeline component of `ingest`."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Markdown, Metrics, Output

from embedline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(
    config_json: str,
    workspace: str,
    run: str,
    dataset: Output[Dataset],
    evaluation: Output[Artifact],
    metrics: Output[Metrics],
    summary: Output[Markdown],
):
    """Read the sources into records, passages and evaluation sets.

    Args:
        config_json: Settings and pins of this step as JSON, or their file, made by preflight.
        workspace: Folder shared by all steps: runs, store and checkpoints.
        run: Name of the run and of its folder in the workspace.

    Returns:
        dataset: Records and passages as Parquet, and the malformed rows.
        evaluation: Evaluation sets.
        metrics: Metrics of this step.
        summary: Result of this step as Markdown, for the pipelines UI.
    """
    from embedline.execution.kfp_component import run_component

    run_component(
        "ingest",
        config_json,
        workspace,
        run,
        inputs={},
        outputs={"dataset": dataset, "evaluation": evaluation},
        metrics=metrics,
        summary=summary,
    )
