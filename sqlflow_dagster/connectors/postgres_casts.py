"""A staged value → the type of the table's column, and whether it would be another value there.

A cast in Postgres rounds, cuts off and drops without a word: what becomes of each value is compared
with what it was, in a type that holds both.
"""

from __future__ import annotations

import re

from sqlflow_dagster.connectors.postgres_client import Connection, translated
from sqlflow_dagster.connectors.postgres_replace import rows_of, run
from sqlflow_dagster.connectors.postgres_wire import Wire
from sqlflow_dagster.errors import ExportFailed, SourceError
from sqlflow_dagster.sql import Sql, literal, quote, sql

# What goes as it is, and is called otherwise on the way.
_SAME = {
    ("varchar[]", "character varying[]"),
    ("text", "character varying"), ("timestamp", "timestamp without time zone"),
    ("timestamptz", "timestamp with time zone"), ("time", "time without time zone"),
    ("timetz", "time with time zone"), ("timestamp[]", "timestamp without time zone[]"),
    ("timestamptz[]", "timestamp with time zone[]"), ("time[]", "time without time zone[]"),
    ("timetz[]", "time with time zone[]"), ("varbit", "bit varying"),
}  # fmt: skip
# Pairs of types between which a cast may change a value without a word.
_NUMBERS = ("smallint", "integer", "bigint", "numeric", "real", "double precision", "money")
_MOMENTS = ("date", "time", "timestamp")
# What holds all of a text that a column may change: by the first word of the column's type.
_WHOLE = {
    "character": "bpchar", "name": "text", '"char"': "text", "bit": "varbit", "numeric": "numeric",
    "interval": "interval", "timestamp": "timestamptz", "date": "timestamptz", "time": "timetz",
}  # fmt: skip
# What says of a text, by the first word of a column's type, that `v`, made of it, lost a part by which `back` cannot
# tell them apart: parts of a microsecond, a day before a time, digits of a float, and parts of a cent.
_NANOSECONDS = sql("{c} ~ {pattern}", c=Sql("e.c"), pattern=literal(r"\.[0-9]{6}[0-9]*[1-9]"))
_NO_TIME = sql(
    "e.c !~* {pattern}",
    pattern=literal(
        r"^\s*t?\d{1,2}(:?\d{2}){0,2}(\.\d+)?\s*([ap]m)?\s*(z|[a-z]{3,4}|[+-]\d{1,2}(:?\d{2}){0,2})?\s*$"
    ),
)
_OTHER_NUMBER = Sql("(e.v !~* 'n' AND CAST(e.v AS numeric) IS DISTINCT FROM CAST(e.c AS numeric))")
_DIGITS = "btrim(regexp_replace(e.{0}, '[^0-9]', '', 'g'), '0')"
_LOST = {
    "timestamp": _NANOSECONDS, "date": _NANOSECONDS, "interval": _NANOSECONDS,
    "time": sql("({nano} OR {no_time})", nano=_NANOSECONDS, no_time=_NO_TIME),
    "real": _OTHER_NUMBER, "double": _OTHER_NUMBER,
    "money": Sql(f"{_DIGITS.format('c')} <> {_DIGITS.format('v')}"),
}  # fmt: skip


def converted(wire: Wire) -> Sql:
    """Return the staged column in the table's type. A text that is too long is an error, and is not cut."""
    c = quote("s", wire.name)
    if wire.sent == wire.final or (wire.sent == "text" and _is_text(wire.final)):
        return c
    if wire.final in ("regclass", "regclass[]"):
        # From text it looks a relation up; by way of what has no such cast it reads `-` and numbers too.
        c = sql("CAST({c} AS {kind})", c=c, kind=Sql(wire.final.replace("regclass", "bpchar")))
    return sql("CAST({c} AS {kind})", c=c, kind=Sql(wire.final))


def compared(wire: Wire) -> Sql:
    """Return the staged column as the table's column compares: `char` without regard to blanks at the end."""
    if wire.final.startswith("character") and not wire.final.startswith("character varying"):
        return sql("CAST({c} AS bpchar)", c=quote("s", wire.name))
    return converted(wire)


