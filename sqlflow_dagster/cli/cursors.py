"""`sqlflow cursors`: how far each LOAD has read, and how to go back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sqlflow_dagster.cli.options import AsJson, ProfileName, ProjectDir, as_json, project_folder, use_instance
from sqlflow_dagster.cli.output import FAILED, give, give_json, say, table
from sqlflow_dagster.errors import SettingsError

app = typer.Typer(help="Cursors: how far each LOAD has read.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(help="The LOAD, as `list` names it: pipeline.table, or its whole key.")]


def _open(project: Path | None, profile: str | None) -> tuple[Any, Any]:
    root = project_folder(project)
    use_instance(root)
    from dagster import DagsterInstance  # noqa: PLC0415 - slow, and --help needs none

    from sqlflow_dagster.assets.cursors import RunStorage  # noqa: PLC0415 - slow
    from sqlflow_dagster.project import load_project  # noqa: PLC0415 - slow

    return load_project(root, profile), RunStorage(DagsterInstance.get())


def _chosen(states: Any, name: str) -> Any:
    found = [s for s in states if name in (str(s.key), f"{s.key.pipeline}.{s.key.table}")]
    if len(found) == 1:
        return found[0]
    known = "\n".join(f"  {s.key}" for s in (found or states))
    raise SettingsError(
        f"{name}: {'several LOADs have' if found else 'no LOAD has'} this name; there are\n{known}"
    )


def _row(state: Any) -> dict[str, Any]:
    marker = state.marker
    return {
        "load": f"{state.key.pipeline}.{state.key.table}",
        "source": f"{state.key.source}.{state.key.stream}",
        "cursor": marker.cursor.value if marker and marker.cursor else None,
        "type": marker.cursor.type if marker and marker.cursor else None,
        "committed_at": marker.committed_at if marker else None,
        "in_step": (marker.to_json() if marker else None) == state.stored,
        "key": str(state.key),
    }


@app.command("list")
def list_cursors(project: ProjectDir = None, profile: ProfileName = None, format: AsJson = "text") -> None:  # noqa: A002 - the option's name
    """List the cursor of each LOAD. Example: sqlflow cursors list"""
    from sqlflow_dagster import state  # noqa: PLC0415 - slow

    rows = [_row(s) for s in state.read(*_open(project, profile))]
    if as_json(format):
        give_json(rows)
        return
    header = ["load", "source", "cursor", "committed_at"]
    give(table(header, [[_short(row[name]) for name in header] for row in rows]))


@app.command("show")
def show(name: Name, project: ProjectDir = None, profile: ProfileName = None) -> None:
    """Show what the warehouse and run storage remember. Example: sqlflow cursors show shop.orders"""
    from sqlflow_dagster import state  # noqa: PLC0415 - slow

    found = _chosen(state.read(*_open(project, profile)), name)
    give_json(
        {
            "key": str(found.key),
            "warehouse": found.marker.to_json() if found.marker else None,
            "run_storage": found.stored,
        }
    )


@app.command("reset")
def reset(
    name: Name,
    to: Annotated[
        str | None, typer.Option("--to", help="Go back to this value of the cursor column.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    project: ProjectDir = None,
    profile: ProfileName = None,
) -> None:
    """Read a LOAD again from the start, or from --to on. Example: sqlflow cursors reset shop.orders --yes"""
    from sqlflow_dagster import state  # noqa: PLC0415 - slow

    opened = _open(project, profile)
    found = _chosen(state.read(*opened), name)
    what = f"from {to} on" if to else "from the start"
    if not yes and not typer.confirm(f"The next run reads {found.key} again {what}. Go on?", err=True):
        raise typer.Exit(FAILED)
    state.reset(*opened, found.key, to)
    say(f"the next run reads {found.key} again {what}")


def _short(value: Any) -> Any:
    return f"{value[:57]}…" if isinstance(value, str) and len(value) > 60 else value
