"""`sqlflow connectors`: which there are, and what each takes."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from sqlflow_dagster.cli.options import AsJson, as_json
from sqlflow_dagster.cli.output import give, give_json, table
from sqlflow_dagster.connectors import registry

app = typer.Typer(
    help="Connectors: the TYPEs of SOURCE and EXPORT.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def list_connectors(format: AsJson = "text") -> None:  # noqa: A002 - the option's name
    """List the connector types. Example: sqlflow connectors list"""
    rows = [
        {"type": name, "writes": kind.sink_options_type is not None, "about": _about(kind)}
        for name, kind in ((name, registry.find(name)) for name in registry.types())
    ]
    if as_json(format):
        give_json(rows)
        return
    give(
        table(
            ["type", "writes", "about"], [[r["type"], "yes" if r["writes"] else "", r["about"]] for r in rows]
        )
    )


@app.command("show")
def show(
    type: Annotated[str, typer.Argument(help="The connector's TYPE.")],  # noqa: A002 - the language's word
    format: AsJson = "text",  # noqa: A002 - the option's name
) -> None:
    """Show a connector's parameters. Example: sqlflow connectors show CSV"""
    kind = registry.find(type)
    parts: dict[str, Any] = {"source": kind.options_type, "export": kind.sink_options_type}
    if as_json(format):
        give_json({name: model.model_json_schema() for name, model in parts.items() if model})
        return
    give(inspect.getdoc(inspect.getmodule(kind)) or "")
    for name, model in parts.items():
        if model:
            fields = model.model_fields.items()
            rows = [[field, _default(info), info.description or ""] for field, info in fields]
            title = "PARAMS" if name == "source" else "OPTIONS of EXPORT"
            give(f"\n{title}\n{table(['name', 'default', 'meaning'], rows)}")


def _about(kind: type) -> str:
    return (inspect.getdoc(inspect.getmodule(kind)) or "").partition("\n")[0]


def _default(info: Any) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    return "" if value in (None, (), {}) else str(value)
