"""`sqlflow validate`: every problem of a project's files, without touching a source."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sqlflow_dagster.cli.options import (
    Format,
    OutputFormat,
    ProfileName,
    ProjectDir,
    Vars,
    folder_above,
    project_folder,
    variables,
)
from sqlflow_dagster.cli.output import FAILED, count, give, give_json, say
from sqlflow_dagster.errors import PipelineError, Problem, ProjectError, SettingsError

if TYPE_CHECKING:
    from sqlflow_dagster.project import Project

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PIPELINE]...", help="Pipelines by name, or `.sf` files; the whole project without."
    ),
]


def validate(
    pipelines: Names = None,
    project: ProjectDir = None,
    profile: ProfileName = None,
    vars: Vars = None,  # noqa: A002 - the option's name
    format: OutputFormat = "text",  # noqa: A002 - the option's name
) -> None:
    """Check every file without touching a source; exit 1 if there is a problem.

    Example: sqlflow validate orders --format json
    """
    from sqlflow_dagster.project import load_project  # noqa: PLC0415 - slow, and --help needs none
    from sqlflow_dagster.settings import load_settings  # noqa: PLC0415 - slow

    problems: list[Problem] = []
    notices: Sequence[str] = ()
    try:
        root = _root(project, pipelines or [])
        files = {path.stem: path for path in load_settings(root, profile).pipeline_files}
        wanted = _wanted(pipelines or [], files)
        planned = load_project(root, profile, variables(vars), undiscovered=True)
        notices = planned.plan.notices
        _check_definitions(planned)
    except PipelineError as error:
        others = {path.resolve() for name, path in files.items() if name not in wanted}
        problems = [problem for problem in error.problems if (root / problem.path).resolve() not in others]
        problems = [dataclasses.replace(problem, path=_shown(root / problem.path)) for problem in problems]
    except ProjectError as error:
        # A profile, `.env` or the command line: there is no place in a pipeline to point at.
        if format == "text":
            raise
        _report_as_json([{"message": str(error)}], (), format)
        say(str(error))
        raise typer.Exit(FAILED) from error
    _report(problems, notices, len(wanted), format)


def _check_definitions(project: Project) -> None:
    """Have Dagster judge what the profile says of pipelines: cron expressions, owners, tags and the like."""
    from sqlflow_dagster.settings import PipelineProfile  # noqa: PLC0415 - slow

    profile = project.settings.profile
    if profile.pipelines or profile.defaults != PipelineProfile():
        from sqlflow_dagster.assets.build import build_definitions  # noqa: PLC0415 - imports Dagster, a second

        build_definitions(project)


def _root(project: Path | None, pipelines: Sequence[str]) -> Path:
    """The project's folder: without --project that of the first file named, if one is."""
    file = next((Path(name) for name in pipelines if name.endswith(".sf")), None)
    if project is None and file is not None:
        return folder_above(file.absolute().parent)
    return project_folder(project)


def _wanted(names: Sequence[str], files: Collection[str]) -> set[str]:
    wanted = {Path(name).stem if name.endswith(".sf") else name for name in names} or set(files)
    unknown = wanted - set(files)
    if unknown:
        known = ", ".join(sorted(files)) or "none"
        raise SettingsError(f"no pipeline {', '.join(sorted(unknown))}; the project has {known}")
    return wanted


def _shown(path: Path) -> Path:
    """The path as a person or an editor in this folder can open it."""
    path, here = path.resolve(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _report(problems: Sequence[Problem], notices: Sequence[str], pipelines: int, format: Format) -> None:  # noqa: A002
    _report_as_json([_document(problem) for problem in problems], notices, format)
    if format == "text":
        for notice in notices:
            say(f"notice: {notice}")
        for problem in problems:
            give(str(problem))
        say(
            count(len(problems), "problem")
            if problems
            else f"{count(pipelines, 'pipeline')} checked: all is well"
        )
    if problems:
        raise typer.Exit(FAILED)


def _document(problem: Problem) -> dict[str, Any]:
    return {"path": str(problem.path), **{name: getattr(problem, name) for name in _PARTS}}


_PARTS = ("line", "column", "length", "message", "hint")


def _report_as_json(problems: Sequence[dict[str, Any]], notices: Sequence[str], format: Format) -> None:  # noqa: A002
    if format == "json":
        give_json({"ok": not problems, "problems": problems, "notices": list(notices)})
