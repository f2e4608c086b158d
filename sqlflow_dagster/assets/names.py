"""Names of a plan → names that Dagster takes: asset keys keep them, ops and jobs cannot."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass

import dagster as dg

from sqlflow_dagster.plan.nodes import Export, Pipeline, Step
from sqlflow_dagster.project import Project
from sqlflow_dagster.sql import TableName

# Dagster refuses these as names of ops, jobs and groups, beside Python's own keywords.
_REFUSED = {
    "context",
    "conf",
    "config",
    "meta",
    "input",
    "output",
    "type",
    "dict",
    "int",
    "str",
    "float",
    "bool",
}
_REFUSED |= {"arg_dict", "input_arg_dict", "output_arg_dict"}


def legal_name(text: str) -> str:
    """Return a text as Dagster allows names of ops, jobs and groups: letters, digits and `_`."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", text) or "_"
    return f"{name}_" if name in _REFUSED or keyword.iskeyword(name) else name


class Names:
    """Gives legal names of which no two are equal: `my-pipe` and `my_pipe` are `my_pipe`, `my_pipe_2`."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, text: str) -> str:
        """Return the legal name of a text, numbered where it is taken."""
        wanted = name = legal_name(text)
        number = 2
        while name in self._taken:
            name, number = f"{wanted}_{number}", number + 1
        self._taken.add(name)
        return name


@dataclass(frozen=True, slots=True)
class Keys:
    """The asset key of each table of a project (folded) and of each export (pipeline and name)."""

    tables: Mapping[TableName, dg.AssetKey]
    exports: Mapping[tuple[str, str], dg.AssetKey]

    def of(self, step: Step) -> dg.AssetKey:
        """Return the key of the asset that a step makes."""
        if isinstance(step, Export):
            return self.exports[step.pipeline, step.name]
        return self.tables[step.table.folded]

    def renamed(self, names: Mapping[dg.AssetKey, dg.AssetKey]) -> Keys:
        """Return the keys with those of `names` replaced."""
        return Keys(
            tables={table: names.get(key, key) for table, key in self.tables.items()},
            exports={export: names.get(key, key) for export, key in self.exports.items()},
        )


def keys_of(project: Project) -> Keys:
    """Return the keys of a project's assets: `[pipeline, table]`, `[pipeline, "export", name]`.

    Names compare case-insensitively; a table's key is spelt as the first statement that writes it.
    """
    one_schema = project.settings.profile.one_schema
    tables: dict[TableName, dg.AssetKey] = {}
    exports: dict[tuple[str, str], dg.AssetKey] = {}
    for pipeline in project.plan.pipelines:
        home = (one_schema or pipeline.name).casefold()
        for group in pipeline.groups:
            for step in group.steps:
                if isinstance(step, Export):
                    exports[step.pipeline, step.name] = dg.AssetKey([step.pipeline, "export", step.name])
                elif step.table.folded not in tables:
                    schema = [] if step.table.schema.casefold() == home else [step.table.schema]
                    tables[step.table.folded] = dg.AssetKey([step.pipeline, *schema, step.table.name])
    return Keys(tables, exports)


def place(project: Project, pipeline: Pipeline) -> str:
    """Return where the profile says how a pipeline runs, for messages."""
    profile = project.settings.profile
    section = f"pipelines.{pipeline.name}" if pipeline.name in profile.pipelines else "defaults"
    return f"profiles/{project.settings.environment}.yml: {section}"
