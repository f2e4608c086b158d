"""The same as a component of `dg`: a `defs.yaml` that names a project's folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Self

import dagster as dg
from dagster.components import DefsStateConfig, DefsStateConfigArgs, ResolvedDefsStateConfig
from pydantic import Field, PrivateAttr

from sqlflow_dagster.assets.build import build_definitions
from sqlflow_dagster.assets.translator import SQLFlowTranslator, StepData
from sqlflow_dagster.connectors import discovered
from sqlflow_dagster.project import load_project
from sqlflow_dagster.settings import Scalar, load_settings

if TYPE_CHECKING:
    from pydantic import BaseModel

log = logging.getLogger(__name__)

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


@dg.scaffold_with(SQLFlowProjectScaffolder)
class SQLFlowDiscoveredProjectComponent(dg.StateBackedComponent, SQLFlowProjectComponent):
    """A SQLFlow project whose sources are looked up by `dg utils refresh-defs-state`.

    Tables that a SOURCE names by patterns become assets from what the last refresh found, without
    contact; before the first refresh they are left out. Where the project's own folder knows tables
    that were found later, by `sqlflow discover`, these are taken.
    """

    defs_state: ResolvedDefsStateConfig = DefsStateConfigArgs.local_filesystem()

    _folder: Path = PrivateAttr(default_factory=Path)

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Return the component of a file, which knows the file's folder."""
        component = super().load(attributes, context)
        component._folder = Path(context.path)  # noqa: SLF001 - our own
        return component

    @property
    def defs_state_config(self) -> DefsStateConfig:
        """Where what was found is kept; by default under the project's and the profile's name."""
        key = f"SQLFlow[{self.project}{f'@{self.profile}' if self.profile else ''}]"
        return DefsStateConfig.from_args(self.defs_state, default_key=key)

    def write_state_to_path(self, state_path: Path) -> None:
        """Look up the streams of all sources. Raises what the first source raises that cannot be reached."""
        root = self._folder / self.project
        project = load_project(root, self.profile, self.variables, undiscovered=True)
        for source in (source for pipeline in project.plan.pipelines for source in pipeline.sources):
            project.discover(source)
        state_path.parent.mkdir(parents=True, exist_ok=True)
        state_path.write_text(discovered.packed(project.settings.state_directory), "utf-8")

    def build_defs_from_state(
        self, context: dg.ComponentLoadContext, state_path: Path | None
    ) -> dg.Definitions:
        """Return the project's definitions with the tables that were found."""
        root = Path(context.path) / self.project
        if state_path is not None:
            state = load_settings(root, self.profile).state_directory
            discovered.unpack(state, state_path.read_text("utf-8"))
        project = load_project(root, self.profile, self.variables, undiscovered=True)
        for notice in project.plan.notices:
            log.warning("%s", notice)
        return build_definitions(project, translator=_Translator(self))


class _Translator(SQLFlowTranslator):
    """Asks the component, which may be a subclass."""

    def __init__(self, component: SQLFlowProjectComponent) -> None:
        self._component = component

    def get_asset_spec(self, data: StepData) -> dg.AssetSpec:
        """Return what the component says."""
        return self._component.get_asset_spec(data)
