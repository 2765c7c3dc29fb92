"""What preflight checks before anything is spent, one file a question."""
