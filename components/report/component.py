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
    """Write one HTML report from the artefacts of all steps.

    Args:
        config_json: Settings and pins of this step as JSON, or their file, made by preflight.
        workspace: Folder shared by all steps: runs, store and checkpoints.
        run: Name of the run and of its folder in the workspace.
        dataset: Clean dataset, for the counts by cleaning rule.
        triplets: Triplets, for the figures of mining.
        onnx: ONNX models, for parity and latency.
        scores: Score rows, for the tables of scores.
        verdict: Decision of the gate.
        promotion: Registered version and the aliases.

    Returns:
        report: Folder with report.html.
        page: Report as HTML, for the pipelines UI.
        metrics: Metrics of this step.
        summary: Result of this step as Markdown, for the pipelines UI.
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
