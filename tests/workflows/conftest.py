"""The service's part: `workflow_service` runs a workflow's commands, `workflow_expressions` resolves its expressions."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
