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
    """Register the candidate with its verdict; move the alias when the gate has passed.

    Args:
        config_json: This step's part of the config, as JSON; preflight makes it.
        workspace: Folder that all steps share: runs, store and checkpoints.
        run: Name of the run, a folder of the workspace.
        verdict: The gate's decision.
        scores: The score rows, for the version's tags.
        candidate: The final model.
        onnx: The candidate as ONNX.

    Returns:
        promotion: The version and where the aliases point.
        metrics: Numbers of this step.
        summary: What the step did, for the pipelines UI.
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
