"""The files that the pages name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASES = (ROOT, ROOT / "src" / "embedline", ROOT / "infra")
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "pipelines" / "retrain").rglob("*.md")),
    *sorted((ROOT / "infra").rglob("*.md")),
    *sorted((ROOT / "components").glob("*/README.md")),
    ROOT / ".github" / "workflows" / "README.md",
    ROOT / "tests" / "benchmarks" / "README.md",
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|md|ya?ml|sh))`", text)
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)
    named = [name for name in code if not name.startswith("..")]
    missing = [name for name in named if not any((base / name).exists() for base in (page.parent, *BASES))]
    missing += [name for name in links if not (page.parent / name).exists()]
    assert not missing
