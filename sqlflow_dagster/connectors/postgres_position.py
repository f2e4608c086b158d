"""Where a LOAD stands in the log, with the table as it was then; and what became of the table since.

The log tells rows, not what ALTER TABLE did to rows that nobody touched: those that got a default, a
new name, another type. The catalogue tells most of that, and where it does not, the table is to be
read anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

from sqlflow_dagster.connectors.postgres_logged import File, Logged, LoggedColumn, MadeOf
from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import SchemaChanged, SourceFailed


@dataclass(frozen=True, slots=True)
class _Known:
    """A column as it was: `altered` is the transaction that last altered it, None where that tells nothing."""

    number: int
    type: int
    modifier: int
    altered: int | None = None


@dataclass(frozen=True, slots=True)
class Reached:
    """A position of the log, in which slot of which cluster, and the table as it was there.

    `files` are those of its rows by table: their number, and what made that one a partition. Transactions
    before `horizon` were over. `generated` are the numbers of the columns that Postgres computed. `types` are
    those that are made of parts: the number of the newest part, and a digest of all. `publication` is by what
    the table was in its publication.
    """

    lsn: str
    slot: str
    system: str
    table: int
    files: Mapping[str, Sequence[Any]]
    horizon: int
    columns: Mapping[str, _Known]
    generated: Sequence[int] = ()
    types: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    publication: str = ""

    @classmethod
    def of(cls, lsn: str, slot: str, system: str, logged: Logged, publication: str) -> Reached:
        """Return a position with the table as it is now."""
        columns = {
            # A rewrite alters a column that older rows lack, whatever it holds.
            c.name: _Known(c.number, c.type, c.modifier, None if c.has_missing else c.altered)
            for c in logged.columns
            if not c.generated
        }
        generated = tuple(c.number for c in logged.columns if c.generated)
        types = {str(oid): _newest_and_digest(made.parts) for oid, made in logged.types.items()}
        files = {str(file.table): (file.number, file.attached) for file in logged.files if file.leaf}
        return cls(
            lsn, slot, system, logged.oid, files, logged.horizon, columns, generated, types, publication
        )

    @property
    def cursor(self) -> Cursor:
        """The cursor that says so."""
        return Cursor(
            json.dumps(
                {
                    "lsn": self.lsn, "slot": self.slot, "system": self.system, "table": self.table,
                    "files": self.files, "horizon": self.horizon,
                    "columns": {name: astuple(known) for name, known in self.columns.items()},
                    "generated": self.generated, "types": self.types,
                    "publication": self.publication,
                }
            ),
            "JSON",
        )  # fmt: skip


def read(cursor: Cursor, label: str) -> Reached:
    """Return what a cursor says. Raises SourceFailed where it is none of the log's."""
    try:
        found = json.loads(cursor.value)
        columns = {name: _Known(*known) for name, known in found["columns"].items()}
        where = (found["lsn"], found["slot"], found["system"], found["table"])
        files = (found["files"], found["horizon"])
        return Reached(*where, *files, columns, found["generated"], found["types"], found["publication"])
    except (ValueError, KeyError, TypeError) as error:
        raise SourceFailed(
            f"{label}: the rows there are from another sync_mode or an earlier version, and their cursor is no "
            "position of the log; read everything anew with --full-refresh"
        ) from error


def _newest_and_digest(parts: Sequence[tuple[int, str]]) -> tuple[int, str]:
    return max(number for number, _part in parts), _digest(json.dumps(parts))


