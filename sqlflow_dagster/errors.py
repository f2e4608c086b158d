"""Every exception of the product, named by what its reader does next.

::

    SQLFlowError
    ├── ProjectError            mend a file of the project, then run again
    │   ├── PipelineError       one or more problems in `.sf` files, each with its place
    │   ├── SettingsError       a profile, `sqlflow.yml` or `.env`
    │   ├── BadOption           a parameter of a connector
    │   └── NotDiscovered       `sqlflow discover` has to look a source's streams up first
    ├── SourceError             look at the far side
    │   ├── NotAllowed          ask for access
    │   ├── RetryLater          wait `after` seconds and try again
    │   ├── SourceFailed        the read broke; what was stored before is intact
    │   └── SchemaChanged       decide what the new schema means
    ├── WarehouseError          look at the warehouse
    │   ├── WarehouseBusy       another process holds it; wait or end that process
    │   ├── CursorConflict      another run moved the cursor first; read again
    │   ├── LoadRefused         the rows break a promise (key, cursor, schema); nothing was stored
    │   └── QueryFailed         a user's SQL or Python function raised
    ├── ExportFailed            nothing of the result is visible at the target
    ├── RunStorageFailed        look at Dagster's database; rows and cursors are safe in the warehouse
    └── Canceled                nothing; what was committed stays
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class SQLFlowError(Exception):
    """Base of all errors raised on purpose; its text says what, where and the next step."""


class ProjectError(SQLFlowError):
    """Something written in the project has to be mended."""


class SettingsError(ProjectError):
    """A profile, `sqlflow.yml` or `.env` is wrong; the text names the file and the key."""


class BadOption(ProjectError):
    """A parameter of a connector is unknown, missing or of a wrong type."""

    def __init__(self, message: str, *, option: str | None = None) -> None:
        """Keep `option`, the parameter's name, so that validation can point at it."""
        super().__init__(message)
        self.option = option


class NotDiscovered(ProjectError):
    """The streams of a source are given by patterns that have not been looked up yet."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong at one place of a `.sf` file.

    `line` and `column` count from 1, in code points; `length` is the width of the caret's span.
    """

    path: Path | str
    line: int
    column: int
    message: str
    hint: str = ""
    source_line: str = ""
    length: int = 1

    def __str__(self) -> str:
        """`file:line:column: message`, the source line, a caret under the span, and the hint."""
        text = [f"{self.path}:{self.line}:{self.column}: {self.message}"]
        if self.source_line:
            # Tabs are kept before the caret, so that it stands under its span in any terminal.
            lead = "".join("\t" if c == "\t" else " " for c in self.source_line[: self.column - 1])
            width = max(1, min(self.length, len(self.source_line) - self.column + 1))
            text += [f"    {self.source_line}", f"    {lead}{'^' * width}"]
        if self.hint:
            text.append(f"    {self.hint}")
        return "\n".join(text)


class PipelineError(ProjectError):
    """One or more `.sf` files are wrong; `problems` holds all that one pass found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Join the problems' texts; the order is the one given."""
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class SourceError(SQLFlowError):
    """The far side of a connector did not do what was asked."""


class NotAllowed(SourceError):
    """The far side refused us; waiting does not help, access does."""


class RetryLater(SourceError):
    """The far side cannot answer now."""

    def __init__(self, message: str, *, after: float | None = None, tries: int = 0) -> None:
        """Keep `after`, the seconds the far side asked us to wait, None where it did not say.

        `tries` says how often it was tried in vain before this was raised: a connector leaves it 0.
        """
        super().__init__(message)
        self.after = after
        self.tries = tries


class SourceFailed(SourceError):
    """The read broke, and asking again at once would not mend it; by a later try of the step it may be mended."""


class SchemaChanged(SourceError):
    """The far side's schema is no longer the one the policy allows."""


class WarehouseError(SQLFlowError):
    """The warehouse did not do what was asked."""


class WarehouseBusy(WarehouseError):
    """Another process holds the warehouse file; the text names its process id."""


class CursorConflict(WarehouseError):
    """Another run committed to the same state key after this one had read its cursor."""


class LoadRefused(WarehouseError):
    """The rows break a promise; the target table and the cursor are as they were."""


class QueryFailed(WarehouseError):
    """A user's SQL or Python function raised; the table it writes is as it was."""


class ExportFailed(SQLFlowError):
    """An EXPORT did not complete; the target is as it was."""


class RunStorageFailed(SQLFlowError):
    """Dagster's run storage did not answer; the copy of a cursor was not read or written."""


class Canceled(SQLFlowError):
    """The run was canceled while a source was read; the next one goes on from what was committed."""
