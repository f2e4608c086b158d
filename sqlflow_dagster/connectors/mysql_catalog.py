"""MySQL's catalogue → tables, columns with their types, and where a cursor has to stop.

Each function runs in a read-only transaction that the caller has opened. Queries are sent with their
values bound; nothing of a name is put into their text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlflow_dagster.connectors.discovered import Table
from sqlflow_dagster.connectors.mysql_client import Connection, rows_of, servers_mode
from sqlflow_dagster.connectors.mysql_types import Choices, Column, travel
from sqlflow_dagster.connectors.tables import Name
from sqlflow_dagster.errors import BadOption, NotAllowed, SourceFailed
from sqlflow_dagster.sql import Sql, backquote, sql

_OWN = ("mysql", "information_schema", "performance_schema", "sys")
_KINDS = {"BASE TABLE": "table", "SYSTEM VERSIONED": "table", "VIEW": "view"}
_TABLES = """
SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, TABLE_COMMENT FROM information_schema.TABLES
WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED', 'VIEW') AND TABLE_SCHEMA NOT IN %s
ORDER BY TABLE_SCHEMA, TABLE_NAME
"""
_ONE_TABLE = """
SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES
WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s
"""
_COLUMNS = """
SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, NUMERIC_PRECISION, NUMERIC_SCALE
FROM information_schema.COLUMNS WHERE {where} ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION
"""
_KEYS = """
SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME FROM information_schema.STATISTICS
WHERE INDEX_NAME = 'PRIMARY' AND {where} ORDER BY TABLE_SCHEMA, TABLE_NAME, SEQ_IN_INDEX
"""
# JSON is text with a check on MariaDB.
_JSON = """
SELECT CONSTRAINT_SCHEMA AS TABLE_SCHEMA, TABLE_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS
WHERE CHECK_CLAUSE LIKE 'json\\_valid(%%' AND {where}
"""
_THOSE = Sql("TABLE_SCHEMA NOT IN %s")
_THIS = Sql("TABLE_SCHEMA = %s AND TABLE_NAME = %s")
_JSON_COLUMN = re.compile(r"json_valid\(`((?:[^`]|``)+)`\)")
# Those that only read bring no rows. The times are in the zone of the server's machine, where an hour
# may come twice: then the earlier one is meant.
_OLDEST = """
SELECT UNIX_TIMESTAMP(started) - IF(FROM_UNIXTIME(UNIX_TIMESTAMP(started) - 3600) = started, 3600, 0)
FROM (SELECT MIN(trx_started) AS started FROM information_schema.INNODB_TRX
      WHERE trx_is_read_only = 0 AND trx_mysql_thread_id <> CONNECTION_ID()) AS oldest
"""
_NOW = "SELECT UNIX_TIMESTAMP(UTC_TIMESTAMP(6))"
_OFFSET = "SELECT TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), NOW())"
_MARGIN_SECONDS = 1
# What the protocol calls the types of a query's columns.
_CODES = {
    0: "decimal", 1: "tinyint", 2: "smallint", 3: "int", 4: "float", 5: "double", 7: "timestamp", 8: "bigint",
    9: "mediumint", 10: "date", 11: "time", 12: "datetime", 13: "year", 16: "bit", 245: "json", 246: "decimal",
    255: "geometry",
}  # fmt: skip
_STRINGS = (15, 247, 248, 249, 250, 251, 252, 253, 254)
_BINARY_CHARSET = 63
_UNSIGNED_FLAG = 32
_ENUM_FLAG, _SET_FLAG = 256, 2048


@dataclass(frozen=True, slots=True)
class Horizon:
    """Up to where all changes are visible: in UTC, and in the earliest zone that the server uses."""

    utc: datetime
    earliest: datetime
    hidden: bool = False
    replica: bool = False

    @property
    def doubts(self) -> list[str]:
        """What the source cannot know, for a warning."""
        found = []
        if self.hidden:
            found.append(
                "this user may not see which transactions are open, and rows that they commit later would be missed; "
                "GRANT PROCESS ON *.* to it, or set lookback_window"
            )
        if self.replica:
            found.append(
                "this server is a replica, which does not know what is open on its primary; set lookback_window"
            )
        return found


def list_tables(connection: Connection, choices: Choices) -> list[Table]:
    """Return all tables and views that are not the system's, by schema and name."""
    columns = _columns(connection, _THOSE, [_OWN])
    keys = _keys(connection, _THOSE, [_OWN])
    return [
        Table(
            schema=schema,
            name=name,
            primary_key=tuple(keys.get((schema, name), ())),
            columns={c.name: travel(c, None, choices).kind for c in columns.get((schema, name), ())},
            kind=_KINDS[kind],
            description=comment if kind != "VIEW" else "",
        )
        for schema, name, kind, comment in rows_of(connection, _TABLES, [_OWN])
    ]


