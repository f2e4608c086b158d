"""Rows in Postgres' binary format → a table, by the mode, inside a transaction that the caller ends."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from sqlflow_dagster.connectors import postgres_replace
from sqlflow_dagster.connectors.postgres_casts import compared, converted, goes_straight, refuse_changed
from sqlflow_dagster.connectors.postgres_client import Connection
from sqlflow_dagster.connectors.postgres_options import PostgresSinkOptions
from sqlflow_dagster.connectors.postgres_replace import rows_of, run
from sqlflow_dagster.connectors.postgres_wire import Wire, as_it_fits, as_json
from sqlflow_dagster.connectors.tables import Name
from sqlflow_dagster.errors import ExportFailed
from sqlflow_dagster.sql import Sql, join, quote, sql

log = logging.getLogger(__name__)

_STAGE = quote("pg_temp", "_sqlflow_rows")
_BUFFER = 1 << 20
# Beside a column's type the one that its domain, or that of its elements, is over.
_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attgenerated <> '' OR a.attidentity = 'a',
  (WITH RECURSIVE base (type, modifier, depth) AS (
     SELECT a.atttypid, a.atttypmod, 0
     UNION ALL
     SELECT CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE b.typarray END,
       CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE e.typtypmod END, depth + 1
     FROM base
     JOIN pg_catalog.pg_type AS t ON t.oid = base.type
     LEFT JOIN pg_catalog.pg_type AS e ON e.oid = t.typelem AND e.typtype = 'd' AND t.typcategory = 'A'
     LEFT JOIN pg_catalog.pg_type AS b ON b.oid = e.typbasetype
     WHERE t.typtype = 'd' OR b.typarray <> 0)
   SELECT format_type(type, modifier) FROM base ORDER BY depth DESC LIMIT 1)
FROM pg_catalog.pg_attribute AS a
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""
_TABLE = """
SELECT c.oid, c.relkind
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""
# Row triggers before INSERT have the bits 1, 2 and 4 of their type, those before UPDATE 1, 2 and 16.
_CHANGERS = """
WITH RECURSIVE part (oid) AS (
  SELECT %(oid)s::oid
  UNION ALL
  SELECT c.oid FROM part JOIN pg_catalog.pg_inherits AS i ON i.inhparent = part.oid
  JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid WHERE c.relispartition
)
SELECT DISTINCT 'the trigger ' || t.tgname FROM part JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = part.oid
WHERE t.tgenabled NOT IN ('D', 'R') AND NOT t.tgisinternal AND t.tgtype & 3 = 3
  AND (t.tgtype & 4 > 0 OR (t.tgtype & 16 > 0 AND %(upsert)s))
UNION
SELECT 'the rule ' || rulename FROM pg_catalog.pg_rewrite
WHERE ev_class = %(oid)s AND ev_enabled NOT IN ('D', 'R') AND (ev_type = '3' OR (ev_type = '2' AND %(upsert)s))
ORDER BY 1
"""
_UNIQUE = """
SELECT array_agg(a.attname ORDER BY k.place)
FROM pg_catalog.pg_index AS i
CROSS JOIN LATERAL unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY AS k (attnum, place)
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL
GROUP BY i.indexrelid
"""


