"""The `sqlflow` command: prints and exits, and decides nothing."""

from __future__ import annotations

import sys

from sqlflow_dagster.cli.output import FAILED, give_json, say
from sqlflow_dagster.collector import paused
from sqlflow_dagster.errors import SQLFlowError


def main() -> None:
    """Run the command line and exit; errors of ours go to stderr, and with `--format json` to stdout too."""
    from sqlflow_dagster.cli.app import app  # noqa: PLC0415 - importing the package needs no typer
    from sqlflow_dagster.cli.options import asks_for_json, spread_variables  # noqa: PLC0415 - as above

    arguments = spread_variables(sys.argv[1:])
    try:
        with paused():
            app(arguments)
    except SQLFlowError as error:
        if asks_for_json(arguments):
            give_json({"error": str(error)})
        say(str(error))
        sys.exit(FAILED)
