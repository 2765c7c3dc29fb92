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
    """Decide whether the candidate may become champion, with reasons.

    Args:
        config_json: This step's part of the config, as JSON; preflight makes it.
        workspace: Folder that all steps share: runs, store and checkpoints.
        run: Name of the run, a folder of the workspace.
        scores: The score rows.
        onnx: For its parity.
        candidate: The final model.

    Returns:
        verdict: Verdict.json: passed or refused, and why.
        metrics: Numbers of this step.
        summary: What the step did, for the pipelines UI.
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
