"""The resource `sqlflow`: what a run may say about itself in Dagster's run config."""

from __future__ import annotations

from typing import Any

import dagster as dg
from pydantic import Field

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
