"""`sqlflow init`: a project that runs at once."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from sqlflow_dagster.cli.output import say
from sqlflow_dagster.errors import SettingsError


def init(
    name: Annotated[str, typer.Argument(help="The folder to make; its name is the project's.")],
) -> None:
    """Make a project that runs at once. Example: sqlflow init shop && sqlflow run orders --project shop"""
    folder = Path(name)
    if folder.exists() and any(folder.iterdir()):
        raise SettingsError(f"{folder} is not empty; name a new folder")
    with as_file(files("sqlflow_dagster.cli") / "template") as template:
        shutil.copytree(template, folder, dirs_exist_ok=True)
    (folder / "gitignore").rename(folder / ".gitignore")
    say(f"made {folder}/; run it: sqlflow run orders --project {folder}")
