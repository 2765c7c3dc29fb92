"""The training loop: steps, checkpoints, processes, curves, memory."""