@dataclass
class Writer:
    """One export into one table, inside a transaction."""

    connection: Connection
    name: Name
    columns: list[Wire]
    options: PostgresSinkOptions
    binary: Path
    oid: int | None = None
    partitioned: bool = False
    staged: bool = False
    count: int = 0

    def prepare(self) -> None:
        """Look the table up, and how the columns are to go into it."""
        self.oid = self._found()
        if self.options.types:
            self._as_postgres_calls_them()
        if self.oid is not None:
            self._as_the_table_has_them(self.oid)
            self._warn_of_changers(self.oid)
        self.columns = [as_json(wire) if wire.final == "json" else as_it_fits(wire) for wire in self.columns]

    def write(self, count: int) -> None:
        """Bring the `count` rows into the table by the mode. Raises ExportFailed where the table does not take all."""
        oid, self.count = self.oid, count
        if self.options.mode == "upsert":
            self._check_keys()
        if oid is None:
            self._create(self.name)
            self._fill(self.name)
        elif self.options.mode == "append":
            self._fill(self.name)
        elif self.options.mode == "upsert":
            self._merge(oid)
        else:
            self._replace(oid)

    def _found(self) -> int | None:
        found = rows_of(self.connection, _TABLE, [*self.name])
        if found and found[0][1] not in ("r", "p"):
            raise ExportFailed(f"{self._label}: it is no table; drop it, or write another table")
        if not found and not self.options.create:
            raise ExportFailed(f"{self._label}: there is no such table, and `create` is false")
        if not found:
            schemas = rows_of(
                self.connection, "SELECT 1 FROM pg_namespace WHERE nspname = %s", [self.name.schema]
            )
            if not schemas:
                run(self.connection, sql("CREATE SCHEMA {name}", name=quote(self.name.schema)))
        self.partitioned = bool(found) and found[0][1] == "p"
        return int(found[0][0]) if found else None

    @property
    def _label(self) -> str:
        return f"{self.name.schema}.{self.name.name}"

    def _as_postgres_calls_them(self) -> None:
        """Give the types that the user declares their names in the catalogue."""
        table = quote("_sqlflow_types")
        run(self.connection, sql("CREATE TEMP TABLE {t} ({parts})", t=table, parts=self._parts()))
        oid = rows_of(self.connection, "SELECT %s::regclass::oid", [f"pg_temp.{table}"])[0][0]
        found = rows_of(self.connection, _COLUMNS, [oid])
        self.columns = [
            replace(wire, final=row[1], base=row[3]) for wire, row in zip(self.columns, found, strict=True)
        ]
        run(self.connection, sql("DROP TABLE {t}", t=quote("pg_temp", "_sqlflow_types")))

    def _as_the_table_has_them(self, oid: int) -> None:
        """Give the columns the names and types of the table that is there; refuse those it lacks."""
        there = {row[0]: row[1:] for row in rows_of(self.connection, _COLUMNS, [oid])}
        folded: dict[str, str] = {}
        for name in there:
            folded.setdefault(name.casefold(), name)
        known = [
            replace(wire, name=name, final=there[name][0], base=there[name][2])
            if (name := wire.name if wire.name in there else folded.get(wire.name.casefold(), ""))
            else wire
            for wire in self.columns
        ]
        lacking = [wire.name for wire in known if wire.name not in there]
        made = [wire.name for wire in known if wire.name in there and there[wire.name][1]]
        if made:
            raise ExportFailed(
                f"{self._label}: Postgres makes the column {', '.join(made)} itself; leave it out"
            )
        if lacking and (self.options.mode != "replace" or postgres_replace.needed_by(self.connection, oid)):
            raise ExportFailed(
                f"{self._label}: the table has no column {', '.join(lacking)}; add it there, or leave it out of "
                "the query"
            )
        self.columns = known

    def _warn_of_changers(self, oid: int) -> None:
        """Tell of what may store something else than the rows: whether it does, only its author knows."""
        asked = {"oid": oid, "upsert": self.options.mode == "upsert"}
        if found := [row[0] for row in rows_of(self.connection, _CHANGERS, asked)]:
            log.warning("%s: %s may change what is stored", self._label, ", ".join(found))

    def _create(self, name: Name) -> None:
        """Make the table with the columns as they are at the end, and the key of an upsert."""
        parts = self._parts()
        if self.options.mode == "upsert":
            keys = join(", ", map(quote, self._keys))
            parts = sql("{parts}, PRIMARY KEY ({keys})", parts=parts, keys=keys)
        run(self.connection, sql("CREATE TABLE {t} ({parts})", t=quote(*name), parts=parts))

    def _parts(self) -> Sql:
        return join(
            ", ", (sql("{n} {kind}", n=quote(wire.name), kind=Sql(wire.final)) for wire in self.columns)
        )

    def _fill(self, name: Name) -> None:
        """Add the rows to a table: straight, or where types differ by way of a stage and casts."""
        if all(map(goes_straight, self.columns)):
            stored = self._copy(quote(*name))
        else:
            self._stage()
            stored = self._insert(name)
        if stored != self.count:
            self._check_stored()

    def _check_stored(self) -> None:
        """Refuse a table whose trigger or rule kept rows out; one may have moved them into a table under it."""
        ours = "xmin::text::bigint = txid_current() & 4294967295"
        count = sql("SELECT count(*) FROM {rows} WHERE {ours}", rows=self._own_rows, ours=Sql(ours))
        ((stored,),) = rows_of(self.connection, count)
        if stored < self.count:
            raise self._kept_out(self.count - stored)

    def _kept_out(self, missing: int) -> ExportFailed:
        return ExportFailed(
            f"{self._label}: a trigger or a rule of the table kept {missing} of {self.count} rows out; mend it, or "
            "leave those rows out of the query; nothing was stored"
        )

    @property
    def _own_rows(self) -> Sql:
        """The table's rows as its mode means them: to replace it leaves the tables alone that inherit from it."""
        alone = self.options.mode == "replace" and not self.partitioned
        return sql("ONLY {t}" if alone else "{t}", t=quote(*self.name))

    def _insert(self, name: Name, tail: Sql | None = None) -> int:
        return run(
            self.connection,
            sql(
                "INSERT INTO {table} ({names}) SELECT {values} FROM {stage} AS s {tail}",
                table=quote(*name),
                names=join(", ", (quote(wire.name) for wire in self.columns)),
                values=join(", ", map(converted, self.columns)),
                stage=_STAGE,
                tail=tail or Sql(""),
            ),
        )

    def _stage(self) -> None:
        """Bring the rows into a table of their own, and refuse those that the columns would change."""
        if self.staged:
            return
        self.staged = True
        parts = [sql("{n} {kind}", n=quote(wire.name), kind=Sql(wire.sent)) for wire in self.columns]
        made = "CREATE TEMP TABLE {stage} ({parts}) ON COMMIT DROP"
        run(self.connection, sql(made, stage=quote("_sqlflow_rows"), parts=join(", ", parts)))
        self._copy(_STAGE)
        run(self.connection, sql("ANALYZE {stage}", stage=_STAGE))
        self._check_casts()

    def _copy(self, table: Sql) -> int:
        names = join(", ", (quote(wire.name) for wire in self.columns))
        statement = sql("COPY {table} ({names}) FROM STDIN (FORMAT binary)", table=table, names=names)
        with self.connection.cursor() as cursor, self.binary.open("rb") as file:
            cursor.copy_expert(statement, file, _BUFFER)
            return int(cursor.rowcount)

    def _check_casts(self) -> None:
        """Refuse what a column of the table cannot hold, by its name and a value."""
        for wire in self.columns:
            if not goes_straight(wire):
                refuse_changed(self.connection, _STAGE, wire, self._label)

    @property
    def _keys(self) -> list[str]:
        """The keys as the table spells them."""
        folded = {wire.name.casefold(): wire.name for wire in self.columns}
        missing = [key for key in self.options.keys if key.casefold() not in folded]
        if missing:
            raise ExportFailed(
                f"{self._label}: the query gives no column {', '.join(missing)}, which is in `keys`"
            )
        return [folded[key.casefold()] for key in self.options.keys]

    def _check_keys(self) -> None:
        """Refuse two rows of one key, as the table has it: which of them is to stay cannot be known."""
        keys = self._keys
        self._stage()
        values = [compared(wire) for wire in self.columns if wire.name in keys]
        listed = join(", ", values)
        shown = join(", ", (sql("CAST({v} AS text)", v=value) for value in values))
        twice = rows_of(
            self.connection,
            sql(
                "SELECT {shown} FROM {stage} AS s GROUP BY {listed} HAVING count(*) > 1 LIMIT 1",
                shown=shown,
                listed=listed,
                stage=_STAGE,
            ),
        )
        if twice:
            raise ExportFailed(
                f"{self._label}: the query gives the key {', '.join(map(str, twice[0]))} more than once; keep one row "
                "by QUALIFY row_number() OVER (PARTITION BY …) = 1"
            )

    def _merge(self, oid: int) -> None:
        """Update the rows whose key is there, and add the others; rows without a key match each other."""
        keys = self._keys
        unique = [set(row[0]) for row in rows_of(self.connection, _UNIQUE, [oid])]
        null = join(" OR ", (sql("{k} IS NULL", k=quote(key)) for key in keys))
        empty = rows_of(
            self.connection, sql("SELECT 1 FROM {stage} WHERE {null} LIMIT 1", stage=_STAGE, null=null)
        )
        others = [wire for wire in self.columns if wire.name not in keys]
        casts = {wire.name: converted(wire) for wire in self.columns}
        same = join(
            " AND ",
            (
                sql("t.{k} IS NOT DISTINCT FROM {v}", k=quote(wire.name), v=compared(wire))
                for wire in self.columns
                if wire.name in keys
            ),
        )
        if set(keys) in unique and not empty:
            sets = join(", ", (sql("{n} = EXCLUDED.{n}", n=quote(wire.name)) for wire in others))
            action = sql("DO UPDATE SET {sets}", sets=sets) if others else Sql("DO NOTHING")
            tail = sql("ON CONFLICT ({keys}) {do}", keys=join(", ", map(quote, keys)), do=action)
            self._check_merged(self._insert(self.name, tail), same if not others else None)
            return
        # Without an index that says so, nobody else may add the same key meanwhile.
        run(self.connection, sql("LOCK TABLE {t} IN SHARE ROW EXCLUSIVE MODE", t=quote(*self.name)))
        parts = {"t": quote(*self.name), "stage": _STAGE, "same": same}
        stored = 0
        if others:
            sets = join(", ", (sql("{n} = {v}", n=quote(w.name), v=casts[w.name]) for w in others))
            stored = run(
                self.connection,
                sql("UPDATE {t} AS t SET {sets} FROM {stage} AS s WHERE {same}", sets=sets, **parts),
            )
        stored += self._insert(
            self.name, sql("WHERE NOT EXISTS (SELECT 1 FROM {t} AS t WHERE {same})", **parts)
        )
        self._check_merged(stored, same if not others else None)

    def _check_merged(self, stored: int, same: Sql | None) -> None:
        """Refuse a table that lacks rows after they were merged; `same` says when one is there, else all values do."""
        if stored >= self.count:
            return
        # A trigger may leave out updates that change nothing.
        theirs = join(", ", (sql("t.{n}", n=quote(wire.name)) for wire in self.columns))
        ours = join(", ", map(converted, self.columns))
        there = same or sql(
            "CAST(ROW({theirs}) AS text) = CAST(ROW({ours}) AS text)", theirs=theirs, ours=ours
        )
        query = "SELECT count(*) FROM {stage} AS s WHERE NOT EXISTS (SELECT 1 FROM {t} AS t WHERE {there})"
        found = rows_of(self.connection, sql(query, stage=_STAGE, t=quote(*self.name), there=there))
        if found[0][0]:
            raise self._kept_out(int(found[0][0]))

    def _replace(self, oid: int) -> None:
        """Swap the table for a new one that has its place; in place where others hang on it."""
        if rows_of(self.connection, "SELECT row_security_active(%s::oid)", [oid])[0][0]:
            raise ExportFailed(
                f"{self._label}: row-level security hides rows of the table from this user, which `replace` would "
                "leave; let the user see all (ALTER ROLE … BYPASSRLS), or use mode `upsert`; nothing was stored"
            )
        if hangs := postgres_replace.needed_by(self.connection, oid):
            run(self.connection, sql("LOCK TABLE {t} IN SHARE ROW EXCLUSIVE MODE", t=quote(*self.name)))
            run(self.connection, sql("DELETE FROM {rows}", rows=self._own_rows))
            # Only these keep rows, and to look for some takes the right to SELECT.
            may_keep = {"a trigger", "a rule"} & set(hangs)
            left = sql("SELECT 1 FROM {rows} LIMIT 1", rows=self._own_rows)
            if may_keep and rows_of(self.connection, left):
                raise ExportFailed(
                    f"{self._label}: a trigger or a rule of the table kept rows from being deleted; mend it, or use "
                    "mode `append` or `upsert`; nothing was stored"
                )
            self._fill(self.name)
            return
        there = {row[0] for row in rows_of(self.connection, _COLUMNS, [oid]) if not row[2]}
        like = there == {wire.name for wire in self.columns}
        new = postgres_replace.new_name(self.name)
        if like:
            postgres_replace.create_like(self.connection, self.name, new)
        else:
            self._create(new)
        self._fill(new)
        postgres_replace.swap(self.connection, oid, self.name, new, like=like)
