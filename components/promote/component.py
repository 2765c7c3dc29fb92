"""The pipeline component of `promote`."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Markdown, Metrics, Model, Output

from embedline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def promote(
    config_json: str,
    workspace: str,
    run: str,
    verdict: Input[Artifact],
    scores: Input[Artifact],
    candidate: Input[Model],
    onnx: Input[Model],
    promotion: Output[Artifact],
    metrics: Output[Metrics],
    summary: Output[Markdown],
):
    """Register the candidate with its verdict; move the alias when the gate passed and the policy allows it.

    Args:
        config_json: Settings and pins of this step as JSON, or their file, made by preflight.
        workspace: Folder shared by all steps: runs, store and checkpoints.
        run: Name of the run and of its folder in the workspace.
        verdict: Decision of the gate.
        scores: Score rows, for the version's tags.
        candidate: Final model of the run.
        onnx: Candidate as ONNX.

    Returns:
        promotion: Registered version and the aliases, in promotion.json.
        metrics: Metrics of this step.
        summary: Result of this step as Markdown, for the pipelines UI.
    """
    from embedline.execution.kfp_component import run_component

    run_component(
        "promote",
        config_json,
        workspace,
        run,
        inputs={"verdict": verdict, "scores": scores, "candidate": candidate, "onnx": onnx},
        outputs={"promotion": promotion},
        metrics=metrics,
        summary=summary,
    )
