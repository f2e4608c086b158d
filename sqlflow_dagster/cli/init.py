"""`sqlflow init`: a project that runs at once."""

from __future__ import annotations

import json
import shlex
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
    """Make a project that runs at once: sample data, a pipeline, a profile.

    Example: sqlflow init shop && sqlflow run orders --project shop
    """
    folder = Path(name)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise SettingsError(f"{folder} is there already and not an empty folder; name a new one")
        with as_file(files("sqlflow_dagster.cli") / "template") as template:
            shutil.copytree(
                template, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
            )
        (folder / "gitignore").rename(folder / ".gitignore")
        _name(folder / "sqlflow.yml", folder.resolve().name)
    except OSError as error:
        raise SettingsError(f"{error.filename or folder}: {error.strerror}; choose another folder") from error
    say(f"made {folder}; run it: sqlflow run orders --project {shlex.quote(str(folder))}")


def _name(path: Path, name: str) -> None:
    # A JSON text is a YAML text too, whatever characters the folder's name has.
    path.write_text(path.read_text("utf-8").replace("NAME", json.dumps(name, ensure_ascii=False)), "utf-8")
