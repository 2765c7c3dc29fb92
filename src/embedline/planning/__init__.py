"""Look ahead: validate a run, pin what it depends on, plan it, and estimate its cost."""
