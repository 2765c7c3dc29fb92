"""Hard negatives: candidates, the rules that choose among them, and counts."""
