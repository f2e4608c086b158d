"""The plan → Dagster definitions."""
