"""Third-party models: from a reference in the configuration to a local folder with a digest to pin it by."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from embedline.artifacts.durable import put_in_place
from embedline.artifacts.manifest import file_sha256, folder_digest, require_intact
from embedline.errors import InputError, os_reason
from embedline.models.model_files import PICKLED, has_safetensors, read_config
from embedline.models.st_modules import list_modules, transformer_folder
from embedline.quoting import home_expanded

_SMALL = ["*.json", "*.txt", "*.model", "*.jinja", "README.md", "*.py"]  # code runs only if it is trusted
_FILES = [*_SMALL, "*.safetensors"]
_HEADS = ["sparse_linear.pt", "colbert_linear.pt"]  # BGE-M3's
_SHA256 = re.compile("[0-9a-f]{64}")
_PICKLED = [PICKLED, "pytorch_model-*.bin"]  # of models without safetensors
_OTHER_FORMS = ["onnx/*", "openvino/*", "coreml/*"]  # of the same model


@dataclass(frozen=True)
class ResolvedModel:
    """A model found for a reference: its revision, its folder and the digest of its content."""

    reference: str
    revision: str
    path: Path
    digest: str


def resolve_model(reference: str, revision: str | None = None, *, root: Path | None = None) -> ResolvedModel:
    """Find or download the model that `reference` names.

    Args:
        reference: a folder (relative to `root` if given), `package:NAME` (a Python package that carries one
            model folder), `demo:decoder` (a tiny language model, made on the spot), or a hub id `ORG/NAME`,
            which is downloaded (safetensors, text files, the folder of each module that its modules.json
            names, and BGE-M3's two heads).
        revision: of a hub model; its newest when None.

    Pickled weights (`pytorch_model.bin`) of a model that has no others are read without running code and
    converted once, beside the models downloaded from the hub; path and digest are the converted copy's.

    Raises:
        InputError: no model is found, or its pickled weights cannot be converted; the message names what was
            tried.

    Example:
        >>> model = resolve_model("intfloat/multilingual-e5-small")
        >>> model.path, model.digest
        >>> embedder = load_embedder(model.path)
    """
    path, found_revision = _locate(reference, revision, root)
    try:
        read_config(path)
        require_intact(path)
        path, digest = _with_safetensors(path)
    except InputError as error:
        raise InputError(error.what, where=f"{reference} ({error.where})", fix=error.fix) from error
    return ResolvedModel(reference, found_revision, path, digest)


def _with_safetensors(folder: Path) -> tuple[Path, str]:
    """Return the folder and its digest; those of its converted copy where its weights are pickled only."""
    digest = folder_digest(folder)
    if not any(folder.rglob("*.bin")):
        return folder, digest
    from embedline.models.pickled import converted, pickled_folders

    if not pickled_folders(folder):
        return folder, digest
    from huggingface_hub.constants import HF_HOME

    with _writable_cache():
        copy = converted(folder, digest, Path(HF_HOME) / "embedline")
    return copy, folder_digest(copy)


def _locate(reference: str, revision: str | None, root: Path | None) -> tuple[Path, str]:
    if reference.startswith("package:"):
        return _in_package(reference.removeprefix("package:")), "package"
    if reference.startswith("demo:"):
        return _demo(reference), "demo"
    for folder in (home_expanded(reference), *([root / reference] if root else [])):
        if folder.is_dir():
            return folder.resolve(), "local"
    if reference.startswith((".", "/", "~")) or reference.count("/") != 1:
        raise InputError(
            "no such model folder.",
            where=reference,
            fix="Give a folder, package:NAME, demo:decoder or a hub id ORG/NAME.",
        )
    return _from_hub(reference, revision)


def _in_package(name: str) -> Path:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, TypeError, ValueError):  # a name with a missing parent, a relative or empty name
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"no Python package {name!r} is installed.", where=f"package:{name}", fix=f"pip install {name}"
        )
    configs = sorted(Path(spec.submodule_search_locations[0]).rglob("config.json"))
    folders = [
        config.parent
        for config in configs
        if has_safetensors(config.parent) or (config.parent / PICKLED).is_file()
    ]
    if not folders:
        raise InputError("the package carries no model.", where=f"package:{name}")
    return folders[0]


def _demo(reference: str) -> Path:
    """Write the demo decoder once, beside the models downloaded from the hub, and return its folder."""
    if reference != "demo:decoder":
        raise InputError("no such demo model.", where=reference, fix="Use demo:decoder.")
    import transformers
    from huggingface_hub.constants import HF_HOME

    from embedline.models import demo_decoder, tokenizer

    sources = [Path(module.__file__ or "").read_bytes() for module in (demo_decoder, tokenizer)]
    key = hashlib.sha256(b"".join([*sources, transformers.__version__.encode()])).hexdigest()[:12]
    folder = Path(HF_HOME) / "embedline" / f"demo-decoder-{key}"
    if not folder.is_dir():
        with _writable_cache():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent) as draft:
                demo_decoder.write_demo_decoder(Path(draft) / "model")
                with contextlib.suppress(OSError):  # another process wrote the same bytes first
                    put_in_place(Path(draft) / "model", folder)
    return folder


@contextlib.contextmanager
def _writable_cache() -> Iterator[None]:
    """Name HF_HOME where a file of the cache cannot be written.

    Raises:
        InputError: no permission, a read-only or full file system.
    """
    from huggingface_hub.constants import HF_HOME

    try:
        yield
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.ENOTDIR}:
            raise
        raise InputError(
            f"models cannot be kept there ({os_reason(error)}: {error.filename}).",
            where=f"HF_HOME ({HF_HOME})",
            fix="Set HF_HOME to a folder that can be written to.",
        ) from error


def _from_hub(reference: str, revision: str | None) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download

    def get(revision: str | None, patterns: list[str]) -> Path:
        with _writable_cache():
            found = snapshot_download(
                reference, revision=revision, allow_patterns=patterns, ignore_patterns=_OTHER_FORMS
            )
        return Path(found)

    try:
        small = get(revision, _SMALL)
        modules = [f"{module.path}/*" for module in list_modules(small) if module.path]
        folder = get(small.name, [*_FILES, *_HEADS, *modules])
        if not has_safetensors(transformer_folder(folder)):
            folder = get(small.name, [*_FILES, *_HEADS, *modules, *_PICKLED])
    except InputError:
        raise
    except Exception as error:  # the hub client has a dozen classes for "not found" and "not reachable"
        raise InputError(
            f"neither a local folder nor a model that the hub returned ({type(error).__name__}).",
            where=reference,
            fix="Check the name, the network, or HF_HUB_OFFLINE.",
        ) from error
    _require_undamaged(folder)
    return folder, folder.name


def _require_undamaged(folder: Path) -> None:
    """Compare the files of the hub's cache with the names of its blobs: SHA-256 of what the hub has in LFS.

    Raises:
        InputError: one differs.
    """
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        blob = file.resolve()
        if _SHA256.fullmatch(blob.name) and (found := file_sha256(blob)) != blob.name:
            raise InputError(
                f"the downloaded file is damaged: SHA-256 {found}, the hub has {blob.name}.",
                where=str(file),
                fix=f"Delete {blob}; it is downloaded again.",
            )
