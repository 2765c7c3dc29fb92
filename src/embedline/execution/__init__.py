"""Run one step: cache, record, delegation to other processes, and the adapter for kfp components."""
