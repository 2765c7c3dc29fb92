"""The pipeline component of `evaluate`."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Markdown, Metrics, Model, Output

from embedline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    config_json: str,
    workspace: str,
    run: str,
    pretrained: Input[Model],
    unsupervised: Input[Model],
    supervised: Input[Model],
    candidate: Input[Model],
    onnx: Input[Model],
    evaluation: Input[Artifact],
    scores: Output[Artifact],
    metrics: Output[Metrics],
    summary: Output[Markdown],
):
    """Score candidate, champion, base and the model of every stage on the evaluation sets.

    Args:
        config_json: Settings and pins of this step as JSON, or their file, made by preflight.
        workspace: Folder shared by all steps: runs, store and checkpoints.
        run: Name of the run and of its folder in the workspace.
        pretrained: Model after pretrain.
        unsupervised: Model after train_unsupervised.
        supervised: Model after train_supervised.
        candidate: Final model of the run.
        onnx: Candidate as ONNX.
        evaluation: Evaluation sets.

    Returns:
        scores: One row for each model, set, dim, head and runtime, with confidence interval.
        metrics: Metrics of this step.
        summary: Result of this step as Markdown, for the pipelines UI.
    """
    from embedline.execution.kfp_component import run_component

    run_component(
        "evaluate",
        config_json,
        workspace,
        run,
        inputs={
            "pretrained": pretrained,
            "unsupervised": unsupervised,
            "supervised": supervised,
            "candidate": candidate,
            "onnx": onnx,
            "evaluation": evaluation,
        },
        outputs={"scores": scores},
        metrics=metrics,
        summary=summary,
    )
