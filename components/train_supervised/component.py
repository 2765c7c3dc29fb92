"""The pipeline component of `train_supervised`."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Markdown, Metrics, Model, Output

from embedline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_supervised(
    config_json: str,
    workspace: str,
    run: str,
    model: Input[Model],
    triplets: Input[Dataset],
    trained: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
    curves: Output[HTML],
):
    """Stage three: triplets with instructions, Matryoshka, several heads.

    Args:
        config_json: This step's part of the config, as JSON; preflight makes it.
        workspace: Folder that all steps share: runs, store and checkpoints.
        run: Name of the run, a folder of the workspace.
        model: The model of stage two.
        triplets: Records with hard negatives.

    Returns:
        trained: The model after this stage.
        metrics: Numbers of this step.
        summary: What the step did, for the pipelines UI.
        curves: The course of the training, for the pipelines UI.
    """
    from embedline.orchestration.train_job import run_training

    run_training(
        "train_supervised",
        config_json,
        workspace,
        run,
        inputs={"model": model, "triplets": triplets},
        outputs={"model": trained},
        metrics=metrics,
        summary=summary,
        curves=curves,
    )
