"""`sqlflow connectors`: which there are, and what each takes."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sqlflow_dagster.cli.options import OutputFormat
from sqlflow_dagster.cli.output import give, give_json, give_table

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

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
        yield name, field
        inner = getattr(field.annotation, "model_fields", {})
        yield from ((f"{name}.{key}", value) for key, value in inner.items())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True)
    return "" if value in (None, (), {}) or hasattr(value, "model_fields_set") else str(value)
