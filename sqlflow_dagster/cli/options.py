"""Options that several commands share, and how they are read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sqlflow_dagster.errors import SettingsError

ProjectDir = Annotated[
    Path | None,
    typer.Option(
        "--project",
        "-p",
        metavar="DIR",
        help="The project's folder; without it the nearest one upwards that has `pipelines/`.",
    ),
]
ProfileName = Annotated[
    str | None,
    typer.Option("--profile", metavar="NAME", help="The profile; without it the project's default one."),
]
Vars = Annotated[
    list[str] | None,
    typer.Option(
        "--vars", metavar="NAME=VALUE", help="Variables: one or more name=value, or a JSON object. They win."
    ),
]
Format = Literal["text", "json"]
OutputFormat = Annotated[Format, typer.Option("--format", help="For people, or for machines.")]

_VARIABLE = re.compile(r"([^\W\d][\w.]*)=(.*)", re.DOTALL)


def project_folder(given: Path | None) -> Path:
    """Return the project's folder. Raises SettingsError where there is none."""
    if given is not None:
        if not given.is_dir():
            raise SettingsError(f"{given}: no such folder; name the project's with --project DIR")
        return given
    return folder_above(Path.cwd())


def needed(pipeline: str | None) -> tuple[str, ...]:
    """Return the pipelines whose problems stop a command: the one it is asked for, else none of them."""
    return () if pipeline is None else (pipeline,)


def folder_above(place: Path) -> Path:
    """Return the project that `place` lies in. Raises SettingsError where it lies in none."""
    for folder in (place, *place.parents):
        if (folder / "pipelines").is_dir() or (folder / "sqlflow.yml").is_file():
            return folder
    raise SettingsError(
        f"{place}: no project here or above (a folder with `pipelines/`); "
        "name one with --project DIR, or make one: sqlflow init NAME"
    )


def variables(given: Sequence[str] | None) -> Mapping[str, Any]:
    """Return the variables of `--vars`; a value that reads as a JSON number or boolean is one.

    Raises SettingsError for what is neither `name=value` nor a JSON object.
    """
    from sqlflow_dagster.language.variables import typed  # noqa: PLC0415 - only where there are some

    values: dict[str, Any] = {}
    for text in given or ():
        if text.lstrip().startswith("{"):
            values |= _object(text)
            continue
        found = _VARIABLE.fullmatch(text.strip())
        if not found:
            raise SettingsError(f"--vars {text!r}: write name=value, or a JSON object of names and values")
        values[found.group(1)] = typed(found.group(2))
    return values


def spread_variables(arguments: Sequence[str]) -> list[str]:
    """Return the command line with `--vars a=1 b=2` written as `--vars a=1 --vars b=2`."""
    spread: list[str] = []
    for index, argument in enumerate(arguments):
        follows = len(spread) > 1 and spread[-2] == "--vars" and arguments[index - 1] != "--vars"
        if follows and _VARIABLE.fullmatch(argument):
            spread.append("--vars")
        spread.append(argument)
    return spread


def asks_for_json(arguments: Sequence[str]) -> bool:
    """Return whether a command line whose command did not get to its end asks for JSON."""
    return "--format=json" in arguments or ("--format", "json") in pairwise(arguments)


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingsError(f"--vars: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise SettingsError("--vars: the JSON must be an object of names and values")
    for name, item in value.items():
        if not _VARIABLE.fullmatch(f"{name}="):
            raise SettingsError(f"--vars: {name!r} cannot be a variable's name")
        if not isinstance(item, str | int | float | bool | None):
            raise SettingsError(f"--vars: {name!r} must be a text, a number, true, false or null")
    return value
