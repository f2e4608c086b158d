"""The SQL bodies of all files → their syntax trees, and places in them → places in the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from sqlflow_dagster.errors import ProjectError
from sqlflow_dagster.language import tree
from sqlflow_dagster.language.tokens import SqlToken, scan
from sqlflow_dagster.language.variables import UndefinedVariables, Variables, expand_sql
from sqlflow_dagster.plan.dependencies import Node, Reads, TableRef, reads
from sqlflow_dagster.plan.placed import Placed, noted
from sqlflow_dagster.plan.report import Report
from sqlflow_dagster.plan.syntax import SyntaxTree, syntax_trees
from sqlflow_dagster.sql import TableName, quote

# Stands in for a variable without a value, so that the rest of its query is looked at all the same.
NO_VALUE = "sqlflow_has_no_value"
_ONE_QUERY = "a body is one query: SELECT, FROM, WITH, VALUES, PIVOT, UNPIVOT or TABLE"


@dataclass(frozen=True, slots=True)
class Body:
    """One query as written, and its syntax with the values of `variables` in it."""

    placed: Placed
    query: tree.Query
    variables: Variables
    syntax: SyntaxTree
    reads: Reads

    @property
    def node(self) -> Node:
        """Return the root of its syntax."""
        return self.syntax.statements[0]

    def span(self, position: int | None) -> tree.Span:
        """Return the file's place of DuckDB's `position`: the word or name there, else the whole."""
        return _span(self.query, self.variables, self.syntax, self.syntax.offset(position))

    @property
    def text(self) -> str:
        """Return the query with the variables' values in it."""
        return self.syntax.sql

    def span_of(self, offset: int) -> tree.Span:
        """Return the file's place of an offset of `text`."""
        return _span(self.query, self.variables, self.syntax, offset)

    def with_names(self, names: Iterable[tuple[TableRef, TableName]]) -> str:
        """Return the text with other names for some of its tables, each with its old one as alias."""
        text, begin = self.query.sql, self.query.span.start
        places = {
            (self.span(ref.position).start - begin, self.span(ref.position).end - begin): (ref, table)
            for ref, table in names
        }
        for (start, end), (ref, table) in sorted(places.items(), reverse=True):
            alias = f" AS {quote(ref.name)}" if ref.bare else ""
            text = f"{text[:start]}{quote(*table)}{alias}{text[end:]}"
        return text


def bodies(placed: Iterable[Placed], report: Report) -> dict[int, Body]:
    """Return the usable bodies by their statement's `id`; all are parsed in one call."""
    found: list[_Text] = []
    for statement in placed:
        query = _query(statement)
        if query is None:
            continue
        with noted(report, statement.script, query.span):
            found.append(_filled_in(statement, query, report))
    result: dict[int, Body] = {}
    for text, syntax in zip(found, syntax_trees([text.filled for text in found]), strict=True):
        body = _body(text, syntax, report)
        if body:
            result[id(text.placed)] = body
    return result


@dataclass(frozen=True, slots=True)
class _Text:
    """A body with values in it; those of a `doubtful` one are not all its own."""

    placed: Placed
    query: tree.Query
    variables: Variables
    filled: str
    doubtful: bool = False

    def span(self, syntax: SyntaxTree, offset: int | None) -> tree.Span:
        """Return the file's place of an offset of the text with values."""
        return _span(self.query, self.variables, syntax, offset)


def _filled_in(placed: Placed, query: tree.Query, report: Report) -> _Text:
    variables = placed.values.all
    if "${" not in query.sql:
        return _Text(placed, query, variables, query.sql)
    try:
        return _Text(placed, query, variables, expand_sql(query.sql, variables))
    except UndefinedVariables as error:
        report.undefined(error.names, placed.script, query.span)
        stand_ins = dict.fromkeys(error.names, NO_VALUE)
    variables = replace(variables, environ={**variables.environ, **stand_ins})
    return _Text(placed, query, variables, expand_sql(query.sql, variables), doubtful=True)


def _query(placed: Placed) -> tree.Query | None:
    match placed.statement:
        case tree.Create(query=query):
            return query
        case tree.Export(what=tree.Query() as query):
            return query
    return None


def _body(text: _Text, syntax: SyntaxTree, report: Report) -> Body | None:
    placed, query = text.placed, text.query
    if syntax.error and text.doubtful:
        return None  # with the values it may parse
    if syntax.error:
        span = text.span(syntax, syntax.wrong_at)
        report.problem(placed.script, span, *_explained(placed, query, syntax, span))
        return None
    if len(syntax.statements) != 1:
        message = f"one query may stand here, not {len(syntax.statements)}"
        report.problem(placed.script, query.span, message, _ONE_QUERY)
        return None
    body = Body(placed, query, text.variables, syntax, reads(syntax.statements[0]))
    for hidden in body.reads.hidden:
        message = f"{hidden.function}() hides the tables it reads"
        hint = "name the tables in the query, so that it runs after they are made"
        report.problem(placed.script, body.span(hidden.position), message, hint)
    return body


def _explained(placed: Placed, query: tree.Query, syntax: SyntaxTree, span: tree.Span) -> tuple[str, str]:
    if syntax.not_a_query:
        return "this is no query", _ONE_QUERY
    if syntax.sql == query.sql:
        return f"the SQL cannot be parsed: {syntax.error}", ""
    # DuckDB's message quotes the text with the variables' values in it, and those may be secret.
    near = placed.script.text[span.start : span.end] if span != query.span else "its end"
    return f"the SQL cannot be parsed: syntax error at or near {near}", ""


def _span(query: tree.Query, variables: Variables, syntax: SyntaxTree, offset: int | None) -> tree.Span:
    if offset is None:
        return query.span
    if syntax.sql != query.sql:
        offset = _written(query.sql, variables, offset)
    length = _length(query.sql, offset)
    if length == 0:
        # The end of the body: the last character is where something is missing.
        offset, length = max(0, len(query.sql) - 1), 1
    start = query.span.start + offset
    return replace(query.span, start=start, end=start + length)


def _written(sql: str, variables: Variables, offset: int) -> int:
    """Turn an offset of the text with values into one of the text as written.

    Only where something is wrong is this needed, so it may be slow: the text up to each variable
    is filled in by itself.
    """
    shift = 0
    for start, end in _filled(sql):
        try:
            filled = len(expand_sql(sql[:end], variables))
        except ProjectError:
            return start
        begin = start + shift
        if offset < begin:
            break
        if offset < filled:
            return start
        shift = filled - end
    return min(offset - shift, len(sql))


def _filled(sql: str) -> Iterator[tuple[int, int]]:
    """Begin and end of the pieces that variables change, with what is glued to them."""
    begin: int | None = None
    last: SqlToken | None = None
    for token in scan(sql, trivia=True):
        glued = (
            last is not None
            and last.end == token.start
            and (token.kind in ("word", "number", "variable") or token.text == ".")
        )
        if begin is not None and last is not None and not glued:
            yield begin, last.end
            begin = None
        if begin is None and "${" in token.text and token.kind != "comment":
            begin = token.start
        last = token
    if begin is not None and last is not None:
        yield begin, last.end


def _length(sql: str, offset: int) -> int:
    """Length of the name or token at an offset; a dotted name is one."""
    end = offset
    for token in scan(sql, offset):
        joins = token.kind in ("word", "quoted", "variable", "number") or token.text == "."
        if token.start != end or (end > offset and not joins):
            break
        end = token.end
        if not joins:
            break
    return end - offset
