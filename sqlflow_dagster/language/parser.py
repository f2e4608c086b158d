"""`.sf` text → `Script`: one function per production of the grammar, all errors in one pass.

A wrong statement is recorded and the parser goes on after the next `;`, so that one run names
everything that has to be mended.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from sqlflow_dagster.errors import PipelineError, Problem
from sqlflow_dagster.language import bodies, clauses, conditions
from sqlflow_dagster.language.objects import read_object
from sqlflow_dagster.language.reader import Places, Reader, Wrong, nearest, shown, unclosed
from sqlflow_dagster.language.tokens import Token, Unclosed, next_token
from sqlflow_dagster.language.tree import (
    Branch,
    Create,
    Export,
    If,
    Include,
    Load,
    Object,
    Script,
    Set,
    Source,
    Span,
    Statement,
)

_CLOSERS = ("ELSE", "ELSEIF", "ENDIF", "END")
_DEEPEST = 50
# An unclosed comment or string swallows the rest; each is looked for to the file's end.
_MOST_UNCLOSED = 3

_SOURCE = 'write SOURCE name TYPE CSV PARAMS { "path": "data/x.csv" };'
_CREATE = "write CREATE TABLE name AS SELECT …;"
_INSTEAD = {
    "a query stands in CREATE TABLE name AS SELECT …; or EXPORT SELECT … TO …;": (
        *("SELECT", "WITH", "FROM", "VALUES", "PIVOT"),
    ),
    "rows are written by LOAD table FROM source MODE …; or CREATE TABLE name MODE APPEND AS SELECT …;": (
        *("INSERT", "UPDATE", "DELETE", "MERGE", "COPY"),
    ),
    "a pipeline has no such statement; tables are made by LOAD and CREATE TABLE … AS": (
        *("DROP", "ALTER", "TRUNCATE", "ATTACH", "INSTALL", "PRAGMA", "CALL", "BEGIN", "COMMIT"),
    ),
}


def parse(text: str, path: str) -> Script:
    """Return the syntax tree of a file's text; `path` is shown in messages.

    Raises PipelineError with every problem of the file.
    """
    script = read(text, path)
    if script.problems:
        raise PipelineError(script.problems)
    return script


def read(text: str, path: str) -> Script:
    """Return the tree of the statements that parse; what is wrong with the others is in its `problems`."""
    reader = Reader(text.removeprefix("\ufeff"), path)
    statements = _script(reader)
    problems = sorted(reader.problems, key=lambda problem: (problem.line, problem.column))
    return Script(path, reader.text, statements, tuple(problems), tuple(reader.unread))


def offset_problem(script: Script, start: int, end: int, message: str, hint: str = "") -> Problem:
    """Return a Problem at `script.text[start:end]`, with its line and column worked out."""
    return _places(script.text, script.path).problem(start, end, message, hint)


@lru_cache(maxsize=8)
def _places(text: str, path: str) -> Places:
    """Kept, because a file with one problem often has many."""
    return Places(text, path)


def _script(reader: Reader) -> tuple[Statement, ...]:
    """Pipeline = { statement } ;"""
    statements: list[Statement] = []
    nul = reader.text.find("\0")
    if nul >= 0:
        reader.report(Wrong("the file holds a NUL character", "save it as UTF-8 text", nul, nul + 1))
        reader.position = len(reader.text)
        reader.lose(0)
        return ()
    while _more(reader):
        statements += _block(reader)
        if _more(reader):
            _stray(reader)
    return tuple(statements)


def _stray(reader: Reader) -> None:
    """Report an ELSE or END IF that closes nothing, and go on after it."""
    token = reader.take()
    words, end = token.word, token.end
    if words in ("ELSE", "END") and _more(reader) and (follower := reader.accept("IF")):
        words, end = f"{words} IF", follower.end
    hint = "remove it, or write IF … THEN before"
    reader.report(Wrong(f"{words} without an IF before it", hint, token.start, end))
    if words.startswith("END") and _more(reader):
        reader.accept(";")


def _more(reader: Reader) -> bool:
    try:
        return reader.peek().kind != "end"
    except Wrong as error:
        reader.report(error)
        start, reader.position = reader.position, len(reader.text)
        reader.lose(start)
        return False


def _block(reader: Reader) -> list[Statement]:
    """{ statement }, up to the end or a word that closes an IF's arm."""
    statements: list[Statement] = []
    while _more(reader) and reader.peek().word not in _CLOSERS:
        token = reader.peek()
        known = len(reader.problems)
        try:
            statement = _statement(reader, token)
        except Wrong as error:
            reader.report(error)
            _recover(reader, error, token)
            statement = None
        if statement and (len(reader.problems) == known or isinstance(statement, If)):
            statements.append(statement)
        else:
            reader.lose(token.start)
    return statements


