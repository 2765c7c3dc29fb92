"""Code that several steps share: training, contrastive stages, tags of a registered version."""
