"""`sqlflow run`: a pipeline's Dagster job in this process, on the project's Dagster instance."""

from __future__ import annotations

import html
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from sqlflow_dagster.cli.instance import use_instance, use_logging
from sqlflow_dagster.cli.options import (
    Format,
    OutputFormat,
    ProfileName,
    ProjectDir,
    Vars,
    project_folder,
    variables,
)
from sqlflow_dagster.cli.output import FAILED, INTERRUPTED, cell, count, give_json, give_table, leave, say
from sqlflow_dagster.errors import SQLFlowError

if TYPE_CHECKING:
    from sqlflow_dagster.assets.execute import Finished, Progress
    from sqlflow_dagster.project import Project

# What Markdown would act upon stands behind a backslash.
_ESCAPED = re.compile(r"\\([^\w\s])")
_STOPPED = "stopped: what was stored stays, the step under way is undone, and the next run goes on from there"
# A column of the summary and the metadata it shows.
_COLUMNS = {
    "read": "rows",
    "inserted": "rows_inserted",
    "updated": "rows_updated",
    "deleted": "rows_deleted",
    "set aside": "rows_quarantined",
    "total": "dagster/row_count",
    "seconds": "duration_seconds",
}


def run(
    pipeline: Annotated[str, typer.Argument(help="The pipeline: its file's name without `.sf`.")],
    project: ProjectDir = None,
    profile: ProfileName = None,
    vars: Vars = None,  # noqa: A002 - the option's name
    full_refresh: Annotated[
        bool, typer.Option("--full-refresh", help="Read everything and build every table anew.")
    ] = False,
    partition: Annotated[
        str | None,
        typer.Option("--partition", metavar="KEY", help="The partition to run, where the profile has some."),
    ] = None,
    discover: Annotated[
        bool, typer.Option("--discover", help="Look up the sources' streams anew before the run.")
    ] = False,
    format: OutputFormat = "text",  # noqa: A002 - the option's name
) -> None:
    """Run a pipeline; exit 0 only if every step did what it says.

    Example: sqlflow run online_retail --vars months=2010-12
    """
    from sqlflow_dagster.project import load_project  # noqa: PLC0415 - slow, and --help needs none

    try:
        root = project_folder(project)
        planned = load_project(root, profile, variables(vars), undiscovered=True, only=[pipeline])
        if _discovered(planned, pipeline, anew=discover):
            planned = load_project(root, profile, variables(vars), undiscovered=True, only=[pipeline])
        use_logging(planned.settings)
        use_instance(root)
        from sqlflow_dagster.assets.execute import run_pipeline  # noqa: PLC0415 - reads DAGSTER_HOME, and slow

        # What users' functions print is talk: stdout is for the result.
        with redirect_stdout(sys.stderr), _told() as watch, _stopped_by_signals():
            finished = run_pipeline(
                planned, pipeline, full_refresh=full_refresh, partition=partition, watch=watch
            )
    except SQLFlowError as error:
        _tell_failure(pipeline, str(error), format)
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt:
        _tell_failure(pipeline, _STOPPED, format)
        leave(INTERRUPTED)
    for run_id in finished.dead_runs:
        say(f"the run {run_id} was marked failed: its process is gone")
    if finished.others:
        how = "run without one" if partition else "run by partition, name one with --partition"
        say(f"not in this run: {', '.join(finished.others)} ({how})")
    for notice in planned.plan.notices:
        say(f"notice: {notice}")
    if format == "json":
        give_json(_document(pipeline, finished))
    else:
        _give_summary(pipeline, finished)
    if not finished.success:
        raise typer.Exit(FAILED)


def _tell_failure(pipeline: str, text: str, format: Format) -> None:  # noqa: A002 - the option's name
    if format == "json":
        give_json({"pipeline": pipeline, "success": False, "error": text})
    say(text)


def _discovered(project: Project, pipeline: str, *, anew: bool) -> bool:
    """Look up streams of the pipeline's sources that are not known, or all of them; whether any were."""
    planned = project.plan.pipeline(pipeline)
    sources = [
        source
        for source in (planned.sources if planned else ())
        if anew or source in project.plan.undiscovered
    ]
    for source in sources:
        say(f"  {source.name}: {count(len(project.discover(source)), 'stream')} looked up")
    return bool(sources)


@contextmanager
def _told() -> Iterator[Any]:
    """Tell on stderr what happens: a line for each asset, and on a terminal the step under way."""
    from rich.console import Console  # noqa: PLC0415 - slow, and --help needs none

    console = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)
    with console.status("starting") as status:

        def watch(item: Progress) -> None:
            if item.kind == "started":
                # The step's name is text, not markup.
                status.update(item.subject.replace("[", "("))
            else:
                console.print(_line(item))

        yield watch


def _line(item: Progress) -> str:
    match item.kind:
        case "stored":
            size = count(item.facts.get("rows", 0), "row")
            return f"  {item.subject}: {size}, {cell(item.facts.get('duration_seconds', 0.0))} s"
        case "retrying":
            again = f"in {item.wait:.0f} s" if item.wait else "now"
            return f"  {item.subject}: failed, tried again {again}\n{_indented(item.text)}"
    return f"  {item.subject}: failed"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Stop for SIGTERM, which service managers and containers send, as for Ctrl-C."""

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _give_summary(pipeline: str, finished: Finished) -> None:
    rows = [[item.subject, *(item.facts.get(name) for name in _COLUMNS.values())] for item in finished.stored]
    if rows:
        give_table(["asset", *_COLUMNS], rows)
    for item in finished.stored:
        for notice in _lines(item.facts.get("notices")):
            say(f"{item.subject}: {notice}")
    for item in finished.failed:
        say(f"{item.subject} failed:\n{_indented(item.text)}")
    if finished.not_stored:
        say(f"not stored: {', '.join(finished.not_stored)}")
    say(
        f"{pipeline}: {count(len(rows), 'asset')} stored, {count(len(finished.failed), 'step')} failed, "
        f"{finished.seconds:.1f} s; run {finished.run_id}"
    )


def _lines(markdown: str | None) -> list[str]:
    """The items of a list that the web UI shows as Markdown, as plain text."""
    plain = _ESCAPED.sub(r"\1", html.unescape(markdown or ""))
    return [line.removeprefix("- ") for line in plain.splitlines()]


def _document(pipeline: str, finished: Finished) -> dict[str, Any]:
    return {
        "pipeline": pipeline,
        "run_id": finished.run_id,
        "success": finished.success,
        "seconds": round(finished.seconds, 3),
        "assets": [{"asset": item.subject, **_facts(item.facts)} for item in finished.stored],
        "failures": [{"step": item.subject, "error": item.text} for item in finished.failed],
        "not_stored": list(finished.not_stored),
        "dead_runs": list(finished.dead_runs),
    }


def _facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata that are plain values; schemas and lineage are for the web UI."""
    plain = {name.removeprefix("dagster/"): value for name, value in facts.items()}
    return {name: value for name, value in plain.items() if isinstance(value, str | int | float | bool)}
