"""What sources of tables on a database server share: their connections, and what is said of cursors and keys."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

from sqlflow_dagster.connectors.base import Span, Stream
from sqlflow_dagster.connectors.sql_options import ServerOptions
from sqlflow_dagster.connectors.sql_select import C, Selected
from sqlflow_dagster.connectors.tables import Name, Tables
from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import RetryLater
from sqlflow_dagster.language.tokens import Unclosed, scan
from sqlflow_dagster.sql import Sql, fold, sql

log = logging.getLogger(__name__)

O = TypeVar("O", bound=ServerOptions)  # noqa: E741 - the type parameter's usual name
_TIMES = ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE")
_AFTER_END = re.compile(r"[\s;]*+(?:(?:--|#)[^\n]*+[\s;]*+|/\*.*?\*/[\s;]*+)*+", re.DOTALL)


class ServerTables(Tables[O]):
    """Tables of a server, over connections that the subclass keeps as `_connections`."""

    def recover(self, error: RetryLater) -> None:
        del error
        self.close()

    def close(self) -> None:
        # Nothing is made only to be closed: definitions open connectors that never connect.
        if connections := self.__dict__.get("_connections"):
            connections.close()

    def query_relation(self) -> Sql:
        """Return what stands behind FROM for the `query`."""
        return sql("({query}\n) AS query", query=Sql(_without_end(self.options.query or "")))

    def _needed(self, keys: Sequence[str], cursor: str | None) -> tuple[str, ...]:
        """The columns that the warehouse looks at beside those that are stored."""
        options = self.options
        named = [*options.primary_key, *([cursor] if cursor else []), *options.mask]
        named += [item.column for item in options.filters]
        return tuple(dict.fromkeys([*named, *(() if options.primary_key else keys)]))

    def asked(
        self, keys: Sequence[str], cursor: str | None, since: Cursor | None, span: Span
    ) -> dict[str, Any]:
        """Return what the options want of a relation whose keys are `keys`, by the names of `Wanted`."""
        options = self.options
        return {
            "columns": options.columns,
            "needed": self._needed(keys, cursor),
            "excluded": options.exclude_columns,
            "types": options.types,
            "conditions": options.filters,
            "cursor_field": cursor,
            "since": since if options.sync_mode == "incremental" else None,
            "span": span,
        }

    @staticmethod
    def told_apart(keys: Sequence[str], own: Sequence[str]) -> Sequence[str]:
        """Return the keys that rows are to be grouped by; none where the relation's own key keeps them apart."""
        given = {fold(key) for key in keys}
        return () if own and {fold(key) for key in own} <= given else keys

    def time_of(self, selected: Selected[C], cursor: str, advice: str) -> str | None:
        """Return the type of an incremental cursor that is a time; else None, and a warning ending in `advice`."""
        if self.options.sync_mode != "incremental":
            return None
        kind = next(k for name, k in selected.columns.items() if fold(name) == fold(cursor))
        if kind in _TIMES:
            return kind
        if not self.options.lookback_window:
            log.warning(
                "%s: a row whose %s is lower may be committed later than one whose is higher, and would be missed; %s",
                selected.label,
                cursor,
                advice,
            )
        return None

    def warn_of_doubts(self, doubts: Collection[str], label: str) -> None:
        """Say what the source cannot know of transactions that are open."""
        if not self.options.lookback_window:
            for doubt in doubts:
                log.warning("%s: %s", label, doubt)

    def warn_of_key(self, keys: Sequence[str], label: str) -> None:
        """Say that a table has a key which is not used."""
        options = self.options
        if (
            options.sync_mode == "incremental"
            and keys
            and not options.primary_key
            and self._named is not None
        ):
            log.warning(
                "%s has the primary key %s: without `primary_key`, or UPSERT KEY in the LOAD, a changed row is added "
                "again beside the old one",
                label,
                ", ".join(keys),
            )


def label_of(stream: Stream, table: Name | None) -> str:
    """Return what a stream is called in messages."""
    return f"{table.schema}.{table.name}" if table else f"the query {stream.name}"


def _without_end(query: str) -> str:
    """Return a SELECT without the `;` at its end and the comments behind it."""
    try:
        end = max((token.end for token in scan(query)), default=0)
    except Unclosed:
        end = len(query)
    # A backslash may keep a string open at MySQL that ends for everybody else.
    if "\\" not in query and _AFTER_END.fullmatch(query, end):
        return query[:end]
    return query.strip().rstrip(";").rstrip()
