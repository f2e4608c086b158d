"""A step of the plan → the `AssetSpec` that Dagster shows. Override `get_asset_spec` to change it."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass

import dagster as dg

from sqlflow_dagster.assets.freshness import freshness_policy
from sqlflow_dagster.plan.nodes import Export, Group, Load, Pipeline, Step, Transform
from sqlflow_dagster.project import Project
from sqlflow_dagster.sql import TableName


@dataclass(frozen=True, slots=True)
class StepData:
    """What a translator is given: the step that makes the asset, and where it stands.

    `owners` maps each table of the project, folded, to the key of the asset that makes it.
    """

    project: Project
    pipeline: Pipeline
    group: Group
    step: Step
    owners: dict[TableName, dg.AssetKey]


class SQLFlowTranslator:
    """Turns steps into asset specs."""

    def get_asset_spec(self, data: StepData) -> dg.AssetSpec:
        """Return the spec of a step's asset: `[pipeline, table]`, or `[pipeline, "export", name]`."""
        step = data.step
        profile = data.project.settings.profile.pipeline(data.pipeline.name)
        return dg.AssetSpec(
            key=_key(data),
            deps=_deps(data),
            description=_description(data),
            metadata=_metadata(data),
            group_name=legal_name(profile.group or data.pipeline.name),
            kinds=_kinds(step),
            owners=list(profile.owners),
            tags=profile.tags,
            code_version=step.code_version if not isinstance(step, Load) else None,
            skippable=data.group.can_subset,
            freshness_policy=None if isinstance(step, Export) else freshness_policy(profile.freshness),
            partitions_def=None,
        )


def asset_key(step: Step, one_schema: str | None = None) -> dg.AssetKey:
    """Return the key of the asset that a step makes; `one_schema` is the profile's `schema`."""
    if isinstance(step, Export):
        return dg.AssetKey([step.pipeline, "export", step.name])
    home = (one_schema or step.pipeline).casefold()
    if step.table.schema.casefold() == home:
        return dg.AssetKey([step.pipeline, step.table.name])
    return dg.AssetKey([step.pipeline, step.table.schema, step.table.name])


def legal_name(text: str) -> str:
    """Return a text as Dagster allows names of ops, jobs and groups: letters, digits and `_`."""
    return re.sub(r"[^A-Za-z0-9_]", "_", text)


def _key(data: StepData) -> dg.AssetKey:
    return asset_key(data.step, data.project.settings.profile.one_schema)


def _deps(data: StepData) -> list[dg.AssetKey]:
    step = data.step
    if isinstance(step, Load):
        return []
    keys = (data.owners.get(table.folded) for table in step.reads)
    own = _key(data)
    return sorted({key for key in keys if key is not None and key != own})


def _description(data: StepData) -> str:
    step = data.step
    if isinstance(step, Load):
        return (
            f"Stream `{_code(step.stream)}` of the source `{step.source.name}` ({step.source.type}), "
            f"{step.mode}.\n\n"
            f"{step.why[:1].upper()}{step.why[1:]}."
        )
    what = f"Export to `{_code(step.target)}` ({step.type})" if isinstance(step, Export) else _made(step)
    return f"{what}\n\n```sql\n{step.sql.replace('```', '` ` `')}\n```"


def _made(step: Transform) -> str:
    how = {
        "replace": "built anew by each run",
        "append": "rows added by each run",
        "upsert": f"merged by {', '.join(step.keys)}",
        "incremental": f"incremental by {step.by}" + (f", lookback {step.lookback}" if step.lookback else ""),
    }[step.mode]
    return f"{'View' if step.view else 'Table'}, {how}."


def _code(text: str) -> str:
    return text.replace("`", "'")


def _kinds(step: Step) -> set[str]:
    if isinstance(step, Load):
        return {_kind(step.source.type), "duckdb"}
    if isinstance(step, Export):
        return {_kind(step.type)}
    return {"sql", "duckdb"}


def _kind(connector: str) -> str:
    return re.sub(r"[^a-z0-9]", "", connector.lower()) or "source"


def _metadata(data: StepData) -> dict[str, dg.MetadataValue]:
    step = data.step
    metadata: dict[str, dg.MetadataValue] = {"dagster/code_references": _code_reference(data)}
    if isinstance(step, Export):
        metadata["target"] = dg.MetadataValue.text(step.target)
        return metadata
    metadata["dagster/table_name"] = dg.MetadataValue.text(str(step.table))
    metadata["dagster/storage_kind"] = dg.MetadataValue.text("duckdb")
    if isinstance(step, Load):
        metadata["sync"] = dg.MetadataValue.text(step.why)
        if step.keys:
            metadata["primary_key"] = dg.MetadataValue.text(", ".join(step.keys))
        if step.cursor_field:
            metadata["cursor_field"] = dg.MetadataValue.text(step.cursor_field)
    return metadata


def _code_reference(data: StepData) -> dg.CodeReferencesMetadataValue:
    """The statement's line in its `.sf` file. The class is a beta of Dagster's, and says so each time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.CodeReferencesMetadataValue(
            code_references=[
                dg.LocalFileCodeReference(
                    file_path=str(data.step.location.path),
                    line_number=data.step.location.line,
                    label=f"{data.pipeline.name}.sf",
                )
            ]
        )
