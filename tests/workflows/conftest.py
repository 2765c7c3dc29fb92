"""Fixtures of the workflow tests: `workflow_service` runs workflows, `workflow_expressions` resolves them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "orchestration" / "fakes"))  # kfp_server, tracking_server
