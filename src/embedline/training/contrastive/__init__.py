"""Contrastive training: GradCache, its step, teachers and metrics."""
