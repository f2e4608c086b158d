"""What a table function answered → a temporary table of the types it declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from sqlflow_dagster import udf
from sqlflow_dagster.errors import ProjectError, QueryFailed
from sqlflow_dagster.sql import Sql, fold, join, quote, sql
from sqlflow_dagster.warehouse import tables


def store(
    connection: DuckDBPyConnection,
    shown: str,
    declared: udf.Table,
    result: Any,
    given: Mapping[str, str],
    name: Sql,
) -> None:
    """Store the Arrow table that the function `shown` answered as the temporary table `name`.

    `given` are the columns of the table it was called with. Raises QueryFailed naming the column
    that is missing, not declared, or does not fit its declared type.
    """
    raw = quote("_sqlflow_answer")
    connection.register("_sqlflow_answer", result)
    try:
        columns = _output(connection, shown, declared, raw, given)
        connection.execute(
            sql(
                "CREATE TEMP TABLE {name} AS SELECT {columns} FROM {raw}", name=name, columns=columns, raw=raw
            )
        )
    except duckdb.Error as error:
        raise QueryFailed(f"PYTHON_FUNC({shown!r}): its result cannot be stored: {error}") from error
    finally:
        connection.unregister("_sqlflow_answer")


def _output(
    connection: DuckDBPyConnection, shown: str, declared: udf.Table, raw: Sql, given: Mapping[str, str]
) -> Sql:
    """The result's columns, cast to what is declared, or to what they were when they came in."""
    have = tables.columns(connection, raw)
    came = {fold(name): kind for name, kind in given.items()}
    restored = {
        name: came[fold(name)]
        for name, kind in have.items()
        if _only_widened(kind, came.get(fold(name)))
        and _misfit(connection, raw, name, kind, came[fold(name)]) is None
    }
    if declared.infer or not declared.output_schema:
        return join(", ", (_cast(name, restored.get(name), None) for name in have))
    _check_names(shown, declared.output_schema, have)
    own = {fold(name): name for name in have}
    parts = []
    for name, text in declared.output_schema.items():
        found = own[fold(name)]
        wanted = _type(shown, name, text)
        _check_fits(connection, shown, raw, found, have[found], wanted)
        parts.append(
            sql(
                "CAST({value} AS {kind}) AS {name}",
                value=_cast(found, restored.get(found), ""),
                kind=Sql(wanted),
                name=quote(name),
            )
        )
    # What is not declared comes as it is: the first SQLFlow's functions hand such columns on.
    others = [name for name in have if fold(name) not in map(fold, declared.output_schema)]
    return join(", ", (*parts, *(_cast(name, restored.get(name), None) for name in others)))


def _only_widened(kind: str, came: str | None) -> bool:
    """Whether pandas knows no narrower type: dates become timestamps, decimals their values' width or floats."""
    if came is None or came == kind:
        return False
    return (came == "DATE" and kind.startswith("TIMESTAMP")) or (
        came.startswith("DECIMAL") and kind.startswith(("DECIMAL", "DOUBLE"))
    )


def _cast(name: str, kind: str | None, alias: str | None) -> Sql:
    if kind is None:
        return quote(name)
    value = sql("CAST({name} AS {kind})", name=quote(name), kind=Sql(kind))
    return value if alias == "" else sql("{value} AS {name}", value=value, name=quote(name))


def _check_names(shown: str, schema: Mapping[str, str], have: Mapping[str, str]) -> None:
    found = {fold(name) for name in have}
    missing = [name for name in schema if fold(name) not in found]
    if missing:
        raise QueryFailed(
            f"PYTHON_FUNC({shown!r}): its result lacks what its output_schema declares: {', '.join(missing)}; "
            f"it has {', '.join(have) or 'no columns'}. Mend the function or the schema, or use infer=True"
        )


def _type(shown: str, name: str, text: str) -> str:
    try:
        return str(duckdb.sqltype(text))
    except duckdb.Error as error:
        raise ProjectError(
            f"PYTHON_FUNC({shown!r}): output_schema gives {name!r} the type {text!r}, which DuckDB does not know"
        ) from error


def _check_fits(
    connection: DuckDBPyConnection, shown: str, raw: Sql, name: str, have: str, wanted: str
) -> None:
    value = None if wanted in (have, "VARCHAR") else _misfit(connection, raw, name, have, wanted)
    if value is not None:
        raise QueryFailed(
            f"PYTHON_FUNC({shown!r}): the column {name!r} of its result is {have}, and its value {value!r} "
            f"does not fit the declared {wanted}; mend the function or its output_schema"
        )


def _misfit(connection: DuckDBPyConnection, raw: Sql, name: str, have: str, wanted: str) -> str | None:
    """Return a value of a column that is not the same in another type, None where all are."""
    # Text has many forms of one value, so that it need not come back letter by letter.
    back = (
        "TRY_CAST({c} AS {kind}) IS NULL"
        if have == "VARCHAR"
        else "CAST({c} AS VARCHAR) IS DISTINCT FROM"
        " CAST(TRY_CAST(TRY_CAST({c} AS {kind}) AS {own}) AS VARCHAR)"
    )
    row = connection.execute(
        sql(
            "SELECT CAST({c} AS VARCHAR) FROM {raw} WHERE {c} IS NOT NULL AND {changed} LIMIT 1",
            changed=sql(back, c=quote(name), kind=Sql(wanted), own=Sql(have)),
            c=quote(name),
            raw=raw,
        )
    ).fetchone()
    return str(row[0]) if row else None
