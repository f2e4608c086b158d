"""The command line as a person uses it: arguments in, exit status, stdout and stderr out."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass

import pytest

from sqlflow_dagster.cli import main


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def sqlflow(monkeypatch, capsys):
    """Run `sqlflow` with the given arguments, in this process."""
    # Set, then deleted: so that what the command sets itself is gone again after the test.
    monkeypatch.setenv("DAGSTER_HOME", "unset")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments) -> Result:
        monkeypatch.setattr(sys, "argv", ["sqlflow", *map(str, arguments)])
        os.environ.pop("DAGSTER_HOME", None)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Result(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def shop(bench):
    """A project with a table made from another."""
    bench.pipeline(
        "-- What the shop sold\nCREATE TABLE a AS SELECT 1 AS x;\nCREATE TABLE b AS FROM a;\n", "shop"
    )
    return bench
