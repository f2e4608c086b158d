"""The `sqlflow` command: prints and exits, and decides nothing."""

from __future__ import annotations

import sys

from sqlflow_dagster.cli.output import FAILED, say
from sqlflow_dagster.collector import paused
from sqlflow_dagster.errors import SQLFlowError


def main() -> None:
    """Run the command line and exit; errors of ours go to stderr, without a traceback."""
    from sqlflow_dagster.cli.app import app  # noqa: PLC0415 - importing the package needs no typer
    from sqlflow_dagster.cli.options import spread_variables  # noqa: PLC0415 - as above

    try:
        with paused():
            app(spread_variables(sys.argv[1:]))
    except SQLFlowError as error:
        say(str(error))
        sys.exit(FAILED)