def _digest(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Altered:
    """What rows that nobody touched have in columns that are new: another column's value, or one text.

    `untold` are new columns of which they may have values that neither the log nor the catalogue tells, and why.
    """

    renamed: Mapping[str, str] = field(default_factory=dict)
    filled: Mapping[str, str | None] = field(default_factory=dict)
    untold: Mapping[str, str] = field(default_factory=dict)


def altered(before: Reached, now: Logged, label: str) -> Altered:
    """Return what became of the columns.

    Raises SchemaChanged where known columns may have been rewritten in a way that neither the log nor the
    catalogue tells.
    """
    if before.table != now.oid:
        raise SchemaChanged(f"{label}: the table was dropped and made anew; read it anew with --full-refresh")
    _refuse_altered_types(before, now.types, label)
    numbers = {known.number: name for name, known in before.columns.items()}
    # All rows of a partition that is newer are in the log.
    files = [file for file in now.files if str(file.table) in before.files]
    rewritten = any(before.files[str(file.table)][0] != file.number for file in files)
    renamed: dict[str, str] = {}
    filled: dict[str, str | None] = {}
    untold: dict[str, str] = {}
    for column in now.columns:
        if column.generated:
            continue
        was = numbers.get(column.number)
        if was != column.name and column.name in before.columns:
            raise SchemaChanged(
                f"{label}: the column {column.name!r} is another than the one that had this name; read the table anew "
                "with --full-refresh"
            )
        if was is None:
            older = _in_older_rows(column, now.files, files)
            if len(older) > 1 or (rewritten and None in older):
                untold[column.name] = "is new, and the table was rewritten"
            if column.number in before.generated:
                untold[column.name] = "is not computed any more"
            filled[column.name] = older.pop()
            continue
        known = before.columns[was]
        same_type = (known.type, known.modifier) == (column.type, column.modifier)
        # ALTER COLUMN … TYPE … USING may leave the type and change the values.
        if rewritten and not (same_type and known.altered in (None, column.altered)):
            raise SchemaChanged(
                f"{label}: the column {column.name!r} was altered{'' if same_type else ' to another type'}, and the "
                "table rewritten, so that the log does not tell what became of its values; read the table anew with "
                "--full-refresh"
            )
        if was != column.name:
            renamed[column.name] = was
    return Altered(renamed, filled, untold)


def check_told(altered: Altered, layouts: Sequence[Sequence[str]], label: str, *, emptied: bool) -> None:
    """Raise SchemaChanged for a column that some rows have from elsewhere than the log.

    `layouts` are the columns that the log had; `emptied` says that all rows are in it.
    """
    for name, why in altered.untold.items():
        if not emptied or any(name not in layout for layout in layouts):
            raise SchemaChanged(
                f"{label}: the column {name!r} {why}, so that older rows may have values in it that the log does not "
                "tell; read the table anew with --full-refresh"
            )


def other_columns(before: Reached, now: Logged) -> bool:
    """Return whether columns came, went or got other names, of which nothing may be in the log."""
    return {known.number: name for name, known in before.columns.items()} != {
        column.number: column.name for column in now.columns if not column.generated
    }


def _in_older_rows(column: LoggedColumn, files: Sequence[File], before: Sequence[File]) -> set[str | None]:
    """What rows have in a column that is younger than they are: one value, unless partitions differ."""
    leaves = [file.missing for file in files if file.leaf and (file in before or column.name in file.missing)]
    return {missing.get(column.name) for missing in leaves} or {None}


def _refuse_altered_types(before: Reached, types: Mapping[int, MadeOf], label: str) -> None:
    """Rows that nobody touched show another text after a label was renamed, or a part came or went."""
    for oid, made in types.items():
        newest, digest = before.types.get(str(oid), (None, None))
        known = [part for part in made.parts if newest is None or part[0] <= newest]
        if newest is not None and digest != _digest(json.dumps(known)):
            raise SchemaChanged(
                f"{label}: the type {made.shown} was altered (a value renamed, or a part that came or went), so that "
                "rows have other values which the log does not tell; read the table anew with --full-refresh"
            )


def names_of_now(before: Reached, now: Logged, layout: tuple[str, ...], label: str) -> list[str | None]:
    """Return what each column of a part of the log is called now, None for one that is gone.

    Raises SchemaChanged where a column came and got another name, or went, between two reads.
    """
    names = {column.number: column.name for column in now.columns}
    present = {column.name for column in now.columns}
    found: list[str | None] = []
    for name in layout:
        known = before.columns.get(name)
        if known is not None and known.number in names:
            found.append(names[known.number])
        elif known is not None and name not in present:
            found.append(None)
        elif name in present:
            found.append(name)
        else:
            found.append(None)
    _refuse_passing(before, now, layout, found, label)
    return found


def _refuse_passing(
    before: Reached, now: Logged, layout: tuple[str, ...], found: list[str | None], label: str
) -> None:
    """A name that is not known may have been that of a column that has another one before and now."""
    known = {entry.number for entry in before.columns.values()}
    passing = [name for name, is_now in zip(layout, found, strict=True) if is_now is None]
    strange = [name for name in passing if name not in before.columns]
    lacking = [c.name for c in now.columns if c.name not in found and not c.generated]
    gone_missing = any(c.number in known for c in now.columns if c.name in lacking)
    if gone_missing or (strange and lacking):
        raise SchemaChanged(
            f"{label}: the column {', '.join(strange) or lacking[0]} had another name for a while, or came and went, "
            "and the log does not tell which values are whose; read the table anew with --full-refresh"
        )
