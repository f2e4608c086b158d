"""`sqlflow run`: a pipeline's Dagster job in this process, on the project's Dagster instance."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sqlflow_dagster.cli.options import (
    AsJson,
    ProfileName,
    ProjectDir,
    Vars,
    as_json,
    project_folder,
    use_instance,
    variables,
)
from sqlflow_dagster.cli.output import FAILED, give, give_json, say, table
from sqlflow_dagster.errors import SettingsError

if TYPE_CHECKING:
    from dagster import DagsterEvent, EventLogEntry

_COUNTS = ("rows", "rows_inserted", "rows_updated", "rows_deleted", "dagster/row_count", "duration_seconds")


def run(
    pipeline: Annotated[str, typer.Argument(help="The pipeline: its file's name without `.sf`.")],
    project: ProjectDir = None,
    profile: ProfileName = None,
    vars: Vars = None,  # noqa: A002 - the option's name
    full_refresh: Annotated[bool, typer.Option("--full-refresh", help="Read everything anew.")] = False,
    format: AsJson = "text",  # noqa: A002 - the option's name
) -> None:
    """Run a pipeline. Example: sqlflow run online_retail --vars year=2011"""
    machine = as_json(format)
    root = project_folder(project)
    use_instance(root)
    import dagster as dg  # noqa: PLC0415 - slow, and --help needs none

    from sqlflow_dagster.assets.build import build_definitions  # noqa: PLC0415 - slow
    from sqlflow_dagster.assets.dead_runs import mark_dead_runs  # noqa: PLC0415 - slow
    from sqlflow_dagster.assets.translator import legal_name  # noqa: PLC0415 - slow
    from sqlflow_dagster.project import load_project  # noqa: PLC0415 - slow

    planned = load_project(root, profile, variables(vars))
    if planned.plan.pipeline(pipeline) is None:
        known = ", ".join(p.name for p in planned.plan.pipelines) or "none"
        raise SettingsError(f"there is no pipeline {pipeline!r}; the project has {known}")
    definitions = build_definitions(planned, executor=dg.in_process_executor)
    instance = dg.DagsterInstance.get()
    for run_id in mark_dead_runs(instance):
        say(f"the run {run_id} was marked failed: its process is gone")
    begin = time.perf_counter()
    run_id = str(uuid.uuid4())
    instance.add_event_listener(run_id, _progress)
    result = definitions.resolve_job_def(legal_name(pipeline)).execute_in_process(
        instance=instance,
        raise_on_error=False,
        run_id=run_id,
        run_config={
            "resources": {"sqlflow": {"config": {"full_refresh": full_refresh}}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
    )
    rows = [_row(event) for event in result.get_asset_materialization_events()]
    failures = [_failure(event) for event in result.all_events if event.is_step_failure]
    _show(pipeline, result.run_id, rows, failures, time.perf_counter() - begin, machine=machine)
    if not result.success:
        raise typer.Exit(FAILED)


def _progress(entry: EventLogEntry) -> None:
    """Say what was stored, while the run goes on."""
    event = entry.dagster_event
    if event is None:
        return
    if event.is_step_materialization:
        row = _row(event)
        count = f"{row['rows']:,} rows" if row.get("rows") is not None else ""
        say(f"  {row['asset']}: {count}, {row.get('duration_seconds') or 0:.2f} s")
    elif event.is_step_failure or event.is_step_up_for_retry:
        say(f"  {event.step_key}: {'failed' if event.is_step_failure else 'failed, will be tried again'}")


def _row(event: DagsterEvent) -> dict[str, Any]:
    materialization = event.step_materialization_data.materialization
    metadata = {name: entry.value for name, entry in materialization.metadata.items()}
    known = {name.removeprefix("dagster/"): metadata.get(name) for name in _COUNTS}
    extra = ("cursor_before", "cursor_after", "bytes", "target", "already_done")
    return {
        "asset": materialization.asset_key.to_user_string(),
        **known,
        **{name: metadata[name] for name in extra if name in metadata},
    }


def _failure(event: DagsterEvent) -> dict[str, str]:
    data = event.step_failure_data
    description = data.user_failure_data.description if data.user_failure_data else None
    text = description or (data.error.message if data.error else None) or "it failed"
    return {"step": event.step_key or "", "error": text.strip()}


def _show(
    pipeline: str,
    run_id: str,
    rows: list[dict[str, Any]],
    failures: list[dict[str, str]],
    seconds: float,
    *,
    machine: bool,
) -> None:
    if machine:
        document = {
            "pipeline": pipeline,
            "run_id": run_id,
            "success": not failures,
            "seconds": round(seconds, 3),
        }
        give_json({**document, "assets": rows, "failures": failures})
        return
    header = ["asset", "read", "inserted", "updated", "deleted", "total", "seconds"]
    names = [
        "asset",
        "rows",
        "rows_inserted",
        "rows_updated",
        "rows_deleted",
        "row_count",
        "duration_seconds",
    ]
    give(table(header, [[row.get(name) for name in names] for row in rows]))
    for failure in failures:
        say(f"\nfailed: {failure['step']}\n{failure['error']}")
    say(
        f"\n{pipeline}: {len(rows)} assets stored, {len(failures)} steps failed, {seconds:.1f} s, run {run_id}"
    )
