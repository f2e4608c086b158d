"""docs/postgres_types.md says of each type of Postgres what goes to DuckDB and back; here it does."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import pytest

from tests.connectors.postgres.type_values import ARRAYS, BUILT_IN, DISTRIBUTED, NOBODYS, OWN

PAGE = Path(__file__).parents[3] / "docs/postgres_types.md"


def columns(part):
    """Each column as (name, type, values, whether it is declared as text)."""
    for number, item in enumerate(part.types):
        yield f"c{number}", item.kind, [item.usual, *item.extreme], False
        if item.as_text:
            yield f"t{number}", item.kind, item.as_text, True
        if part.arrays:
            each = ", ".join(f"CAST({value} AS {item.kind})" for value in (item.usual, *item.extreme))
            whole = f"ARRAY[{each}, NULL]::{item.kind}[]"
            yield f"a{number}", f"{item.kind}[]", [whole, "'{}'"], False
            if item.as_text:
                each = ", ".join(f"CAST({value} AS {item.kind})" for value in item.as_text)
                yield f"b{number}", f"{item.kind}[]", [f"ARRAY[{each}, NULL]::{item.kind}[]"], True


def there_and_back(project, part):
    """Write the part's values, load them, export them, and return both texts and DuckDB's types."""
    made = list(columns(part))
    named = ", ".join(f"{name} {kind}" for name, kind, *_ in made)
    rows = zip_longest(*(values for _, _, values, _ in made), fillvalue="NULL")
    inserts = [
        f"INSERT INTO t VALUES ({n}, "
        + ", ".join(f"CAST({value} AS {kind})" for value, (_, kind, *_) in zip(row, made, strict=True))
        + ")"
        for n, row in enumerate(rows)
    ]
    nulls = f"INSERT INTO t (n) VALUES ({len(inserts)})"
    project.database.run(
        *part.made, f"CREATE TABLE t (n int, {named})", *inserts, nulls, "CREATE TABLE back (LIKE t)"
    )
    project.pipeline(
        f'LOAD t FROM pg;\nEXPORT t TO "{project.database.url}#back" OPTIONS {{"mode": "append"}};',
        table="t",
        types={name: "VARCHAR" for name, *_, text in made if text},
    )
    project.bench.ok()
    shown = ", ".join(f"format('%s', {name}), {name} IS NULL" for name, *_ in made)
    there, back = (project.database.run(f"SELECT {shown} FROM {t} ORDER BY n") for t in ("t", "back"))
    kinds = {row[0]: row[1] for row in project.query("DESCRIBE p.t")}
    assert len(back) == len(inserts) + 1
    names = [f"{name} {kind}" for name, kind, *_ in made for _ in "vn"]
    changed = {
        name: (a, b)
        for before, after in zip(there, back, strict=True)
        for name, a, b in zip(names, before, after, strict=True)
        if a != b
    }
    assert changed == {}
    return kinds


def section(part, kinds):
    """The part's table on the page."""
    lines = [f"## {part.title}", "", "| Postgres | DuckDB | usual | extreme |", "|---|---|---|---|"]
    for number, item in enumerate(part.types):
        arrays = kinds.get(f"a{number}")
        kind = f"`{kinds[f'c{number}']}`" + (f", `{arrays}`" if arrays else "")
        extreme = [_code(value) for value in item.extreme]
        extreme += [f"{_code(value)} as text" for value in item.as_text]
        lines.append(f"| {_code(item.kind)} | {kind} | {_code(item.usual)} | {', '.join(extreme)} |")
    return "\n".join(lines) + "\n"


def _code(text):
    shown = text.encode("unicode_escape").decode() if not text.isprintable() else text
    shown = shown.replace("|", "\\|")
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"


@pytest.mark.parametrize("part", [BUILT_IN, OWN, ARRAYS], ids=["built in", "own", "arrays"])
def test_every_type_goes_to_duckdb_and_back_with_the_same_text(project, part, tmp_path):
    on_the_page(section(part, there_and_back(project, part)), tmp_path)


def test_types_of_distributions_go_to_duckdb_and_back_with_the_same_text(distributed, tmp_path):
    on_the_page(section(DISTRIBUTED, there_and_back(distributed, DISTRIBUTED)), tmp_path)


def test_no_built_in_type_is_left_out(project):
    known = project.database.run(
        "SELECT typname FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace"
        " AND typtype IN ('b', 'r', 'm', 'e') AND typname NOT LIKE '\\_%'"
    )
    plain = {"char(5)": "bpchar", '"char"': "char"}
    shown = {plain.get(item.kind, item.kind.partition("(")[0]) for item in (*BUILT_IN.types, *ARRAYS.types)}
    assert {name for (name,) in known} - NOBODYS - {"xml"} - shown == set()


def on_the_page(text, folder):
    if text not in PAGE.read_text("utf-8"):
        (folder / "section.md").write_text(text, "utf-8")
        pytest.fail(f"docs/postgres_types.md is to have the text of {folder / 'section.md'}")
