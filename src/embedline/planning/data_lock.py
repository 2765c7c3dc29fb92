"""The data manifest: a small file of checksums, committed beside the preset instead of the data.

After a change of the data, `embedline fingerprint PRESET --write data.lock.json` writes it anew; pushing it
triggers a retraining. A CI machine has neither the data nor the models and reads their checksums from it. The
cluster's preflight reads the data itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from embedline.artifacts.durable import write_json
from embedline.config.load import load_config
from embedline.config.schema import RunConfig
from embedline.errors import InputError, os_reason
from embedline.planning.fingerprint import (
    DataEntry,
    Fingerprint,
    ModelEntry,
    build,
    named_data,
    named_models,
    take_fingerprint,
)
from embedline.quoting import command_line

_FORMAT = 1
_SHOWN = 20  # differences in one message


def write_data_manifest(path: Path, found: Fingerprint) -> None:
    """Write the data and outside models of a fingerprint, sorted, so that a diff shows what changed.

    Raises:
        InputError: the file cannot be written.
    """
    data, base = map(asdict, found.data), map(asdict, found.base)
    try:
        write_json(path, {"format": _FORMAT, "data": list(data), "base": list(base)})
    except OSError as error:
        raise InputError(f"cannot be written ({os_reason(error)}).", where=str(path)) from error


def fingerprint(
    preset: str, overrides: Sequence[str], workspace: Path, manifest: Path | None = None
) -> Fingerprint:
    """Return the fingerprint of a preset: of the data on this machine, or of a data manifest.

    Raises:
        InputError: the config or the data are not usable, or the manifest does not fit the preset.
    """
    if manifest is None:
        return take_fingerprint(preset, overrides, workspace)
    config = load_config(preset, overrides)
    return build(config, *_read(manifest, preset, config))


def _read(path: Path, preset: str, config: RunConfig) -> tuple[list[DataEntry], list[ModelEntry]]:
    anew = command_line("embedline", "fingerprint", preset, "--write", path)
    fix = f"Write it anew where the data is: {anew}"
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != _FORMAT:
            raise InputError(f"is of format {values['format']!r}, not {_FORMAT}.", where=str(path), fix=fix)
        data = [DataEntry(**entry) for entry in values["data"]]
        base = [ModelEntry(**entry) for entry in values["base"]]
    except OSError as error:
        raise InputError("no such data manifest.", where=str(path), fix=fix) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError("is not a data manifest.", where=str(path), fix=fix) from error
    listed = {(entry.kind, entry.name, entry.uri) for entry in data}
    listed |= {(model.role, model.uri, model.revision or "") for model in base}
    wanted = set(named_data(config))
    wanted |= {(role, uri, revision or "") for role, uri, revision in named_models(config)}
    if listed != wanted:
        differ = [f"{preset} names {_words(entry)}, it does not" for entry in sorted(wanted - listed)]
        differ += [f"it names {_words(entry)}, {preset} does not" for entry in sorted(listed - wanted)]
        more = f"; and {len(differ) - _SHOWN} more" if len(differ) > _SHOWN else ""
        what = "; ".join(differ[:_SHOWN]) + more
        raise InputError(f"does not fit the preset: {what}.", where=str(path), fix=fix)
    return data, base


def _words(entry: tuple[str, str, str]) -> str:
    return f"{entry[0]} {' '.join(dict.fromkeys(part for part in entry[1:] if part))}"
