"""Writes the reference pages from the code that they describe: python docs/build.py"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from sqlflow_dagster.cli.app import app
from sqlflow_dagster.connectors import registry
from sqlflow_dagster.connectors.options import SourceOptions
from sqlflow_dagster.resilience.policy import DEFAULTS, ResilienceOptions
from sqlflow_dagster.settings import (
    DuckDB,
    Freshness,
    NewFilesSensor,
    Partitions,
    PipelineProfile,
    Profile,
    Retry,
    Schedule,
    UpstreamSensor,
)

HERE = Path(__file__).parent


def pages() -> dict[str, str]:
    """Return each page's text by its file name."""
    return {"connectors.md": connectors(), "profiles.md": profiles(), "cli.md": commands()}


def connectors() -> str:
    lines = [
        "# Connectors",
        "",
        "Each TYPE takes the common parameters below and its own. Unknown ones are refused with the nearest name.",
        "",
        "## Parameters of every source",
        "",
        *_table(SourceOptions, set()),
        "",
        "### `resilience`",
        "",
        inspect.getdoc(ResilienceOptions) or "",
        "",
        *_table(ResilienceOptions, set()),
        "",
        *_usual(),
    ]
    common = set(SourceOptions.model_fields)
    for name in registry.types():
        kind = registry.find(name)
        if not kind.__module__.startswith("sqlflow_dagster."):
            continue
        lines += [
            "",
            f"## {name}",
            "",
            inspect.getdoc(inspect.getmodule(kind)) or "",
            "",
            "PARAMS beside the common ones:",
            "",
        ]
        lines += _table(kind.options_type, common)
        if kind.sink_options_type:
            lines += ["", "OPTIONS of an EXPORT:", "", *_table(kind.sink_options_type, set())]
    return "\n".join(lines) + "\n"


def _usual() -> list[str]:
    """The rules of each family, as a table."""
    lines = [
        "As usual is, in seconds and requests a minute:",
        "",
        "| | tries | waits | factor | in all | circuit opens after | for | limit, burst |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for family, rules in DEFAULTS.items():
        circuit = (
            (f"{rules.breaker_failures} failures", f"{rules.breaker_recovery:g}")
            if rules.breaker_failures
            else ("never", "")
        )
        limit = f"{rules.rate:g}, {rules.burst}" if rules.rate else ""
        lines.append(
            f"| {family.replace('_', ' ')} | {rules.attempts} | {rules.first_wait:g} to {rules.longest_wait:g} | "
            f"{rules.factor:g} | {rules.total:g} | {' | '.join(circuit)} | {limit} |"
        )
    return lines


def profiles() -> str:
    lines = [
        "# Profiles",
        "",
        "`profiles/<name>.yml` is one environment; every key may be left out. `sqlflow run --profile NAME`, the",
        "variable `SQLFLOW_PROFILE` and `profile:` of `sqlflow.yml` choose one, in this order; `dev` without any.",
    ]
    parts: list[tuple[str, type[BaseModel]]] = [
        ("The file", Profile),
        ("`engines.duckdb`", DuckDB),
        ("`pipelines.<name>`, and `defaults` for all of them", PipelineProfile),
        ("`schedule`", Schedule),
        ("`retry`", Retry),
        ("`freshness`", Freshness),
        ("`partitions`", Partitions),
        ("`sensors`: new files", NewFilesSensor),
        ("`sensors`: other pipelines' tables", UpstreamSensor),
    ]
    for title, model in parts:
        lines += ["", f"## {title}", "", inspect.getdoc(model) or "", "", *_table(model, set())]
    return "\n".join(lines) + "\n"


def commands() -> str:
    lines = [
        "# Command line",
        "",
        "Results go to stdout, talk to stderr. Exit status 0 means that all was done; with `--format json` an",
        "error is in the JSON, too.",
    ]
    for name, command in _commands(typer.main.get_command(app), "sqlflow"):
        lines += ["", f"## {name}", "", command.help or ""]
        options = [p for p in command.params if getattr(p, "help", None)]
        if options:
            lines += ["", "| | |", "|---|---|"]
            lines += [f"| `{', '.join(p.opts)}` | {_cell(p.help or '')} |" for p in options]
    return "\n".join(lines) + "\n"


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    for key, child in sorted(getattr(command, "commands", {}).items()):
        if hasattr(child, "commands"):
            yield from _commands(child, f"{name} {key}")
        else:
            yield f"{name} {key}", child


def _table(model: type[BaseModel], without: set[str]) -> list[str]:
    fields = {name: field for name, field in model.model_fields.items() if name not in without}
    if not fields:
        return ["None."]
    lines = ["| name | default | meaning |", "|---|---|---|"]
    for name, field in fields.items():
        shown = field.alias or name
        lines.append(f"| `{shown}` | {_default(field)} | {_cell(field.description or '')} |")
    return lines


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or field.is_required():
        return "required"
    if value in (None, (), {}) or isinstance(value, BaseModel):
        return ""
    return f"`{_cell(repr(value) if isinstance(value, str) and not value.strip() else str(value))}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    for file, text in pages().items():
        (HERE / file).write_text(text, "utf-8")
