"""`sqlflow list`, `plan`, `version`: what a project is, without running it."""

from __future__ import annotations

from importlib.metadata import version as installed
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
from sqlflow_dagster.cli.output import fail_over, give, give_json, give_table
from sqlflow_dagster.errors import SettingsError, SQLFlowError

if TYPE_CHECKING:
    from sqlflow_dagster.connectors.base import Estimate
    from sqlflow_dagster.plan.nodes import Load


def list_pipelines(
    project: ProjectDir = None,
    profile: ProfileName = None,
    format: OutputFormat = "text",  # noqa: A002 - the option's name
) -> None:
    """List the project's pipelines.

    Example: sqlflow list --project examples/online_retail
    """
    from sqlflow_dagster.project import load_project  # noqa: PLC0415 - slow, and --help needs none

    plan = load_project(project_folder(project), profile, undiscovered=True, only=needed(None)).plan
    rows = [
        {
            "pipeline": pipeline.name,
            "sources": len(pipeline.sources),
            "steps": sum(len(group.steps) for group in pipeline.groups),
            "description": pipeline.description.partition("\n")[0],
        }
        for pipeline in plan.pipelines
    ]
    if format == "json":
        give_json(rows)
    else:
        header = ["pipeline", "sources", "steps", "description"]
        give_table(header, [list(row.values()) for row in rows])
    fail_over(plan.left_out)


def plan(
    pipeline: Annotated[str | None, typer.Argument(help="One pipeline; all of them without.")] = None,
    project: ProjectDir = None,
    profile: ProfileName = None,
    vars: Vars = None,  # noqa: A002 - the option's name
    estimate: Annotated[
        bool,
        typer.Option("--estimate", help="Ask the sources of files what the next reads would take and cost."),
    ] = False,
    format: OutputFormat = "text",  # noqa: A002 - the option's name
) -> None:
    """Show what would run, in which order, and what is full or incremental and why.

    Example: sqlflow plan online_retail
    """
    from sqlflow_dagster.plan.explain import as_json, explain  # noqa: PLC0415 - slow, and --help needs none
    from sqlflow_dagster.project import load_project  # noqa: PLC0415 - slow
    from sqlflow_dagster.state import estimates  # noqa: PLC0415 - slow

    opened = load_project(
        project_folder(project), profile, variables(vars), undiscovered=True, only=needed(pipeline)
    )
    planned = opened.plan
    if pipeline and planned.pipeline(pipeline) is None:
        known = ", ".join(p.name for p in planned.pipelines) or "none"
        raise SettingsError(f"no pipeline {pipeline}; the project has {known}")
    chosen = [pipeline] if pipeline else []
    rows = [_estimated(load, found) for load, found in estimates(opened, pipeline)] if estimate else []
    if format == "json":
        give_json({**as_json(planned, chosen), **({"estimates": rows} if estimate else {})})
    else:
        give("\n".join(explain(planned, chosen)))
    if estimate and format == "text":
        header = ["load", "files", "bytes", "requests", "usd", "problem"]
        give_table(header, [["" if row[name] is None else row[name] for name in header] for row in rows])
    fail_over(() if pipeline else planned.left_out)


def _estimated(load: Load, found: Estimate | SQLFlowError) -> dict[str, Any]:
    told: dict[str, Any] = dict.fromkeys(("files", "bytes", "requests", "usd", "problem"))
    told |= {"problem": str(found)} if isinstance(found, SQLFlowError) else found._asdict()
    if told["usd"] is not None:
        told["usd"] = round(told["usd"], 6)
    return {"load": f"{load.pipeline}.{load.table.name}", **told}


def version() -> None:
    """Print the installed version.

    Example: sqlflow version
    """
    give(installed("sqlflow-dagster"))
