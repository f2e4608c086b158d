"""`sqlflow list`, `validate`, `plan`, `version`: what a project is, without running it."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import Annotated

import typer

from sqlflow_dagster.cli.options import (
    AsJson,
    ProfileName,
    ProjectDir,
    Vars,
    as_json,
    project_folder,
    variables,
)
from sqlflow_dagster.cli.output import WRONG_PROJECT, give, give_json, say, table
from sqlflow_dagster.errors import PipelineError, SettingsError


def list_pipelines(project: ProjectDir = None, profile: ProfileName = None, format: AsJson = "text") -> None:  # noqa: A002 - the option's name
    """List the project's pipelines. Example: sqlflow list --project examples/online_retail"""
    from sqlflow_dagster.project import load_project  # noqa: PLC0415 - slow, and --help needs none

    plan = load_project(project_folder(project), profile).plan
    rows = [
        {
            "pipeline": pipeline.name,
            "sources": len(pipeline.sources),
            "steps": sum(len(group.steps) for group in pipeline.groups),
            "description": pipeline.description.partition("\n")[0],
        }
        for pipeline in plan.pipelines
    ]
    if as_json(format):
        give_json(rows)
    else:
        give(table(["pipeline", "sources", "steps", "description"], [list(row.values()) for row in rows]))


def validate(
    pipelines: Annotated[
        list[str] | None, typer.Argument(help="Pipelines to report on; all by default.")
    ] = None,
    project: ProjectDir = None,
    profile: ProfileName = None,
    vars: Vars = None,  # noqa: A002 - the option's name
    format: AsJson = "text",  # noqa: A002 - the option's name
) -> None:
    """Check every file without touching a source. Example: sqlflow validate --format json"""
    from sqlflow_dagster.project import load_project  # noqa: PLC0415 - slow, and --help needs none

    machine = as_json(format)
    try:
        plan = load_project(project_folder(project), profile, variables(vars)).plan
    except PipelineError as error:
        _report(error, set(pipelines or ()), machine=machine)
        return
    _check_names(set(pipelines or ()), {pipeline.name for pipeline in plan.pipelines})
    for notice in plan.notices:
        say(notice)
    if machine:
        give_json({"ok": True, "problems": [], "notices": list(plan.notices)})
    else:
        give(f"{len(plan.pipelines)} pipelines are valid")


def _check_names(wanted: set[str], known: set[str]) -> None:
    unknown = wanted - known
    if unknown:
        raise SettingsError(f"no pipeline {', '.join(sorted(unknown))}; there is {', '.join(sorted(known))}")


def _report(error: PipelineError, wanted: set[str], *, machine: bool) -> None:
    problems = [
        p
        for p in error.problems
        if not wanted or str(p.path).rpartition("/")[2].removesuffix(".sf") in wanted
    ]
    if machine:
        keys = ("path", "line", "column", "length", "message", "hint")
        give_json({"ok": not problems, "problems": [{k: getattr(p, k) for k in keys} for p in problems]})
    else:
        for problem in problems:
            say(str(problem))
        say(f"{len(problems)} problem{'s' if len(problems) != 1 else ''}")
    if problems:
        raise typer.Exit(WRONG_PROJECT)


def plan(
    pipeline: Annotated[str | None, typer.Argument(help="One pipeline; all by default.")] = None,
    project: ProjectDir = None,
    profile: ProfileName = None,
    vars: Vars = None,  # noqa: A002 - the option's name
    format: AsJson = "text",  # noqa: A002 - the option's name
) -> None:
    """Show what would run, what is full or incremental, and why. Example: sqlflow plan online_retail"""
    from sqlflow_dagster.plan.explain import as_json as as_document  # noqa: PLC0415 - slow
    from sqlflow_dagster.plan.explain import explain  # noqa: PLC0415 - slow
    from sqlflow_dagster.project import load_project  # noqa: PLC0415 - slow, and --help needs none

    planned = load_project(project_folder(project), profile, variables(vars)).plan
    _check_names({pipeline} if pipeline else set(), {p.name for p in planned.pipelines})
    chosen = [pipeline] if pipeline else []
    if as_json(format):
        give_json(as_document(planned, chosen))
    else:
        give("\n".join(explain(planned, chosen)))


def version() -> None:
    """Print the installed version. Example: sqlflow version"""
    give(installed("sqlflow-dagster"))
