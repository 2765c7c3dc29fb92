"""The execution of one step: cache, record, delegation to other processes, adapter for kfp components."""
