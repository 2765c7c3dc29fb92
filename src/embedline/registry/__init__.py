"""MLflow: runs mirrored from local spools, model versions, promotion."""
