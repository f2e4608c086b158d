"""Connections of our own to one database server: few at a time, and some kept open between two uses."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

# The drivers come without types.
Connection = Any


class Connections(ABC):
    """At most `most` connections to one server at a time, DuckDB's among them; `least` are kept open."""

    def __init__(self, told: Mapping[str, str], least: int, most: int) -> None:
        """Keep what the driver is told; nothing is contacted before a slot asks for a connection."""
        self.told, self.least, self.most = told, least, most
        self._idle: list[Connection] = []
        self._busy = 0
        self._free = threading.Condition()

    @abstractmethod
    def connect(self) -> Connection:
        """Return a new connection. Raises an error of ours that says what to mend."""

    @abstractmethod
    def transaction(self, connection: Connection) -> AbstractContextManager[None]:
        """Make the block one read-only transaction of a single snapshot; the server's errors become ours."""

    @abstractmethod
    def descriptor(self, connection: Connection) -> int | None:
        """Return the descriptor of a connection, None where it is closed."""

    @abstractmethod
    def end(self, connection: Connection) -> None:
        """Close a connection, which may be broken already."""

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        """Wait until one more connection is allowed; it is taken until the block ends."""
        with self._free:
            self._free.wait_for(lambda: self._busy < self.most)
            self._busy += 1
            surplus = [self._idle.pop() for _ in range(max(0, self._busy + len(self._idle) - self.most))]
        try:
            # One that stands idle serves this slot; only those beyond are closed.
            yield Slot(self, surplus)
        finally:
            self._end(surplus)
            with self._free:
                self._busy -= 1
                self._free.notify()

    def take(self) -> Connection | None:
        """Return an idle connection, None where there is none."""
        with self._free:
            return self._idle.pop() if self._idle else None

    def give_back(self, connection: Connection) -> bool:
        """Keep a connection for the next slot; whether it is kept."""
        with self._free:
            kept = len(self._idle) < self.least and self._busy + len(self._idle) < self.most
            if kept:
                self._idle.append(connection)
        return kept

    def idle(self) -> list[int]:
        """Return the descriptors of connections that stand idle."""
        with self._free:
            found = [self.descriptor(connection) for connection in self._idle]
        return [descriptor for descriptor in found if descriptor is not None]

    def close(self) -> None:
        """Close what stands idle."""
        with self._free:
            idle, self._idle = self._idle, []
        self._end(idle)

    def _end(self, connections: list[Connection]) -> None:
        for connection in connections:
            self.end(connection)


@dataclass
class Slot:
    """Leave for one connection."""

    pool: Connections
    _own: list[Connection]

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Lend a connection inside a read-only transaction; a broken one is closed afterwards."""
        connection = (self._own.pop() if self._own else self.pool.take()) or self.pool.connect()
        fine = False
        try:
            with self.pool.transaction(connection):
                yield connection
            fine = True
        finally:
            if not fine or not self.pool.give_back(connection):
                self.pool.end(connection)
