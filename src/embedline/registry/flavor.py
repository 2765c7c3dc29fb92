"""Files that MLflow's own loaders need in a model folder.

With them `mlflow.pyfunc.load_model("models:/NAME@champion")` and `mlflow models serve` load the model with
all its heads. The code that does is a copy in the folder: a server needs no Embedline.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import metadata, requires
from importlib.resources import files
from pathlib import Path

import yaml
from packaging.requirements import Requirement

MLMODEL, REQUIREMENTS = "MLmodel", "requirements.txt"
CODE = "code"
_PACKAGES = ("mlflow", "sentence-transformers", "torch", "transformers")


def add_flavor(folder: Path) -> None:
    """Write MLmodel, the loader's code and requirements.txt; a folder with an MLmodel keeps its own.

    MLflow's own files hold a time and an id. These do not: a model registered twice is one version.
    """
    if (folder / MLMODEL).exists():
        return
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
    from numpy import dtype

    parameters = [
        ParamSpec("heads", "string", ["dense"], shape=(-1,)),
        ParamSpec("side", "string", None),
        ParamSpec("prompt_name", "string", None),
        ParamSpec("truncate_dim", "long", None),
    ]
    signature = ModelSignature(
        inputs=Schema([ColSpec("string")]),
        outputs=Schema([TensorSpec(dtype("float32"), (-1, -1))]),  # of the dense head, the default
        params=ParamSchema(parameters),
    )
    python = metadata("embedline")["Requires-Python"].removeprefix(">=")
    loader = {
        "loader_module": _write_code(folder / CODE),
        "code": CODE,
        "data": ".",
        "python_version": python,
    }
    described = {"flavors": {"python_function": loader}, "signature": signature.to_dict()}
    (folder / MLMODEL).write_text(yaml.safe_dump(described), encoding="utf-8")
    if not (folder / REQUIREMENTS).exists():
        (folder / REQUIREMENTS).write_text("\n".join(_requirements()) + "\n", encoding="utf-8")


def _write_code(folder: Path) -> str:
    """Copy the loader; return its name, which has a digest: one process may load models of two versions."""
    source = files("embedline") / "models"
    texts = {
        "__init__.py": (source / "pyfunc_loader.py").read_text(encoding="utf-8"),
        "heads.py": (source / "heads.py").read_text(encoding="utf-8"),
    }
    name = f"embedline_pyfunc_{hashlib.sha256(''.join(texts.values()).encode()).hexdigest()[:8]}"
    (folder / name).mkdir(parents=True)
    for file, text in texts.items():
        (folder / name / file).write_text(text, encoding="utf-8")
    return name


def _requirements() -> list[str]:
    """Return embedline's version bounds for the packages that load the folder: the same on every machine."""
    requirements = (Requirement(text) for text in requires("embedline") or [])
    return sorted(str(each) for each in requirements if each.name in _PACKAGES and each.marker is None)
