"""What a task of the line asks of the pipeline engine: caching, retries, resources."""

from kfp.dsl.pipeline_task import PipelineTask


def plain(task: PipelineTask) -> PipelineTask:
    """A quick step.

    Caching is off in the engine: its key knows the image but neither the outside things nor the store. The
    store's manifests are the truth; a step looks its key up there and is done in a second on a hit.
    """
    return task.set_caching_options(enable_caching=False)


def reaching(task: PipelineTask) -> PipelineTask:
    """A step that talks to the outside. What cannot succeed by trying again refuses its retry at once."""
    plain(task)
    return task.set_retry(
        num_retries=2, backoff_duration="2s", backoff_factor=2.0, backoff_max_duration="60s"
    )


def computing(task: PipelineTask) -> PipelineTask:
    """A step that works for long: started again from its checkpoint when its machine goes away."""
    return reaching(task).set_cpu_request("2").set_memory_request("4G").set_memory_limit("16G")
