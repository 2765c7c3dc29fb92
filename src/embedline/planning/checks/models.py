"""The check before a run that its models can be loaded and trained; their weights are not read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from embedline.config.schema import RunConfig
from embedline.errors import InputError
from embedline.planning.champion import Champion

_SETTINGS = {"base": "model.base", "teacher": "teacher.model", "champion": "the champion"}


def require_usable_models(config: RunConfig, locations: Mapping[str, str], champion: Champion) -> list[str]:
    """Open base, teacher and champion; return one line for each assumption about their vectors.

    Args:
        locations: folders of base and teacher on this machine.

    Raises:
        InputError: one cannot be loaded, or its files do not say how its vectors are made.
    """
    folders = {role: Path(locations[role]) for role in ("base", "teacher") if role in locations}
    if champion.path is not None and (champion.first or config.evaluate.score_champion):
        folders["champion"] = champion.path
    if not folders:
        return []
    from embedline.models.opening import open_base, open_model
    from embedline.models.stated import NOTHING, Stated

    notes: list[str] = []
    for role, folder in folders.items():
        with _in("promote.first_champion" if champion.first and role == "champion" else _SETTINGS[role]):
            if role == "base":
                assumed = open_base(folder, config.model)
                notes += [assumed] if config.evaluate.score_base else []
            elif role == "teacher" and config.teacher:
                notes.append(open_model(folder, Stated(config.teacher.pooling, config.teacher.causal)))
            else:
                trusted = config.model.trust_remote_code
                notes.append(open_model(folder, NOTHING, trust_remote_code=trusted))
    return [note for note in notes if note]


@contextmanager
def _in(setting: str) -> Iterator[None]:
    """Name the setting of the model in an error."""
    try:
        yield
    except InputError as error:
        if error.where.startswith("model."):
            raise
        raise InputError(error.what, where=f"{setting}: {error.where}", fix=error.fix) from error
