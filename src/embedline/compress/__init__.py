"""Layer pruning, and healing by distillation from the unpruned model."""
