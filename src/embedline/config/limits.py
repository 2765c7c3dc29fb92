"""The sizes of texts that are handed on, and the limits of other programs that they keep.

| limit | of whom |
|---|---|
| 131,072 bytes | Linux: one argument or environment variable. kfp passes all inputs of a task in one argument, on a cluster also Argo passes a task's template in one variable |
| 65,535 bytes | Kubeflow Pipelines on MySQL, older servers: the column with the inputs of a run |
| 262,144 bytes | Kubernetes: all annotations of an object |
| 1.5 MB | etcd: one request; Argo keeps a workflow below 1 MB |
| 100,000 characters | MLflow: one tag of a registered version |

Larger things are handed on as files in the workspace. The largest run that is tested has 2,000 sources and
2,000 evaluation sets.
"""  # noqa: E501 (a table)

from __future__ import annotations

import json
from collections.abc import Sequence

from embedline.errors import InputError

STEP_CONFIG = 20_000  # argument bytes of a step's config; a larger one is handed on as a file
PRESET = 20_000  # argument bytes of a preset's text; a larger one is compressed
RUN_INPUTS = 60_000  # argument bytes of a run's preset and overrides
METADATA = 4_000  # argument bytes of an artefact's counts, which its readers get as inputs
PIPELINE = 700_000  # bytes of a compiled pipeline
VERSION_TAG = 100_000  # characters

_TIMES_QUOTED = 3  # kfp's executor input, in the patch of the pod's specification, in Argo's template


def argument_bytes(text: str) -> int:
    """Return the bytes of a text that is written as JSON in JSON in JSON, as kfp and Argo pass it.

    >>> argument_bytes('a"b')
    17
    """
    for _ in range(_TIMES_QUOTED):
        text = json.dumps(text)
    return len(text)


def check_run_inputs(preset: str, overrides: Sequence[str]) -> None:
    """Refuse inputs of a run that one argument cannot hold.

    Args:
        preset: as the pipeline's input: a name, a path, or the text that `preset_text` makes.

    Raises:
        InputError: naming the larger of the two.
    """
    sizes = {"preset": argument_bytes(preset), "overrides": argument_bytes("\n".join(overrides))}
    if (total := sum(sizes.values())) <= RUN_INPUTS:
        return
    larger = max(sizes, key=lambda name: sizes[name])
    fixes = {
        "preset": "Put the preset file on the workspace's volume, and start the run in the pipelines UI with "
        "the file's path there as preset.",
        "overrides": "Write them into a preset file that extends this preset.",
    }
    raise InputError(
        f"the run's inputs have {total:,} bytes as arguments (preset {sizes['preset']:,}, overrides "
        f"{sizes['overrides']:,}); a run can be given {RUN_INPUTS:,}.",
        where=larger,
        fix=fixes[larger],
    )


def check_pipeline(text: str) -> None:
    """Refuse a compiled pipeline whose workflow the cluster could not store.

    Raises:
        InputError: it is too large.
    """
    if (size := len(text.encode())) > PIPELINE:
        raise InputError(
            f"the compiled pipeline has {size:,} bytes; a cluster stores {PIPELINE:,}.",
            where="cluster",
            fix="Give the tasks fewer secrets, config maps, labels and tolerations.",
        )
