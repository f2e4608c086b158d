"""Results to stdout, talk to stderr, and what each exit status means."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Literal

from sqlflow_dagster.errors import ProjectError, SQLFlowError

OK, FAILED, WRONG_PROJECT = 0, 1, 1
Format = Literal["text", "json"]


def exit_code(error: SQLFlowError) -> int:
    """Return the exit status for an error that ended a command."""
    return WRONG_PROJECT if isinstance(error, ProjectError) else FAILED


def say(text: str) -> None:
    """Talk to the person, on stderr."""
    print(text, file=sys.stderr)


def give(text: str) -> None:
    """Give a result, on stdout."""
    print(text)


def give_json(value: Any) -> None:
    """Give a result as JSON, on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return rows as aligned columns; numbers stand to the right."""
    shown = [[_cell(value) for value in row] for row in rows]
    widths = [max([len(header[i]), *(len(row[i]) for row in shown)]) for i in range(len(header))]
    right = [bool(rows) and all(isinstance(row[i], int | float) or row[i] is None for row in rows)
             for i in range(len(header))]  # fmt: skip
    lines = [_line(list(header), widths, right), "  ".join("-" * width for width in widths)]
    lines += [_line(row, widths, right) for row in shown]
    return "\n".join(lines)


def _line(cells: list[str], widths: list[int], right: list[bool]) -> str:
    padded = (
        cell.rjust(width) if is_right else cell.ljust(width)
        for cell, width, is_right in zip(cells, widths, right, strict=True)
    )
    return "  ".join(padded).rstrip()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