def _recover(reader: Reader, error: Wrong, first: Token) -> None:
    """Go to where the next statement begins: after the next `;`, or at a line that begins one."""
    if error.resume is not None:
        reader.position = min(error.resume, len(reader.text))
        return
    reader.position = max(error.start, reader.position, first.end)
    try:
        if error.start >= first.end and bodies.begins_line(reader, error.start):
            return
        if not reader.in_sql:
            _skip_clauses(reader)
        else:
            reader.position = bodies.skip(reader.text, reader.position)
    except Unclosed as unended:
        _skip_unclosed(reader, unended, error)


def _skip_clauses(reader: Reader) -> None:
    """Go after the next `;` that stands in no string or comment of our clauses."""
    while True:
        token = next_token(reader.text, reader.position)
        if token.kind == "end" or (
            token.word and token.start > reader.position and bodies.begins_line(reader, token.start)
        ):
            reader.position = token.start
            return
        reader.position = token.end
        # A string that is not closed on its line most likely hides the `;` at the line's end.
        if token.text == ";" or (token.kind == "broken" and token.text.rstrip().endswith(";")):
            return


def _skip_unclosed(reader: Reader, unended: Unclosed, error: Wrong) -> None:
    if unended.start != error.start:
        reader.report(unclosed(unended))
    reader.unclosed += 1
    # Go on behind the line that a `;` ends: what follows is most likely meant to be outside.
    line = reader.text.find(";\n", unended.start)
    lost = line < 0 or reader.unclosed >= _MOST_UNCLOSED or unended.what == "comment"
    reader.position = len(reader.text) if lost else line + 1


def _statement(reader: Reader, token: Token) -> Statement | None:
    """Statement = source | load | create | export | set | include | if ;"""
    rule = _RULES.get(token.word)
    reader.in_sql = token.word not in ("SOURCE", "LOAD", "SET", "INCLUDE")
    if rule:
        reader.take()
        return rule(reader, token.start)
    if token.text == ";":
        reader.take()
        raise Wrong("there is no statement before this ;", "remove it", token.start, token.end, token.end)
    hint = next((hint for hint, words in _INSTEAD.items() if token.word in words), None)
    hint = hint or nearest(token.word, tuple(_RULES)) or f"write one of {', '.join(_RULES)}"
    reader.wrong(f"{shown(token)} starts no statement", hint, token)


def _source(reader: Reader, start: int) -> Source:
    """Source = "SOURCE" name ( "TYPE" name "PARAMS" object | "FROM" string "OPTIONS" object ) ";" ;"""
    name = clauses.name(reader, "the source's name")
    if reader.accept("FROM"):
        hint = 'write SOURCE name FROM "connector" OPTIONS { … };'
        profile = clauses.string(reader, "the name of a connector of the profile, in quotes", hint)
        options = _object_after(reader, "OPTIONS")
        return Source(name, profile=profile, params=options, span=_end(reader, start, "OPTIONS"))
    if not reader.accept("TYPE"):
        reader.wrong(f"expected TYPE or FROM, found {shown(reader.peek())}", _SOURCE)
    kind = clauses.name(reader, "a connector's type such as CSV")
    reader.expect("PARAMS", _SOURCE)
    return Source(name, type=kind, params=read_object(reader), span=_end(reader, start))


