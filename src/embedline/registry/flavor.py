"""Files that MLflow's own loaders need in a sentence-transformers folder.

With them `mlflow.pyfunc.load_model("models:/NAME@champion")` and `mlflow models serve` load the model.
"""

from __future__ import annotations

from importlib.metadata import metadata, requires
from pathlib import Path

import yaml
from packaging.requirements import Requirement

MLMODEL, REQUIREMENTS = "MLmodel", "requirements.txt"
_PACKAGES = ("mlflow", "sentence-transformers", "torch", "transformers")


def add_flavor(folder: Path) -> None:
    """Write MLmodel and requirements.txt; a folder with an MLmodel keeps its own.

    MLflow's own files hold a time and an id. These do not: a model registered twice is one version.
    """
    if (folder / MLMODEL).exists():
        return
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
    from numpy import dtype

    parameters = [ParamSpec("prompt_name", "string", None), ParamSpec("truncate_dim", "long", None)]
    signature = ModelSignature(
        inputs=Schema([ColSpec("string")]),
        outputs=Schema([TensorSpec(dtype("float32"), (-1, -1))]),
        params=ParamSchema(parameters),
    )
    python = metadata("embedline")["Requires-Python"].removeprefix(">=")
    loader = {"loader_module": "mlflow.sentence_transformers", "data": ".", "python_version": python}
    described = {"flavors": {"python_function": loader}, "signature": signature.to_dict()}
    (folder / MLMODEL).write_text(yaml.safe_dump(described), encoding="utf-8")
    if not (folder / REQUIREMENTS).exists():
        (folder / REQUIREMENTS).write_text("\n".join(_requirements()) + "\n", encoding="utf-8")


def _requirements() -> list[str]:
    """Return embedline's version bounds for the packages that load the folder: the same on every machine."""
    requirements = (Requirement(text) for text in requires("embedline") or [])
    return sorted(str(each) for each in requirements if each.name in _PACKAGES and each.marker is None)
