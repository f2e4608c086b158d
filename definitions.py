"""What Dagster loads here: the example project, or the one that SQLFLOW_PROJECT names."""

import os
from pathlib import Path

import dagster as dg

from sqlflow_dagster import build_definitions

project = Path(os.environ.get("SQLFLOW_PROJECT") or Path(__file__).parent / "examples" / "online_retail")
defs = build_definitions(project, executor=dg.in_process_executor)
