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
    """Export the candidate to ONNX in fp32 and int8, and measure its parity with torch.

    An int8 vector depends on the other texts of its batch, unless each is run alone (export.int8_scales).

    Args:
        config_json: Settings and pins of this step as JSON, or their file, made by preflight.
        workspace: Folder shared by all steps: runs, store and checkpoints.
        run: Name of the run and of its folder in the workspace.
        model: Candidate.
        evaluation: Evaluation sets; parity is measured on their texts.

    Returns:
        onnx: ONNX models, tokenizer, parity.json and README.md.
        metrics: Metrics of this step.
        summary: Result of this step as Markdown, for the pipelines UI.
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
