"""`sqlflow cursors`: how far each LOAD has read, and how to go back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sqlflow_dagster.cli.instance import use_instance, use_logging
from sqlflow_dagster.cli.options import OutputFormat, ProfileName, ProjectDir, needed, project_folder
from sqlflow_dagster.cli.output import FAILED, fail_over, give, give_json, give_table, say
from sqlflow_dagster.errors import SettingsError

if TYPE_CHECKING:
    from sqlflow_dagster.project import Project
    from sqlflow_dagster.session import Store
    from sqlflow_dagster.state import State

app = typer.Typer(help="Cursors: how far each LOAD has read.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[
    str,
    typer.Argument(metavar="LOAD", help="The LOAD as `list` names it (pipeline.table), or its whole key."),
]
_LONGEST_SHOWN = 60


@app.command("list")
def list_cursors(
    project: ProjectDir = None,
    profile: ProfileName = None,
    format: OutputFormat = "text",  # noqa: A002 - the option's name
) -> None:
    """List the cursor of each LOAD.

    Example: sqlflow cursors list --project examples/online_retail
    """
    from sqlflow_dagster import state  # noqa: PLC0415 - slow, and --help needs none

    with _opened(project, profile) as opened:
        rows = [_row(found) for found in state.read(*opened)]
        left_out = opened[0].plan.left_out
    if format == "json":
        give_json(rows)
    else:
        header = ["load", "source", "cursor", "committed_at"]
        give_table(header, [[_short(row[name]) for name in header] for row in rows])
    fail_over(left_out)


@app.command("show")
def show(
    name: Name,
    project: ProjectDir = None,
    profile: ProfileName = None,
    format: OutputFormat = "text",  # noqa: A002 - the option's name
) -> None:
    """Show what the warehouse and Dagster's run storage remember of a LOAD.

    Example: sqlflow cursors show orders.orders
    """
    from sqlflow_dagster import state  # noqa: PLC0415 - slow, and --help needs none

    with _opened(project, profile) as opened:
        found = _chosen(state.read(*opened), name)
    if format == "json":
        give_json(
            {
                "key": str(found.key),
                "warehouse": json.loads(found.marker.to_json()) if found.marker else None,
                "run_storage": _document(found.stored),
            }
        )
        return
    give(str(found.key))
    warehouse, copy = _document(found.marker.to_json() if found.marker else None), _document(found.stored)
    names = list(dict.fromkeys([*(warehouse or {}), *(copy or {})])) or ["cursor"]
    rows = [[name, _shown(warehouse, name), _shown(copy, name)] for name in names]
    give_table(["", "warehouse", "run storage"], rows)


@app.command("reset")
def reset(
    name: Name,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="VALUE", help="Go back to this value of the cursor column only."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    project: ProjectDir = None,
    profile: ProfileName = None,
) -> None:
    """Have the next run read a LOAD again, from the start or from --to on.

    Example: sqlflow cursors reset orders.orders --to '2026-01-02 00:00:00'
    """
    from sqlflow_dagster import state  # noqa: PLC0415 - slow, and --help needs none

    with _opened(project, profile) as opened:
        found = _chosen(state.read(*opened), name)
        what = f"{found.key.pipeline}.{found.key.table} again, from {'the start' if to is None else to} on"
        if not yes and not typer.confirm(f"The next run reads {what}. Go on?", err=True):
            say("nothing was changed")
            raise typer.Exit(FAILED)
        state.reset(*opened, found.key, to)
    say(f"the next run reads {what}")


@app.command("compact")
def compact(
    keep: Annotated[int, typer.Option("--keep", min=1, help="Markers of each LOAD that stay.")] = 100,
    project: ProjectDir = None,
    profile: ProfileName = None,
) -> None:
    """Delete old markers from the warehouse. Each load leaves one; only the newest is ever read.

    Example: sqlflow cursors compact --keep 1000
    """
    from sqlflow_dagster import state  # noqa: PLC0415 - slow, and --help needs none
    from sqlflow_dagster.project import load_project  # noqa: PLC0415 - slow, and --help needs none

    loaded = load_project(project_folder(project), profile, undiscovered=True, only=needed(None))
    use_logging(loaded.settings)
    say(f"{state.compact(loaded, keep)} markers were deleted")


@contextmanager
def _opened(folder: Path | None, profile: str | None) -> Iterator[tuple[Project, Store]]:
    """Open a project and the cursors that Dagster's run storage keeps of it."""
    from sqlflow_dagster.project import load_project  # noqa: PLC0415 - slow, and --help needs none

    root = project_folder(folder)
    project = load_project(root, profile, undiscovered=True, only=needed(None))
    use_logging(project.settings)
    use_instance(root)
    from sqlflow_dagster.assets.cursors import RunStorage  # noqa: PLC0415 - slow
    from sqlflow_dagster.assets.execute import open_instance  # noqa: PLC0415 - slow

    with open_instance() as instance:
        yield project, RunStorage(instance)


def _chosen(states: Sequence[State], name: str) -> State:
    folded = name.casefold()
    found = [
        state
        for state in states
        if name == str(state.key) or folded == f"{state.key.pipeline}.{state.key.table}".casefold()
    ]
    if len(found) == 1:
        return found[0]
    known = "\n".join(f"  {state.key}" for state in (found or states)) or "  none"
    problem = "several LOADs have this name; use one's whole key" if found else "no LOAD has this name"
    raise SettingsError(f"{name}: {problem}. There are\n{known}")


def _row(state: State) -> dict[str, Any]:
    marker, key = state.marker, state.key
    cursor = marker.cursor if marker else None
    return {
        "load": f"{key.pipeline}.{key.table}",
        "source": f"{key.source}.{key.stream}",
        "cursor": cursor.value if cursor else None,
        "type": cursor.type if cursor else None,
        "committed_at": marker.committed_at if marker else None,
        "in_step": (marker.to_json() if marker else None) == state.stored,
        "key": str(key),
    }


def _document(text: str | None) -> Any:
    """What run storage holds; a text that is no JSON, written by someone else, as it is."""
    try:
        return json.loads(text) if text else None
    except ValueError:
        return {"unreadable": text}


def _shown(document: dict[str, Any] | None, name: str) -> str:
    value = (document or {}).get(name)
    if name == "cursor" and value:
        return f"{value['value']} ({value['type']})"
    return "" if value is None else str(value)


def _short(value: Any) -> Any:
    long = isinstance(value, str) and len(value) > _LONGEST_SHOWN
    return f"{value[: _LONGEST_SHOWN - 1]}…" if long else value
