"""The same as a component of `dg`: a `defs.yaml` that names a project's folder."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
from pydantic import Field

from sqlflow_dagster.assets.build import build_definitions
from sqlflow_dagster.assets.translator import SQLFlowTranslator, StepData
from sqlflow_dagster.settings import Scalar

_EXAMPLE = """\
-- Your first pipeline; `sqlflow validate` checks it
CREATE TABLE greetings AS SELECT 'hello' AS greeting;
"""


class SQLFlowProjectScaffolder(dg.Scaffolder):
    """Writes a `defs.yaml` and a first pipeline beside it."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        """Write the files; a pipeline that is there stays."""
        dg.scaffold_component(request, {"project": "."})
        pipelines = request.target_path / "pipelines"
        pipelines.mkdir(parents=True, exist_ok=True)
        if not any(pipelines.glob("*.sf")):
            (pipelines / "hello.sf").write_text(_EXAMPLE, "utf-8")


@dg.scaffold_with(SQLFlowProjectScaffolder)
class SQLFlowProjectComponent(dg.Component, dg.Model, dg.Resolvable):
    """A SQLFlow project's pipelines as assets, jobs, schedules and sensors.

    A subclass may override `get_asset_spec`, as a translator does.
    """

    project: str = Field(description="The project's folder, relative to the file that names it.")
    profile: str | None = Field(None, description="The profile; the project's default without it.")
    variables: dict[str, Scalar] = Field(
        default_factory=dict, description="Variables that win over all others."
    )

    def get_asset_spec(self, data: StepData) -> dg.AssetSpec:
        """Return the spec of a step's asset."""
        return SQLFlowTranslator().get_asset_spec(data)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the project's definitions.

        Raises PipelineError or SettingsError for what is wrong in the project's files.
        """
        return build_definitions(
            Path(context.path) / self.project,
            profile=self.profile,
            variables=self.variables,
            translator=_Translator(self),
        )


class _Translator(SQLFlowTranslator):
    """Asks the component, which may be a subclass."""

    def __init__(self, component: SQLFlowProjectComponent) -> None:
        self._component = component

    def get_asset_spec(self, data: StepData) -> dg.AssetSpec:
        """Return what the component says."""
        return self._component.get_asset_spec(data)
