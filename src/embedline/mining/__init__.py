"""Hard negatives: who is a candidate, who is taken, and why."""
