"""Whether a candidate may become the champion: a policy over score rows and a pure decision."""
