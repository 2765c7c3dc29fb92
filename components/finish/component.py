"""The pipeline component of `finish`."""

from kfp import dsl
from kfp.dsl import PipelineTaskFinalStatus

from embedline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def finish(preset: str, workspace: str, run_name: str, job_id: str, status: PipelineTaskFinalStatus):
    """Close the run with its true status, also after a failure (exit handler).

    Args:
        preset: Preset of the run.
        workspace: Folder shared by all steps: runs, store and checkpoints.
        run_name: Name of the run; the pipeline job's id when empty.
        job_id: Id of the pipeline job.
        status: Final status of the steps, filled in by the pipeline engine.
    """
    from embedline.runs.finish import run_finish

    run_finish(workspace, run_name, job_id, preset, status.state, status.error_message)
