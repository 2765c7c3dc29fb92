"""The work before a run: validation, pins of what it depends on, its plan, an estimate of its cost."""
