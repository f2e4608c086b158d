"""SQLFlow pipelines as Dagster assets."""
