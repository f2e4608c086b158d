"""Names and values become SQL text that cannot be broken out of."""

from decimal import Decimal

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlflow_dagster.errors import ProjectError
from sqlflow_dagster.sql import Sql, TableName, join, literal, quote, sql

NAMES = st.text(
    st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=("Cs",)), min_size=1
)


@given(NAMES)
def test_any_name_without_control_characters_is_a_column_name(name):
    with duckdb.connect() as connection:
        connection.execute(sql("SELECT 1 AS {name}", name=quote(name)))
        assert connection.description[0][0] == name


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))))
def test_any_text_comes_back_from_its_literal(text):
    with duckdb.connect() as connection:
        assert connection.execute(sql("SELECT {text}", text=literal(text))).fetchone() == (text,)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (False, False),
        (7, 7),
        (-(2**100), -(2**100)),
        (Decimal("1.10"), Decimal("1.10")),
        (0.1, 0.1),
        (float("inf"), float("inf")),
    ],
    ids=repr,
)
def test_a_literal_keeps_its_value(value, expected):
    with duckdb.connect() as connection:
        assert connection.execute(sql("SELECT {value}", value=literal(value))).fetchone() == (expected,)


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "\x7f"], ids=repr)
def test_a_name_that_no_database_keeps_is_refused(name):
    with pytest.raises(ProjectError, match="cannot be a name"):
        quote(name)


def test_plain_text_is_refused_as_a_part():
    with pytest.raises(TypeError, match="quote\\(\\) or literal\\(\\)"):
        sql("SELECT {x}", x="1; DROP TABLE t")  # type: ignore[arg-type]


def test_parts_and_braces_are_filled_in():
    columns = join(", ", [quote("a"), quote("b")])
    assert sql("SELECT {columns} FROM {t} WHERE x = {{}}", columns=columns, t=quote("s", "t")) == Sql(
        'SELECT "a", "b" FROM "s"."t" WHERE x = {}'
    )


def test_a_table_name_folds_case_and_reads_plainly():
    assert TableName("Shop", "Orders").folded == TableName("shop", "orders")
    assert str(TableName("shop", "orders")) == "shop.orders"
