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
    """Read the sources into records, corpus and evaluation sets.

    Args:
        config_json: This step's part of the config, as JSON; preflight makes it.
        workspace: Folder that all steps share: runs, store and checkpoints.
        run: Name of the run, a folder of the workspace.

    Returns:
        dataset: Records and corpus, as Parquet.
        evaluation: The held-out sets.
        metrics: Numbers of this step.
        summary: What the step did, for the pipelines UI.
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
