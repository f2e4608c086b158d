"""The commands, by group."""

from __future__ import annotations

import typer

from sqlflow_dagster.cli import connectors, cursors, discover, fmt, health, init, run, show, validate

app = typer.Typer(
    name="sqlflow",
    help="SQLFlow pipelines as Dagster assets: load incrementally, transform in SQL, export.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("init")(init.init)
app.command("list")(show.list_pipelines)
app.command("validate")(validate.validate)
app.command("plan")(show.plan)
app.command("discover")(discover.discover)
app.command("run")(run.run)
app.command("health")(health.health)
app.command("fmt")(fmt.fmt)
app.add_typer(cursors.app, name="cursors")
app.add_typer(connectors.app, name="connectors")
app.command("version")(show.version)
