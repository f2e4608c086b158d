"""The resource `sqlflow`: what a run may say about itself in Dagster's run config."""

from __future__ import annotations

import logging
from typing import Any

import dagster as dg
from pydantic import Field

from sqlflow_dagster.assets.dead_runs import begin_in_main_process
from sqlflow_dagster.failpoints import failpoint

log = logging.getLogger(__name__)

KEY = "sqlflow"


class SQLFlowResource(dg.ConfigurableResource[Any]):
    """Variables of one run, and whether it reads everything anew.

    Variables that shape the graph (IF, names, INCLUDE, TYPE) are fixed when definitions load; one
    of them here is refused.
    """

    vars: dict[str, Any] = Field(
        default_factory=dict, description="Values of variables for this run; they win over all others."
    )
    full_refresh: bool = Field(False, description="Read everything and build every table anew.")

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Note which process drives the run before anything of it is done, and end dead runs."""
        run, instance = context.run, context.instance
        if run is None or instance is None:
            return
        failpoint("in_run_start")
        for run_id in begin_in_main_process(instance, run):
            log.warning("the run %s was marked failed: its process is gone", run_id)
        failpoint("after_run_start")
