"""`sqlflow discover`: look up the streams of sources, and remember them for plans to come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sqlflow_dagster.cli.options import (
    OutputFormat,
    ProfileName,
    ProjectDir,
    Vars,
    needed,
    project_folder,
    variables,
)
from sqlflow_dagster.cli.output import FAILED, count, fail_over, give_json, give_table, say
from sqlflow_dagster.errors import SettingsError, SQLFlowError

if TYPE_CHECKING:
    from sqlflow_dagster.plan.nodes import Plan, Source
    from sqlflow_dagster.project import Project


def discover(
    pipeline: Annotated[str | None, typer.Argument(help="One pipeline; all of them without.")] = None,
    source: Annotated[str | None, typer.Argument(help="One SOURCE of it; all of them without.")] = None,
    project: ProjectDir = None,
    profile: ProfileName = None,
    vars: Vars = None,  # noqa: A002 - the option's name
    format: OutputFormat = "text",  # noqa: A002 - the option's name
) -> None:
    """Look up which streams sources have, and remember them; exit 1 if a source cannot be reached.

    Tables that a SOURCE names by patterns are known only after this, or after the first
    `sqlflow run`. Look them up again when tables came or went.

    Example: sqlflow discover orders warehouse
    """
    from sqlflow_dagster.project import load_project  # noqa: PLC0415 - slow, and --help needs none

    root, only = project_folder(project), needed(pipeline)
    planned = load_project(root, profile, variables(vars), undiscovered=True, only=only)
    rows: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    for item in _chosen(planned.plan, pipeline, source):
        try:
            rows += _found(planned, item)
        except SQLFlowError as error:
            failures.append({"pipeline": item.pipeline, "source": item.name, "error": str(error)})
    if format == "json":
        give_json({"streams": rows, "failures": failures})
    else:
        header = ["pipeline", "source", "stream", "key", "cursor", "columns"]
        cells = [
            [*list(row.values())[:3], ", ".join(row["primary_key"]), row["cursor_field"]] for row in rows
        ]
        sizes = [len(row["columns"]) if row["columns"] else None for row in rows]
        give_table(header, [[*line, size] for line, size in zip(cells, sizes, strict=True)])
        say(count(len(rows), "stream"))
    for failure in failures:
        say(f"{failure['pipeline']}.{failure['source']}: {failure['error']}")
    fail_over(() if pipeline else planned.plan.left_out)
    if failures:
        raise typer.Exit(FAILED)


def _chosen(plan: Plan, pipeline: str | None, source: str | None) -> list[Source]:
    if pipeline and plan.pipeline(pipeline) is None:
        known = ", ".join(item.name for item in plan.pipelines) or "none"
        raise SettingsError(f"no pipeline {pipeline}; the project has {known}")
    own = [item for p in plan.pipelines if pipeline in (None, p.name) for item in p.sources]
    chosen = [item for item in own if source is None or item.name.casefold() == source.casefold()]
    if source and not chosen:
        known = ", ".join(item.name for item in own) or "none"
        raise SettingsError(f"no SOURCE {source} in {pipeline}; it has {known}")
    return chosen


def _found(project: Project, source: Source) -> list[dict[str, Any]]:
    return [
        {
            "pipeline": source.pipeline,
            "source": source.name,
            "stream": stream.name,
            "primary_key": list(stream.primary_key),
            "cursor_field": stream.cursor_field,
            "columns": dict(stream.columns) if stream.columns else None,
        }
        for stream in project.discover(source)
    ]
