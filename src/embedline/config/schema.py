"""The whole configuration of a run in one object: `RunConfig`."""

from __future__ import annotations

from pydantic import model_validator

from embedline.config.data import SYMMETRIC
from embedline.config.refusals import find_refusals
from embedline.config.sections import RunSections


class RunConfig(RunSections):
    """A validated run: every section, and no settings that cannot work together."""

    @model_validator(mode="after")
    def _check_settings_together(self) -> RunConfig:
        problems = list(find_refusals(self))
        if problems:
            raise ValueError("; ".join(problems))
        for name, prompt in (self.prompts or {}).items():
            if name in {"query", "document"}:
                raise ValueError(f"prompts.{name}: is a side; write default: {{{name}: …}}")
            if name in SYMMETRIC and prompt.document not in {"", prompt.query}:
                raise ValueError(f"prompts.{name}.document: both sides of a symmetric task get `query`")
        return self
