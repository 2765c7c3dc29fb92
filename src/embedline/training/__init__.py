"""Batches, GradCache, objectives and the one engine for all three stages."""
