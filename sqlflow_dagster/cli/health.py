"""`sqlflow health`: how fresh tables are, and whether their loads brought as many rows as usual."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sqlflow_dagster.cli.instance import use_instance
from sqlflow_dagster.cli.options import OutputFormat, ProfileName, ProjectDir, needed, project_folder
from sqlflow_dagster.cli.output import FAILED, fail_over, give_json, give_table

if TYPE_CHECKING:
    from sqlflow_dagster.assets.history import TableHealth


def health(
    pipeline: Annotated[str | None, typer.Argument(help="One pipeline; all of them without.")] = None,
    project: ProjectDir = None,
    profile: ProfileName = None,
    format: OutputFormat = "text",  # noqa: A002 - the option's name
) -> None:
    """Say how fresh tables are and whether their loads were as usual; exit 1 if one is too old.

    Example: sqlflow health orders --format json
    """
    from sqlflow_dagster.project import load_project  # noqa: PLC0415 - slow, and --help needs none

    root = project_folder(project)
    planned = load_project(root, profile, undiscovered=True, only=needed(pipeline))
    use_instance(root)
    from sqlflow_dagster.assets.execute import open_instance  # noqa: PLC0415 - reads DAGSTER_HOME, and slow
    from sqlflow_dagster.assets.history import table_healths  # noqa: PLC0415 - as above

    with open_instance() as instance:
        found = list(table_healths(planned, instance, pipeline, datetime.now(UTC)))
    if format == "json":
        give_json([_document(item) for item in found])
    else:
        give_table(
            ["table", "", "freshness", "rows of the last load"],
            [[item.table, item.level, item.freshness.message, item.volume.message] for item in found],
        )
    fail_over(() if pipeline else planned.plan.left_out)
    if any(item.level == "fail" for item in found):
        raise typer.Exit(FAILED)


def _document(item: TableHealth) -> dict[str, Any]:
    parts = {"freshness": item.freshness, "volume": item.volume}
    return {
        "table": item.table,
        "level": item.level,
        "last": item.last.isoformat() if item.last else None,
        "rows": list(item.rows),
        **{
            name: {"level": part.level, "message": part.message, **part.facts} for name, part in parts.items()
        },
    }