def table_columns(
    connection: Connection, table: Name, label: str
) -> tuple[Name, list[Column], tuple[str, ...]]:
    """Return a table as the server spells it, its columns and its primary key.

    Raises BadOption, with the nearest names, where there is no such table.
    """
    found = rows_of(connection, _ONE_TABLE, [*table])
    # The catalogue itself compares without regard to case, whatever the tables' files do.
    exact = [row for row in found if (row[0], row[1]) == (table.schema, table.name)]
    if not exact and not (found and _folds(connection)):
        raise BadOption(f"{label}: {_unknown(connection, table)}", option="table")
    schema, name, _ = (exact or found)[0]
    columns = _columns(connection, _THIS, [schema, name]).get((schema, name), [])
    if not columns:
        raise SourceFailed(f"{label}: the table has no columns that this user may read; GRANT SELECT ON it")
    return (
        Name(schema, name),
        columns,
        tuple(_keys(connection, _THIS, [schema, name]).get((schema, name), ())),
    )


def query_columns(connection: Connection, query: Sql) -> list[Column]:
    """Return the columns of a query that is already in parentheses and has a name."""
    with servers_mode(connection), connection.cursor() as cursor:
        cursor.execute(sql("SELECT * FROM {query} LIMIT 0", query=query))
        fields = list(cursor._result.fields)  # noqa: SLF001 - `description` has no flags and no charset
    names = Counter(field.name for field in fields)
    if twice := [name for name, times in names.items() if times > 1]:
        raise BadOption(
            f"query: the query gives the column {', '.join(twice)} twice; give one of them another name by AS",
            option="query",
        )
    return [_of_query(field) for field in fields]


def horizon(connection: Connection) -> Horizon:
    """Return up to where the rows that a later snapshot sees are complete. To be asked before the read."""
    now = float(rows_of(connection, _NOW)[0][0]) - _MARGIN_SECONDS
    offsets = [0]
    for to_zone in ("SET time_zone = @@global.time_zone", "SET time_zone = 'SYSTEM'"):
        rows_of(connection, to_zone)
        offsets.append(int(rows_of(connection, _OFFSET)[0][0]))
    hidden, oldest = _oldest(connection)
    rows_of(connection, "SET time_zone = '+00:00'")
    at = datetime.fromtimestamp(min(now, now if oldest is None else oldest), UTC)
    replica = bool(replication(connection))
    return Horizon(at, at + timedelta(seconds=min(offsets)), hidden, replica)


def reads_uncommitted(connection: Connection) -> bool:
    """Whether sessions of this server see by default what others may still roll back."""
    found = rows_of(
        connection,
        "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('tx_isolation', 'transaction_isolation')",
    )
    return any(value == "READ-UNCOMMITTED" for _, value in found)


def is_mariadb(connection: Connection) -> bool:
    """Whether the server is MariaDB, and not Oracle's MySQL."""
    return "mariadb" in str(connection.get_server_info()).lower()


def replication(connection: Connection) -> dict[str, Any]:
    """Return what a replica says of itself; empty where it is none, or the user may not ask."""
    statement = "SHOW REPLICA STATUS"
    with connection.cursor() as cursor:
        try:
            cursor.execute(statement)
        except _refused():
            return {}
        row = cursor.fetchone()
        return {} if row is None else {item[0]: row[i] for i, item in enumerate(cursor.description)}


