"""The pipeline component of `export`."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Markdown, Metrics, Model, Output

from embedline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def export(
    config_json: str,
    workspace: str,
    run: str,
    model: Input[Model],
    evaluation: Input[Artifact],
    onnx: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
):
    """Write ONNX fp32 and int8 with a measured parity.

    Args:
        config_json: This step's part of the config, as JSON; preflight makes it.
        workspace: Folder that all steps share: runs, store and checkpoints.
        run: Name of the run, a folder of the workspace.
        model: The candidate.
        evaluation: Texts to compare on.

    Returns:
        onnx: The exported models, the tokenizer and parity.json.
        metrics: Numbers of this step.
        summary: What the step did, for the pipelines UI.
    """
    from embedline.execution.kfp_component import run_component

    run_component(
        "export",
        config_json,
        workspace,
        run,
        inputs={"model": model, "evaluation": evaluation},
        outputs={"onnx": onnx},
        metrics=metrics,
        summary=summary,
    )
