"""Changes of one table, in the order of the log → the last state of each of its rows.

Memory is bounded: what does not fit waits in an SQLite file. A value that an update left alone is
taken from the row's state before, as far as that came in these changes; else it stays `UNCHANGED`,
to be taken from the row as it is stored, under the key that it had then.
"""

from __future__ import annotations

import errno
import marshal
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, cast

from sqlflow_dagster.connectors.pgoutput import (
    UNCHANGED,
    Delete,
    Insert,
    Relation,
    Truncate,
    Update,
    Value,
    Values,
)
from sqlflow_dagster.errors import SchemaChanged

# What a row takes in memory beside its values, as a rough guess.
_BYTES_A_ROW = 600

# Later ones write values that are equal as different bytes.
_MARSHAL = 0

Key = tuple[Value, ...]


class State(NamedTuple):
    """A row after its last change. `layout` names the columns of its `values`.

    `origin` is the number of the key under which unchanged values are stored, None for its own.
    """

    gone: bool
    layout: int
    values: Values
    origin: int | None


class States:
    """The last states of the rows of one table; keys are those of `key`'s columns.

    `emptied` says that the table was truncated: what was stored before is gone. `size` is a rough
    count of the bytes that came.
    """

    def __init__(self, path: Path, key: Sequence[str], memory: int) -> None:
        """Spill to a file at `path` beyond `memory` bytes."""
        self.layouts: list[tuple[str, ...]] = []
        self.emptied = False
        self.size = 0
        self._key_columns = tuple(key)
        self.path, self._memory = path, memory
        self._key: Callable[[Values], Key] = tuple
        self._recent: dict[Key, State] = {}
        self._held = 0
        self._numbers: dict[Key, int] = {}
        self._file: sqlite3.Connection | None = None
        self._spilled = 0

    def close(self) -> None:
        """Remove the file."""
        if self._file is not None:
            self._file.close()
            with suppress(FileNotFoundError):
                self.path.unlink()

    def begin(self, relation: Relation) -> None:
        """Take the columns of the changes that follow.

        Raises SchemaChanged where the key's columns are not among them.
        """
        names = tuple(column.name for column in relation.columns)
        if self.layouts and self.layouts[-1] == names:
            return
        if self.empty:
            self.layouts.clear()
        missing = [name for name in self._key_columns if name not in names]
        if missing:
            raise SchemaChanged(
                f"{relation.schema}.{relation.name}: the key column {', '.join(missing)} is gone from its "
                "log; mend `primary_key`, then run with --full-refresh"
            )
        places = [names.index(name) for name in self._key_columns]
        self._key = lambda values: tuple(values[place] for place in places)
        self.layouts.append(names)

    def apply(self, change: Insert | Update | Delete | Truncate, size: int) -> None:
        """Take one change, which came in `size` bytes."""
        self.size += size
        match change:
            case Insert(new=new):
                self._put(self._key(new), State(False, self._layout, new, None), size)
            case Update():
                self._update(change, size)
            case Delete(old=old, whole=whole):
                self._delete(self._key(old), old, size, whole=whole)
            case Truncate():
                self._empty()

    def __iter__(self) -> Iterator[tuple[int | None, State]]:
        """Yield each row's number, where another row refers to it, and its state, as they were last touched."""
        if self._file is None:
            for key, state in self._recent.items():
                yield self._numbers.get(key), state
            return
        self._spill()
        numbers = {_key(key): number for key, number in self._numbers.items()}
        for key, state in self._file.execute("SELECT key, state FROM states ORDER BY place"):
            yield numbers.get(key), _read(state)

    def __bool__(self) -> bool:
        """Whether a change came."""
        return self.emptied or not self.empty

    @property
    def empty(self) -> bool:
        """Whether there is no row's state."""
        return not (self._recent or self._spilled)

    @property
    def _layout(self) -> int:
        return len(self.layouts) - 1

    def _update(self, change: Update, size: int) -> None:
        new, old = change.new, change.old
        if old is not None and UNCHANGED in new:
            # Of the old row, only the key came, or all of it.
            known = self._key_places if not change.whole else range(len(new))
            new = tuple(
                old[place] if value is UNCHANGED and place in known else value
                for place, value in enumerate(new)
            )
        key = self._key(new)
        before = self._key(old) if old is not None else key
        origin: int | None = None
        if UNCHANGED in new:
            new, origin = self._filled(new, before, moved=before != key)
        if before != key and old is not None:
            self._delete(before, old, 0, whole=change.whole)
        self._put(key, State(False, self._layout, new, origin), size)

    @property
    def _key_places(self) -> set[int]:
        names = self.layouts[-1]
        return {names.index(name) for name in self._key_columns}

    def _filled(self, new: Values, before: Key, *, moved: bool) -> tuple[Values, int | None]:
        """Values with those that did not change, as far as they came, and where the others are."""
        state = self._get(before)
        if state is not None:
            known = dict(zip(self.layouts[state.layout], state.values, strict=True))
            names = self.layouts[-1]
            new = tuple(
                known.get(name, UNCHANGED) if value is UNCHANGED else value
                for name, value in zip(names, new, strict=True)
            )
            if UNCHANGED not in new:
                return new, None
            if state.origin is not None:
                return new, state.origin
        return new, self._number(before) if moved else None

    def _number(self, key: Key) -> int:
        return self._numbers.setdefault(key, len(self._numbers) + 1)

    def _delete(self, key: Key, old: Values, size: int, *, whole: bool) -> None:
        state = self._get(key)
        if whole:
            if state is not None and self._is_another(state, old):
                return
            gone = State(True, self._layout, old, None)
        elif state is not None:
            # Its last values are known, or where they are.
            gone = state._replace(gone=True)
        else:
            places = self._key_places
            values = tuple(value if place in places else UNCHANGED for place, value in enumerate(old))
            gone = State(True, self._layout, values, None)
        self._put(key, gone, size)

    def _is_another(self, state: State, old: Values) -> bool:
        """Whether a row came under a key before the one that had it went: some keys are checked at the commit only."""
        known = state.layout == self._layout and UNCHANGED not in state.values
        return known and not state.gone and state.values != old

    def _empty(self) -> None:
        self._recent.clear()
        self._numbers.clear()
        self._held = 0
        self.emptied = True
        self._spilled = 0
        del self.layouts[:-1]
        if self._file is not None:
            self._file.execute("DELETE FROM states")

    def _put(self, key: Key, state: State, size: int) -> None:
        # Behind the others, also where it was there before.
        self._recent.pop(key, None)
        self._recent[key] = state
        self._held += size + _BYTES_A_ROW
        if self._held > self._memory:
            self._spill()

    def _get(self, key: Key) -> State | None:
        state = self._recent.get(key)
        if state is not None or self._file is None:
            return state
        row = self._file.execute("SELECT state FROM states WHERE key = ?", [_key(key)]).fetchone()
        return _read(row[0]) if row else None

    def _spill(self) -> None:
        try:
            self._write()
        except sqlite3.OperationalError as error:
            # Its disk is full: told as of any other file.
            raise OSError(errno.EIO, str(error)) from error
        self._spilled += len(self._recent)
        self._recent.clear()
        self._held = 0

    def _write(self) -> None:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._file.execute("PRAGMA journal_mode = OFF")
            self._file.execute("PRAGMA synchronous = OFF")
            self._file.execute("PRAGMA temp_store = FILE")
            self._file.execute("PRAGMA cache_size = -32000")
            self._file.execute("CREATE TABLE states (place INTEGER PRIMARY KEY, key BLOB UNIQUE, state BLOB)")
        self._file.execute("BEGIN")
        self._file.executemany(
            "INSERT OR REPLACE INTO states VALUES (?, ?, ?)",
            (
                (self._spilled + place, _key(key), _written(state))
                for place, (key, state) in enumerate(self._recent.items())
            ),
        )
        self._file.execute("COMMIT")


def _plain(values: Values) -> tuple[str | int | None, ...]:
    """Values as they can be written: nothing that comes from the log is a number, and one stands for UNCHANGED."""
    if UNCHANGED not in values:
        return cast("tuple[str | None, ...]", values)
    return tuple(0 if value is UNCHANGED else value for value in values)


def _key(key: Key) -> bytes:
    return marshal.dumps(_plain(key), _MARSHAL)


def _written(state: State) -> bytes:
    return marshal.dumps((state.gone, state.layout, _plain(state.values), state.origin), _MARSHAL)


def _read(written: bytes) -> State:
    gone, layout, values, origin = marshal.loads(written)  # noqa: S302 - written here, and nowhere else
    if 0 in values:
        values = tuple(UNCHANGED if value == 0 else value for value in values)
    return State(gone, layout, values, origin)