def _load(reader: Reader, start: int) -> Load:
    """Load = "LOAD" ( table | "*" ) "FROM" name [ "." stream ] [ "MODE" mode ] ";" ;"""
    table = None if reader.accept("*") else clauses.table(reader)
    reader.expect("FROM", "write LOAD table FROM source;")
    source = clauses.name(reader, "the source's name")
    stream = clauses.stream(reader) if reader.accept(".") else None
    mode = clauses.mode(reader, clauses.LOAD_MODES, keyless=True) if reader.accept("MODE") else None
    return Load(table, source, stream, mode, _end(reader, start, "MODE", "KEY"))


def _create(reader: Reader, start: int) -> Create:
    """Create = "CREATE" [ "OR" "REPLACE" ] ( "TABLE" | "VIEW" ) table [ "MODE" mode ] "AS" query ";" ;"""
    replace = reader.accept("OR") is not None
    if replace:
        reader.expect("REPLACE", "write CREATE OR REPLACE TABLE name AS SELECT …;")
    view = reader.accept("VIEW") is not None
    if not view and not reader.accept("TABLE"):
        hint = nearest(reader.peek().word, ("TABLE", "VIEW")) or _CREATE
        reader.wrong(f"expected TABLE or VIEW, found {shown(reader.peek())}", hint)
    if (word := reader.peek()).word == "IF" and next_token(reader.text, word.end).word == "NOT":
        reader.wrong("a pipeline has no IF NOT EXISTS", "write CREATE OR REPLACE TABLE, or MODE APPEND")
    table = clauses.table(reader)
    mode = clauses.mode(reader, clauses.TRANSFORM_MODES) if reader.accept("MODE") else None
    if not reader.accept("AS"):
        hint = nearest(reader.peek().word, ("MODE", "AS")) or "write CREATE TABLE name [MODE …] AS SELECT …;"
        reader.wrong(f"expected AS, found {shown(reader.peek())}", hint)
    query = bodies.query(reader, "a query after AS", _CREATE)
    return Create(table, view, replace, mode, query, _end(reader, start))


def _export(reader: Reader, start: int) -> Export:
    """Export = "EXPORT" ( query | table ) "TO" ( string | name ) [ "TYPE" name ] [ "OPTIONS" object ] ";" ;"""
    what = bodies.exported(reader)
    reader.in_sql = False
    if reader.peek().kind == "text":
        target = clauses.string(reader, "a target", "")
        kind = clauses.name(reader, "a connector's type such as CSV") if reader.accept("TYPE") else None
        return Export(
            what, target, kind, _object_after(reader, "OPTIONS"), _end(reader, start, "TYPE", "OPTIONS")
        )
    name = clauses.name(reader, "a target: a file in quotes or the name of a connector")
    kind = clauses.name(reader, "a connector's type such as CSV") if reader.accept("TYPE") else None
    return Export(what, name, kind, _object_after(reader, "OPTIONS"), _end(reader, start, "TYPE", "OPTIONS"))


def _set(reader: Reader, start: int) -> Set:
    """Set = "SET" name "=" value ";" ;"""
    name = clauses.name(reader, "the variable's name")
    reader.expect("=", 'write SET name = "value";')
    return Set(name, clauses.value(reader), _end(reader, start))


def _include(reader: Reader, start: int) -> Include:
    """Include = "INCLUDE" string [ "AS" name ] ";" ;"""
    path = clauses.string(reader, "a file in quotes", 'write INCLUDE "shared/file.sf";')
    alias = clauses.name(reader, "the prefix of its names") if reader.accept("AS") else None
    return Include(path, alias, _end(reader, start, "AS"))


