"""The command `prune`: a smaller model folder from any model folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from embedline.cli.shared import (
    WORK,
    AsJson,
    Debug,
    Model,
    StatedCausal,
    StatedPooling,
    Trust,
    Uri,
    Work,
    command,
    note,
    show,
    stated,
)
from embedline.errors import InputError

# Columns that name things instead of holding text.
_NAMES = {"id", "source", "task_type", "language", "lang", "url", "score", "split"}


@command
def prune(
    model: Model,
    vocabulary: Annotated[
        list[Path],
        typer.Option(
            metavar="CORPUS",
            help="Texts, passages or records whose tokens stay: a folder, or a file .jsonl, .jsonl.gz, "
            ".json, .parquet, .csv, .tsv, .txt or .md; repeatable.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="New folder of the model; without it NAME-pruned in this folder.")
    ] = None,
    min_count: Annotated[int, typer.Option(min=1, help="A token stays that occurs so often.")] = 1,
    same_letters: Annotated[
        bool,
        typer.Option(
            "--same-letters/--only-used",
            help="Keep unused tokens that the texts' letters spell, Latin ones excepted, or none.",
        ),
    ] = True,
    pooling: StatedPooling = None,
    causal: StatedCausal = None,
    trust: Trust = False,
    work: Work = WORK,
    uri: Uri = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Drop the tokens that a corpus and its languages do not use: a smaller model with the same vectors.

    Texts made of the tokens that stay get the same vectors. Single characters, bytes and special tokens
    always stay.
    """
    from embedline.cli.find_model import find_model
    from embedline.compress.vocabulary import CANNOT_SAVE, prune_vocabulary
    from embedline.models.folder import load_embedder, read_lineage, save_embedder
    from embedline.models.reload import require_same_after_reload

    folder = find_model(model, work, uri)
    if (folder / "model.onnx").is_file() and not (folder / "config.json").is_file():
        raise InputError(
            "is an ONNX folder: it has no weights to prune.", where=str(folder), fix="Prune the model."
        )
    target = out or Path(f"{folder.resolve().name}-pruned")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError("exists already.", where=str(target), fix="Name a new folder with --out.")
    for path in vocabulary:
        if not path.exists():
            raise InputError("no such corpus.", where=str(path), fix="Name a file or a folder of texts.")
    embedder = load_embedder(folder, trust_remote_code=trust, stated=stated(pooling, causal))
    pruned, result = prune_vocabulary(
        embedder,
        (text for path in vocabulary for text in _texts(path)),
        sorted(set(embedder.spec.prompts.as_st_prompts().values())),
        min_count=min_count,
        same_letters=same_letters,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".embedline-", dir=target.parent) as scratch:
        draft = Path(scratch) / "model"
        lineage = [*read_lineage(folder), {"step": "prune", "tokens": result.tokens}]
        save_embedder(pruned, draft, lineage=lineage)
        require_same_after_reload(pruned, draft, where=str(folder), fix=CANNOT_SAVE, trust_remote_code=trust)
        if target.is_dir():
            target.rmdir()
        shutil.move(draft, target)
    if as_json:
        show({"model": str(target), **result.metrics})
        return
    note(result.sentence())
    typer.echo(str(target))


def _texts(path: Path) -> Iterator[str]:
    """Yield every text of a file, or of all files of a folder, whatever its columns are called.

    Raises:
        InputError: a file is of an unknown kind, or a row cannot be read.
    """
    from embedline.data.folders import FILES, TEXTS, is_kind
    from embedline.data.sources import read_file

    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir() and not is_kind(file, (*FILES, *TEXTS)):
            continue
        for line in read_file(file):
            if line.values is None:
                where = f"{line.file}:{line.line}"
                raise InputError(f"the row cannot be read: {line.reason}.", where=where)
            yield from _strings(line.values)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name not in _NAMES and not name.lower().endswith(("_id", "-id")):
                yield from _strings(item)