def _oldest(connection: Connection) -> tuple[bool, float | None]:
    """Whether the beginning of the oldest transaction is hidden, and when it was."""
    try:
        found = rows_of(connection, _OLDEST)[0][0]
    except _refused():
        return True, None
    return False, None if found is None else float(found)


def _refused() -> tuple[type[Exception], ...]:
    """The driver's errors for what the user may not do, or the server does not know."""
    import pymysql  # noqa: PLC0415 - whoever has a connection has imported it

    return (pymysql.err.OperationalError, pymysql.err.ProgrammingError, NotAllowed)


def _folds(connection: Connection) -> bool:
    return str(rows_of(connection, "SELECT @@lower_case_table_names")[0][0]) != "0"


def _unknown(connection: Connection, table: Name) -> str:
    """Say that a table is not there, and which are like it."""
    import difflib  # noqa: PLC0415 - only for this message

    names = [f"{row[0]}.{row[1]}" for row in rows_of(connection, _TABLES, [_OWN])]
    near = difflib.get_close_matches(f"{table.schema}.{table.name}", names, n=1)
    others = (
        f"there are {', '.join(names[:10])}{' …' if len(names) > 10 else ''}"
        if names
        else "this user sees no tables at all: GRANT SELECT ON them"
    )
    hint = f"did you mean {near[0]}?" if near else others
    return f"there is no table {table.schema}.{table.name}; {hint}"


def _columns(
    connection: Connection, where: Sql, values: Sequence[Any]
) -> Mapping[tuple[str, str], list[Column]]:
    documents = _documents(connection, where, values) if is_mariadb(connection) else frozenset()
    found: dict[tuple[str, str], list[Column]] = {}
    for schema, table, name, kind, declared, precision, scale in rows_of(
        connection, sql(_COLUMNS, where=where), values
    ):
        declared_ = str(declared).lower()
        width = 1 if declared_.startswith("tinyint(1)") else int(precision or 0)
        column = Column(
            name,
            str(kind).lower(),
            str(declared),
            unsigned="unsigned" in declared_ and str(kind).lower() not in ("enum", "set"),
            width=width,
            scale=int(scale or 0),
            json=(schema, table, name) in documents,
        )
        found.setdefault((schema, table), []).append(column)
    return found


def _documents(connection: Connection, where: Sql, values: Sequence[Any]) -> Iterable[tuple[str, str, str]]:
    """The text columns of MariaDB that may hold nothing but JSON."""
    where = Sql(where.replace("TABLE_SCHEMA", "CONSTRAINT_SCHEMA"))
    return frozenset(
        (schema, table, column[1].replace("``", "`"))
        for schema, table, clause in rows_of(connection, sql(_JSON, where=where), values)
        if (column := _JSON_COLUMN.fullmatch(clause))
    )


def _keys(connection: Connection, where: Sql, values: Sequence[Any]) -> Mapping[tuple[str, str], list[str]]:
    keys: dict[tuple[str, str], list[str]] = {}
    for schema, table, name in rows_of(connection, sql(_KEYS, where=where), values):
        keys.setdefault((schema, table), []).append(name)
    return keys


def _of_query(field: Any) -> Column:
    """A column of a result, by what the protocol says of it."""
    code, unsigned = field.type_code, bool(field.flags & _UNSIGNED_FLAG)
    if field.flags & (_ENUM_FLAG | _SET_FLAG):
        kind = "enum" if field.flags & _ENUM_FLAG else "set"
        return Column(field.name, kind, kind)
    if code in _STRINGS:
        # A NULL that is written out has no length, and is no bytes.
        binary = field.charsetnr == _BINARY_CHARSET and field.length > 0
        return Column(field.name, "longblob" if binary else "longtext", "blob" if binary else "text")
    kind = _CODES.get(code, "longtext")
    width, scale = int(field.length), int(field.scale)
    if kind == "decimal":
        # Its length is that of the text: a sign and a point are no digits.
        width -= (0 if unsigned else 1) + (1 if scale else 0)
        return Column(field.name, kind, f"decimal({width},{scale})", unsigned, width, scale)
    return Column(field.name, kind, kind, unsigned, width)


def relation_of(table: Name) -> Sql:
    """Return a table as it stands after FROM."""
    return backquote(*table)
