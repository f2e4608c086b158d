"""The `sqlflow` command: prints and exits, and decides nothing."""

from __future__ import annotations

import sys

from sqlflow_dagster.cli.app import app
from sqlflow_dagster.cli.output import exit_code
from sqlflow_dagster.errors import SQLFlowError


def main() -> None:
    """Run the command line; errors of ours go to stderr, without a traceback."""
    try:
        app()
    except SQLFlowError as error:
        print(error, file=sys.stderr)
        sys.exit(exit_code(error))
