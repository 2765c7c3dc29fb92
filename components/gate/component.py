"""The pipeline component of `gate`."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Markdown, Metrics, Model, Output

from embedline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def gate(
    config_json: str,
    workspace: str,
    run: str,
    scores: Input[Artifact],
    onnx: Input[Model],
    candidate: Input[Model],
    verdict: Output[Artifact],
    metrics: Output[Metrics],
    summary: Output[Markdown],
):
    """Decide, with reasons, whether the candidate may become champion.

    Args:
        config_json: Settings and pins of this step as JSON, or their file, made by preflight.
        workspace: Folder shared by all steps: runs, store and checkpoints.
        run: Name of the run and of its folder in the workspace.
        scores: Score rows.
        onnx: ONNX models, for their parity.
        candidate: Final model of the run, for its digest.

    Returns:
        verdict: Decision with reasons, in verdict.json.
        metrics: Metrics of this step.
        summary: Result of this step as Markdown, for the pipelines UI.
    """
    from embedline.execution.kfp_component import run_component

    run_component(
        "gate",
        config_json,
        workspace,
        run,
        inputs={"scores": scores, "onnx": onnx, "candidate": candidate},
        outputs={"verdict": verdict},
        metrics=metrics,
        summary=summary,
    )
