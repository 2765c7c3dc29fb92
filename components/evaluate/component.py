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
    """Score candidate, champion, base and every stage on the held-out sets.

    Args:
        config_json: This step's part of the config, as JSON; preflight makes it.
        workspace: Folder that all steps share: runs, store and checkpoints.
        run: Name of the run, a folder of the workspace.
        pretrained: The model after pretrain.
        unsupervised: The model after train_unsupervised.
        supervised: The model after train_supervised.
        candidate: The final model.
        onnx: The candidate as ONNX.
        evaluation: The held-out sets.

    Returns:
        scores: One row a model, set, dim and runtime, with intervals.
        metrics: Numbers of this step.
        summary: What the step did, for the pipelines UI.
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
