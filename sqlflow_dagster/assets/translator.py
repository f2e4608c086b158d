"""A step of the plan → the `AssetSpec` that Dagster shows. Override `get_asset_spec` to change it."""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass
from typing import Any

import dagster as dg

from sqlflow_dagster.assets import markdown
from sqlflow_dagster.assets.freshness import automation_condition, freshness_policy
from sqlflow_dagster.assets.names import Keys, legal_name, place
from sqlflow_dagster.assets.secrets import without_password
from sqlflow_dagster.errors import SettingsError
from sqlflow_dagster.plan.nodes import Export, Group, Load, Pipeline, Step, Transform
from sqlflow_dagster.project import Project

__all__ = ["SQLFlowTranslator", "StepData", "legal_name"]


@dataclass(frozen=True, slots=True)
class StepData:
    """What a translator is given: the step that makes the asset, and where it stands.

    `keys` has the key of every table and export of the project.
    """

    project: Project
    pipeline: Pipeline
    group: Group
    step: Step
    keys: Keys


class SQLFlowTranslator:
    """Turns steps into asset specs."""

    def get_asset_spec(self, data: StepData) -> dg.AssetSpec:
        """Return the spec of a step's asset: `[pipeline, table]`, or `[pipeline, "export", name]`.

        An override may change all of it, the key too: what depends on the asset follows.

        Raises SettingsError for an owner, tag, freshness or automation that Dagster does not take.
        """
        step = data.step
        profile = data.project.settings.profile.pipeline(data.pipeline.name)
        try:
            return dg.AssetSpec(
                key=data.keys.of(step),
                deps=_deps(data),
                description=_description(step),
                metadata=_metadata(data),
                group_name=legal_name(profile.group or data.pipeline.name),
                kinds=_kinds(step),
                owners=list(profile.owners),
                tags=profile.tags,
                code_version=_code_version(step),
                skippable=data.group.can_subset,
                automation_condition=automation_condition(profile.automation),
                freshness_policy=None if isinstance(step, Export) else freshness_policy(profile.freshness),
            )
        # Owners, tags and durations are the profile's; all else here is made to fit.
        except (dg.DagsterInvalidDefinitionError, SettingsError) as error:
            raise SettingsError(f"{place(data.project, data.pipeline)}: {error}") from error


def _deps(data: StepData) -> list[dg.AssetKey]:
    step = data.step
    if isinstance(step, Load):
        return []
    known = (data.keys.tables.get(table.folded) for table in step.reads)
    own = data.keys.of(step)
    return sorted({key for key in known if key is not None and key != own})


def _description(step: Step) -> str:
    match step:
        case Load():
            return (
                f"Stream {markdown.inline_code(step.stream)} of the source "
                f"{markdown.inline_code(step.source.name)} ({markdown.text(step.source.type)}), {step.mode}.\n\n"
                f"{markdown.text(step.why[:1].upper() + step.why[1:])}."
            )
        case Transform():
            what = _made(step)
        case Export():
            what = f"Export to {markdown.inline_code(without_password(step.target))} ({markdown.text(step.type)})"
    return f"{what}\n\n{markdown.code_block(step.sql, 'sql')}"


def _made(step: Transform) -> str:
    how = {
        "replace": "built anew by each run",
        "append": "rows added by each run",
        "upsert": f"merged by {markdown.text(', '.join(step.keys))}",
        "incremental": f"incremental by {markdown.text(step.by or '')}"
        + (f", lookback {markdown.text(step.lookback)}" if step.lookback else ""),
    }[step.mode]
    return f"{'View' if step.view else 'Table'}, {how}."


def _kinds(step: Step) -> set[str]:
    if isinstance(step, Load):
        return {_kind(step.source.type), "duckdb"}
    if isinstance(step, Export):
        return {_kind(step.type)}
    return {"sql", "duckdb"}


def _kind(connector: str) -> str:
    return re.sub(r"[^a-z0-9]", "", connector.lower()) or "source"


def _code_version(step: Step) -> str:
    if not isinstance(step, Load):
        return step.code_version
    parts = (step.source.code_version, step.stream, step.mode, *step.keys, step.cursor_field or "")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _metadata(data: StepData) -> dict[str, Any]:
    step = data.step
    metadata: dict[str, Any] = {"dagster/code_references": _code_reference(step)}
    if isinstance(step, Export):
        metadata["target"] = dg.MetadataValue.text(without_password(step.target))
        return metadata
    metadata["dagster/table_name"] = dg.MetadataValue.text(str(step.table))
    metadata["dagster/storage_kind"] = dg.MetadataValue.text("duckdb")
    if isinstance(step, Load):
        metadata |= _load_metadata(step)
    return metadata


def _load_metadata(step: Load) -> dict[str, Any]:
    metadata: dict[str, Any] = {"sync": dg.MetadataValue.text(step.why)}
    if step.keys:
        metadata["primary_key"] = dg.MetadataValue.text(", ".join(step.keys))
    if step.cursor_field:
        metadata["cursor_field"] = dg.MetadataValue.text(step.cursor_field)
    return metadata


def _code_reference(step: Step) -> dg.CodeReferencesMetadataValue:
    """The statement's line in its `.sf` file. The class is a beta of Dagster's, and says so each time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        place = dg.LocalFileCodeReference(
            file_path=str(step.location.path), line_number=step.location.line, label=step.location.path.name
        )
        return dg.CodeReferencesMetadataValue(code_references=[place])
