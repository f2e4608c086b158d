"""The same as a component of `dg`: a `defs.yaml` that names a project's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from sqlflow_dagster.assets.build import build_definitions


class SQLFlowProjectComponent(dg.Component, dg.Model, dg.Resolvable):
    """A SQLFlow project's pipelines as assets, jobs, schedules and sensors."""

    project: str = Field(description="The project's folder, relative to the file that names it.")
    profile: str | None = Field(None, description="The profile; the project's default without it.")
    variables: dict[str, Any] = Field(default_factory=dict, description="Variables that win over all others.")

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the project's definitions."""
        return build_definitions(
            Path(context.path) / self.project, profile=self.profile, variables=self.variables
        )
