"""`sqlflow fmt`: `.sf` files laid out in one way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sqlflow_dagster.cli.options import ProjectDir, project_folder
from sqlflow_dagster.cli.output import FAILED, say
from sqlflow_dagster.language.render import format_script


def fmt(
    files: Annotated[list[Path] | None, typer.Argument(help="Files; all of the project by default.")] = None,
    project: ProjectDir = None,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 if a file would change.")
    ] = False,
) -> None:
    """Format .sf files; SQL bodies and comments are kept as written. Example: sqlflow fmt --check"""
    paths = files or sorted((project_folder(project) / "pipelines").rglob("*.sf"))
    changed = 0
    for path in paths:
        before = path.read_text("utf-8-sig")
        after = format_script(before, str(path))
        if after == before:
            continue
        changed += 1
        say(f"{'would change' if check else 'changed'} {path}")
        if not check:
            path.write_text(after, "utf-8")
    if check and changed:
        raise typer.Exit(FAILED)
