"""Options that several commands share, and how they are read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sqlflow_dagster.errors import SettingsError
from sqlflow_dagster.language.variables import typed

ProjectDir = Annotated[
    Path | None,
    typer.Option(
        "--project", "-p", help="The project's folder; else the nearest one above with `pipelines/`."
    ),
]
ProfileName = Annotated[
    str | None, typer.Option("--profile", help="The profile; the project's default without it.")
]
Vars = Annotated[
    list[str] | None,
    typer.Option("--vars", help="`name=value`, may be given several times, or one JSON object."),
]
AsJson = Annotated[str, typer.Option("--format", help="`text` or `json`.")]


def project_folder(given: Path | None) -> Path:
    """Return the project's folder. Raises SettingsError where there is none."""
    if given is not None:
        return given
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "pipelines").is_dir():
            return folder
    raise SettingsError(
        f"{here}: no project here (a folder with `pipelines/`); use --project, or sqlflow init"
    )


def variables(given: list[str] | None) -> Mapping[str, Any]:
    """Return the variables of `--vars`; a value that reads as a number or boolean is one.

    Raises SettingsError for what is neither `name=value` nor a JSON object.
    """
    values: dict[str, Any] = {}
    for text in given or ():
        if text.lstrip().startswith("{"):
            values |= _object(text)
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier():
            raise SettingsError(f"--vars {text!r}: write name=value, or a JSON object")
        values[name.strip()] = typed(value)
    return values


def as_json(given: str) -> bool:
    """Whether `--format` asks for JSON. Raises SettingsError for another word."""
    if given not in ("text", "json"):
        raise SettingsError(f"--format {given!r}: write text or json")
    return given == "json"


def use_instance(root: Path) -> None:
    """Make `.dagster/` of the project Dagster's home, unless the environment names another."""
    if os.environ.get("DAGSTER_HOME"):
        return
    home = root.resolve() / ".dagster"
    home.mkdir(exist_ok=True)
    config = home / "dagster.yaml"
    if not config.exists():
        config.write_text("telemetry:\n  enabled: false\n", "utf-8")
    os.environ["DAGSTER_HOME"] = str(home)


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingsError(f"--vars: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise SettingsError("--vars: the JSON must be an object of names and values")
    return value