def _if(reader: Reader, start: int) -> If | None:
    """If = "IF" branch { ( "ELSEIF" | "ELSE" "IF" ) branch } [ "ELSE" { statement } ] ( "ENDIF" | "END" "IF" ) ";" ;

    None where it cannot be decided, because a condition is wrong; that is reported.
    """
    if reader.depth >= _DEEPEST:
        end = len(reader.text)
        raise Wrong(f"IF is nested more than {_DEEPEST} deep", "use ELSEIF or AND", start, start + 2, end)
    reader.depth += 1
    try:
        branches, otherwise = _arms(reader)
    finally:
        reader.depth -= 1
    reader.in_sql = False
    try:
        _end_if(reader, start)
        span = _end(reader, start)
    except Wrong as error:
        # What is in it has been read, and is looked at all the same.
        reader.report(error)
        _recover(reader, error, Token("name", "IF", start, start + len("IF")))
        span = reader.span(start)
    known = tuple(branch for branch in branches if branch)
    return If(known, otherwise, span) if len(known) == len(branches) else None


def _arms(reader: Reader) -> tuple[list[Branch | None], tuple[Statement, ...]]:
    """The arms of an IF, None for those whose condition is wrong, and the statements after ELSE."""
    branches = [_branch(reader)]
    otherwise: list[Statement] | None = None
    while token := reader.accept("ELSEIF", "ELSE"):
        if otherwise is not None:
            hint = "an IF has one ELSE, and it is the last arm"
            reader.report(Wrong(f"{token.word} after the ELSE of the same IF", hint, token.start, token.end))
        if token.word == "ELSEIF" or _else_if(reader, token):
            branches.append(_branch(reader))
        else:
            otherwise = [*(otherwise or ()), *_block(reader)]
    return branches, tuple(otherwise or ())


def _else_if(reader: Reader, token: Token) -> bool:
    """Take the IF of an ELSE IF. On a line of its own it is an IF inside the ELSE."""
    follower = reader.peek()
    if follower.word != "IF" or "\n" in reader.text[token.end : follower.start]:
        return False
    reader.take()
    return True


def _end_if(reader: Reader, start: int) -> None:
    token = reader.peek()
    if token.kind == "end":
        raise Wrong("this IF is never closed", "close it with END IF;", start, start + 2, len(reader.text))
    if reader.accept("ENDIF"):
        return
    reader.expect("END", "close the IF with END IF;")
    reader.expect("IF", "close the IF with END IF;")


def _branch(reader: Reader) -> Branch | None:
    """Branch = condition "THEN" { statement } ; None where the condition is wrong, which is reported."""
    known = len(reader.problems)
    condition = bodies.condition(reader)
    fault = conditions.fault(condition.sql) if condition and len(reader.problems) == known else None
    if condition and fault:
        start = condition.span.start
        reader.report(Wrong(fault.message, fault.hint, start + fault.start, start + fault.end))
    right = len(reader.problems) == known
    body = tuple(_block(reader))
    return Branch(condition, body) if condition and right else None


def _object_after(reader: Reader, word: str) -> Object | None:
    return read_object(reader) if reader.accept(word) else None


def _end(reader: Reader, start: int, *optional: str) -> Span:
    """The `;` of a statement, and the statement's span; `optional` clauses might have stood before it."""
    if reader.accept(";"):
        return reader.span(start)
    token = reader.peek()
    before = max(start, reader.position - 1)
    if token.kind == "end" or bodies.begins_line(reader, token.start):
        resume = token.start
        raise Wrong("expected ; after this", "end the statement with ;", before, reader.position, resume)
    if "OPTIONS" in optional and token.word == "PARAMS":
        reader.wrong(
            "expected OPTIONS, found PARAMS", "write OPTIONS { … } here; PARAMS go with the TYPE of a SOURCE"
        )
    reader.wrong(
        f"expected ;, found {shown(token)}", nearest(token.word, optional) or "end the statement with ;"
    )


_RULES: dict[str, Callable[[Reader, int], Statement | None]] = {
    "SOURCE": _source,
    "LOAD": _load,
    "CREATE": _create,
    "EXPORT": _export,
    "SET": _set,
    "INCLUDE": _include,
    "IF": _if,
}
