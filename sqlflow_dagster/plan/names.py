"""A table as a statement names it → the table it writes."""

from __future__ import annotations

import re

from sqlflow_dagster.language import tree
from sqlflow_dagster.plan.placed import File, Placed, noted
from sqlflow_dagster.plan.report import Report
from sqlflow_dagster.sql import TableName, fold, quote, whose_schema

_PASSWORD = re.compile(r"(://[^\s:/@]*):(?!\$\{)[^\s/@]+(?=@)")


def without_password(target: str) -> str:
    """Return a target whose address has lost its password; one that is a variable stays."""
    return _PASSWORD.sub(r"\1", target)


def name_parts(report: Report, placed: Placed, table: tree.Table) -> list[str] | None:
    """Return one name, or schema and name, with variables filled in; None after noting a problem."""
    parts: list[str] = []
    for part in table.parts:
        name = placed.fixed(report, part.text, part.span)
        if name is None:
            return None
        # A variable's value may bring the schema with it.
        parts += name.split(".") if "${" in part.text else [name]
    with noted(report, placed.script, table.span):
        quote(*parts)
        if len(parts) <= 2:
            return parts
        placed.problem(report, "a table has at most two parts", "write schema.table", table.span)
    return None


def check_schema(report: Report, file: File) -> None:
    """Refuse a pipeline whose name can be no schema of its tables; the profile's `schema` is checked there."""
    owner = whose_schema(file.schema)
    if owner and file.placed:
        name = file.schema
        message = (
            f"no pipeline can be called {name}: its tables would be in the schema {name}, which is {owner}"
        )
        file.placed[0].problem(report, message, "rename the file, or set `schema` of the profile")


def table_name(report: Report, file: File, placed: Placed, table: tree.Table) -> TableName | None:
    """Return the table that a statement writes: in the pipeline's schema unless it names another."""
    parts = name_parts(report, placed, table)
    if parts is None:
        return None
    if len(parts) == 1:
        return TableName(file.schema, placed.prefix + parts[0])
    if owner := whose_schema(parts[0]):
        placed.problem(report, f"the schema {fold(parts[0])} is {owner}", "choose another one", table.span)
        return None
    return TableName(parts[0], placed.prefix + parts[1])
