"""One file an objective; each is a function or module of tensors, read beside its paper."""
