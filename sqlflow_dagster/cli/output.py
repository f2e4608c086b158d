"""Results to stdout, talk to stderr, and what each exit status means."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

# What was asked for is done; it is not, or not wholly; the command line was wrong (typer's); Ctrl-C.
OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
# Wide enough that a table in a pipe or a file is never cut or wrapped.
_UNLIMITED = 10_000


def say(text: str) -> None:
    """Talk to the person, on stderr."""
    print(text, file=sys.stderr)


def give(text: str) -> None:
    """Give a result, on stdout."""
    print(text)


def give_json(value: Any) -> None:
    """Give a result as JSON, on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def fail_over(left_out: Sequence[str]) -> None:
    """End with FAILED where pipelines with problems were left out of what was asked for."""
    for name in left_out:
        say(f"{name} is left out, something in it is wrong: sqlflow validate {name}")
    if left_out:
        sys.exit(FAILED)


def give_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Give rows as an aligned table, on stdout; columns of numbers stand to the right."""
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - slow, and most commands need none
    from rich.console import Console  # noqa: PLC0415 - slow
    from rich.table import Table  # noqa: PLC0415 - slow

    # What comes from outside is shown as it is: no markup, no emoji codes, no colours of its own.
    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = _UNLIMITED
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for index, name in enumerate(header):
        numeric = bool(rows) and all(isinstance(row[index], int | float | None) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(cell, row))
    console.print(table)


def cell(value: Any) -> str:
    """Return a value as a table shows it: numbers grouped by thousands, None as nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def count(number: int, noun: str) -> str:
    """Return `1 problem`, `2 problems`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def leave(status: int) -> NoReturn:
    """End the process now, also where a step still runs in another thread.

    What is stored was committed; the rest is undone by the next start, as after a kill.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
