"""The gate: a policy over score rows, and the pure decision whether a candidate may become champion."""
