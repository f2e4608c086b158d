"""What Dagster loads: `dagster dev -f definitions.py`."""

from pathlib import Path

import dagster as dg

from sqlflow_dagster import build_definitions

defs = build_definitions(Path(__file__).parent, executor=dg.in_process_executor)