def goes_straight(wire: Wire) -> bool:
    """Return whether a column of the table takes what is sent without a cast."""
    sent, final = wire.sent, wire.final
    if sent == final or (sent, final) in _SAME:
        return True
    return (sent == "text" and _is_text(final)) or (sent[:8] == "numeric(" and final == "numeric")


def refuse_changed(connection: Connection, stage: Sql, wire: Wire, label: str) -> None:
    """Look through a staged column for a value that the table's column would change, or not take.

    Raises ExportFailed that names the column and the value; `label` is the table in messages.
    """
    c, value = quote("s", wire.name), converted(wire)
    # A composite of NULLs IS NULL, and is none.
    changed = sql("{value} IS NOT DISTINCT FROM NULL", value=value)
    if back := _back(wire.sent, wire.base or wire.final):
        parts = {"value": value, "back": Sql(back), "c": c}
        changed = sql("CAST({value} AS {back}) IS DISTINCT FROM CAST({c} AS {back})", **parts)
    if lost := _lost(wire.sent, wire.base or wire.final, c, value):
        changed = sql("({changed} OR {lost})", changed=changed, lost=lost)
    query = sql(
        "SELECT CAST({c} AS text) FROM {stage} AS s WHERE {c} IS NOT NULL AND {changed} LIMIT 1",
        c=c,
        stage=stage,
        changed=changed,
    )
    run(connection, Sql("SAVEPOINT cast_check"))
    try:
        with translated({}):
            found = rows_of(connection, query)
    except SourceError as error:
        run(connection, Sql("ROLLBACK TO SAVEPOINT cast_check"))
        said = str(error).partition(": ")[2]
        raise ExportFailed(
            f"{label}: its column {wire.name!r} is {wire.final}: {said}; CAST it in the query, or mend the table; "
            "nothing was stored"
        ) from error
    # A row is told to be ours by the transaction that wrote it, which is none inside a savepoint.
    run(connection, Sql("RELEASE SAVEPOINT cast_check"))
    if found:
        raise ExportFailed(
            f"{label}: its column {wire.name!r} is {wire.final}, which cannot hold {found[0][0]!r} as it is; CAST it "
            "in the query, or mend the table; nothing was stored"
        )


def _back(sent: str, final: str) -> str | None:
    """The type in which a value and what became of it are compared, where a cast may change it."""
    if final.endswith("[]"):
        back = _back(sent.removesuffix("[]"), final.removesuffix("[]"))
        return f"{back}[]" if back else None
    if sent in ("text", "varchar"):
        return "text" if final.startswith("character varying") else _WHOLE.get(re.split(r"[ (]", final)[0])
    if sent == "interval" and final.startswith(("interval", "time")):
        return sent
    if sent in ("integer", "bigint") and final.startswith(("boolean", "bit(")):
        return sent
    numbers = sent.startswith(_NUMBERS) and final.startswith(_NUMBERS)
    moments = sent.startswith(_MOMENTS) and final.startswith(_MOMENTS)
    return sent if numbers or moments else None


def _lost(sent: str, final: str, text: Sql, cast: Sql) -> Sql | None:
    """The test whether a text became what has not all of it, where a type compared by `_back` does not show that."""
    lost = _LOST.get(re.split(r"[ (\[]", final)[0])
    if lost is None or sent.removesuffix("[]") not in ("text", "varchar"):
        return None
    pair = "unnest(CAST({c} AS text[]), CAST({v} AS text[]))"
    if not final.endswith("[]"):
        pair = "(VALUES (CAST({c} AS text), CAST({v} AS text)))"
    pairs = sql(pair, c=text, v=cast)
    return sql("EXISTS (SELECT 1 FROM {pairs} AS e (c, v) WHERE {lost})", pairs=pairs, lost=lost)


def _is_text(final: str) -> bool:
    return final.startswith(("character", "text")) and not final.endswith("[]")
