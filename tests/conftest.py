"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")


@pytest.fixture
def real_data() -> Path:
    """The folder of real text; the test is skipped without it, unless it is required."""
    folder = os.environ.get("EMBEDLINE_DATA")
    if folder:
        return Path(folder)
    if os.environ.get("EMBEDLINE_REQUIRE_DATA"):
        pytest.fail("EMBEDLINE_REQUIRE_DATA is set and EMBEDLINE_DATA is not")
    pytest.skip("needs the real text in $EMBEDLINE_DATA")
