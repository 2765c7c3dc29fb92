"""The pipeline component of `report`."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Markdown, Metrics, Model, Output

from embedline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def report(
    config_json: str,
    workspace: str,
    run: str,
    dataset: Input[Dataset],
    triplets: Input[Dataset],
    onnx: Input[Model],
    scores: Input[Artifact],
    verdict: Input[Artifact],
    promotion: Input[Artifact],
    report: Output[Artifact],
    page: Output[HTML],
    metrics: Output[Metrics],
    summary: Output[Markdown],
):
    """Write one HTML file from all artefacts.

    Args:
        config_json: This step's part of the config, as JSON; preflight makes it.
        workspace: Folder that all steps share: runs, store and checkpoints.
        run: Name of the run, a folder of the workspace.
        dataset: For the funnel.
        triplets: For the mining figures.
        onnx: For parity and latency.
        scores: For the tables of scores.
        verdict: For the decision.
        promotion: For the version.

    Returns:
        report: The folder with report.html.
        page: The report itself, for the pipelines UI.
        metrics: Numbers of this step.
        summary: What the step did, for the pipelines UI.
    """
    from embedline.execution.kfp_component import run_component

    run_component(
        "report",
        config_json,
        workspace,
        run,
        inputs={
            "dataset": dataset,
            "triplets": triplets,
            "onnx": onnx,
            "scores": scores,
            "verdict": verdict,
            "promotion": promotion,
        },
        outputs={"report": report},
        metrics=metrics,
        summary=summary,
        page=page,
    )
