"""`sqlflow connectors`: which there are, and what each takes."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sqlflow_dagster.cli.options import (
    OutputFormat,
    ProfileName,
    ProjectDir,
    Vars,
    needed,
    project_folder,
    variables,
)
from sqlflow_dagster.cli.output import FAILED, fail_over, give, give_json, give_table, say
from sqlflow_dagster.errors import SettingsError
from sqlflow_dagster.plan.nodes import Export, Source

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from sqlflow_dagster.health import Checkable
    from sqlflow_dagster.project import Project

app = typer.Typer(
    help="The connectors: the TYPEs of SOURCE and EXPORT.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def list_connectors(format: OutputFormat = "text") -> None:  # noqa: A002 - the option's name
    """List the connector types; none of them is imported for it.

    Example: sqlflow connectors list
    """
    from sqlflow_dagster.connectors import registry  # noqa: PLC0415 - slow, and --help needs none

    others = {point.name.upper(): point.value for point in entry_points(group=registry.GROUP)}
    rows = [{"type": name, "about": _about(name, others.get(name))} for name in registry.types()]
    if format == "json":
        give_json(rows)
    else:
        give_table(["type", "about"], [list(row.values()) for row in rows])


@app.command("show")
def show(
    type: Annotated[str, typer.Argument(help="The connector's TYPE.")],  # noqa: A002 - the language's word
    format: OutputFormat = "text",  # noqa: A002 - the option's name
) -> None:
    """Show what a connector does and the parameters it takes.

    Example: sqlflow connectors show CSV
    """
    from sqlflow_dagster.connectors import registry  # noqa: PLC0415 - slow, and --help needs none

    kind = registry.find(type)
    parts = {"source": kind.options_type, "export": kind.sink_options_type}
    if format == "json":
        give_json({name: model.model_json_schema() for name, model in parts.items() if model})
        return
    give(inspect.getdoc(inspect.getmodule(kind)) or "")
    _give_parameters("PARAMS of SOURCE", kind.options_type)
    if kind.sink_options_type:
        _give_parameters("OPTIONS of EXPORT", kind.sink_options_type)


@app.command("test")
def contact(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A SOURCE or EXPORT, `pipeline.source`, `pipeline.export`, or an entry of the profile's "
            "`connectors`; all without."
        ),
    ] = None,
    project: ProjectDir = None,
    profile: ProfileName = None,
    vars: Vars = None,  # noqa: A002 - the option's name
    format: OutputFormat = "text",  # noqa: A002 - the option's name
) -> None:
    """Contact sources and the targets of exports, and say how they are; exit 1 if one cannot be read or written.

    Nothing is changed there.

    Example: sqlflow connectors test warehouse --format json
    """
    from sqlflow_dagster.health import reachability  # noqa: PLC0415 - slow, and --help needs none
    from sqlflow_dagster.project import load_project  # noqa: PLC0415 - slow, and --help needs none

    planned = load_project(
        project_folder(project), profile, variables(vars), undiscovered=True, only=needed(None)
    )
    rows = []
    for item in _chosen([*planned.sources(), *planned.exports()], name):
        found = reachability(partial(_opened, planned, item))
        rows.append(
            {
                "name": _where(item),
                "role": "source" if isinstance(item, Source) else "target",
                "type": item.type,
                "level": found.level,
                "reachable": found.ok,
                "message": found.message,
                "facts": dict(found.facts),
            }
        )
    if format == "json":
        give_json(rows)
    else:
        _give_health(rows)
    fail_over(() if name else planned.plan.left_out)
    if not all(row["reachable"] for row in rows):
        raise typer.Exit(FAILED)


# What a run would fill in; what names it is tested as of today.
_TODAY = datetime.now(UTC).date().isoformat()
_NOW = {"run_id": "test", "run_date": _TODAY, "partition_start": _TODAY, "partition_end": _TODAY}


def _chosen(items: Sequence[Source | Export], name: str | None) -> Sequence[Source | Export]:
    if name is None:
        return items
    chosen = [item for item in items if name.casefold() in {text.casefold() for text in _names(item)}]
    if not chosen:
        known = ", ".join(map(_where, items)) or "none"
        raise SettingsError(f"there is no source, export or connector {name!r}; the project has {known}")
    return chosen


def _opened(planned: Project, item: Source | Export) -> AbstractContextManager[Checkable]:
    scope = planned.scope(item.scope, builtin=_NOW)
    return planned.connector(item, scope) if isinstance(item, Source) else planned.target(item, scope)


def _where(item: Source | Export) -> str:
    return f"{item.pipeline}.{item.name}" if item.pipeline else item.name


def _names(item: Source | Export) -> set[str]:
    """What it is called: an EXPORT also by the entry of the profile that it goes to."""
    entry = {item.target.removeprefix("connectors.")} if isinstance(item, Export) else set()
    return {item.name, _where(item), *entry}


def _give_health(rows: Sequence[Mapping[str, Any]]) -> None:
    give_table(
        ["name", "", "type", "", "seconds", "how it is"],
        [
            [row["name"], row["role"], row["type"], row["level"], row["facts"].get("seconds"), row["message"]]
            for row in rows
        ],
    )
    for row in rows:
        told = {key: value for key, value in row["facts"].items() if key not in ("seconds", "latency")}
        if told:
            say(f"{row['name']}: {', '.join(f'{key} {value}' for key, value in told.items())}")


def _about(name: str, elsewhere: str | None) -> str:
    """The first line of a connector's own description, read without importing it."""
    if elsewhere:
        return f"from {elsewhere}"
    spec = find_spec(f"sqlflow_dagster.connectors.{name.lower()}")
    if spec is None or spec.origin is None:
        return ""
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text("utf-8"))) or ""
    return text.partition("\n")[0]


def _give_parameters(title: str, model: type[BaseModel]) -> None:
    give(f"\n{title}\n")
    refused: dict[str, str] = getattr(model, "refused", {})
    rows = [
        [name, _default(field), field.description or ""]
        for name, field in _fields(model)
        if name not in refused
    ]
    give_table(["name", "default", "meaning"], rows)


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """The parameters of a model, those of an object in it as `object.name`."""
    for name, field in model.model_fields.items():
        yield field.alias or name, field
        inner = getattr(field.annotation, "model_fields", {})
        yield from ((f"{name}.{key}", value) for key, value in inner.items())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True)
    return "" if value in (None, (), {}) or hasattr(value, "model_fields_set") else str(value)
