"""One module a DAG step, and the one adapter that components call."""
