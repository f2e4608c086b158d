"""`.sf` text → `Script`: one method per production of the grammar, all errors in one pass.

A wrong statement is recorded and the parser goes on after the next `;`, so that one run names
everything that has to be mended.
"""

from __future__ import annotations

import difflib
from bisect import bisect_right
from typing import Any, NoReturn

from sqlflow_dagster.errors import PipelineError, Problem
from sqlflow_dagster.language.tokens import (
    SqlToken,
    Token,
    Unclosed,
    block_end,
    end_of_sql,
    next_token,
    scan,
    unquote,
)
from sqlflow_dagster.language.tree import (
    Branch,
    Create,
    Export,
    If,
    Include,
    Load,
    Mode,
    Name,
    Object,
    Query,
    Script,
    Set,
    Source,
    Span,
    Statement,
    Table,
    Text,
)

_STATEMENTS = ("SOURCE", "LOAD", "CREATE", "EXPORT", "SET", "INCLUDE", "IF")
_CLOSERS = ("ELSE", "ELSEIF", "ENDIF", "END")
_UNITS = ("SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "YEAR")
_DEEPEST = 100
_CONSTANTS: dict[str, bool | None] = {"TRUE": True, "FALSE": False, "NULL": None}


class _Wrong(Exception):  # noqa: N818 - it never leaves this module
    """A production does not fit; carries what the Problem needs."""

    def __init__(self, message: str, hint: str, start: int, end: int) -> None:
        super().__init__(message)
        self.message, self.hint, self.start, self.end = message, hint, start, end


def parse(text: str, path: str) -> Script:
    """Return the syntax tree of a file's text; `path` is shown in messages.

    Raises PipelineError with every problem of the file.
    """
    parser = _Parser(text.removeprefix("\ufeff"), path)
    statements = parser.script()
    if parser.problems:
        raise PipelineError(parser.problems)
    return Script(path, parser.text, statements)


def offset_problem(script: Script, start: int, end: int, message: str, hint: str = "") -> Problem:
    """Return a Problem at `script.text[start:end]`, with its line and column worked out."""
    return _problem(script.text, script.path, (start, end), message, hint)


def _problem(text: str, path: str, place: tuple[int, int], message: str, hint: str) -> Problem:
    start, end = place
    begin = text.rfind("\n", 0, start) + 1
    stop = text.find("\n", start)
    line = text[begin : stop if stop >= 0 else len(text)].rstrip("\r")
    return Problem(
        path=path,
        line=text.count("\n", 0, start) + 1,
        column=start - begin + 1,
        message=message,
        hint=hint,
        source_line=line[:500],
        length=max(1, end - start),
    )


class _Parser:
    def __init__(self, text: str, path: str) -> None:
        self.text = text
        self.path = path
        self.position = 0
        self.depth = 0
        self.problems: list[Problem] = []
        self._peeked: Token | None = None
        self._lines = [0, *(index + 1 for index, c in enumerate(text) if c == "\n")]

    # --- tokens

    def peek(self) -> Token:
        if self._peeked is None or self._peeked.start < self.position:
            self._peeked = next_token(self.text, self.position)
        return self._peeked

    def take(self) -> Token:
        token = self.peek()
        self.position = token.end
        self._peeked = None
        return token

    def accept(self, *words: str) -> Token | None:
        """Take the next token where it is one of these keywords or marks."""
        token = self.peek()
        if token.word in words or (token.kind == "mark" and token.text in words):
            return self.take()
        return None

    def expect(self, word: str, hint: str) -> Token:
        return self.accept(word) or self.wrong(f"expected {word}, found {_shown(self.peek())}", hint)

    def wrong(self, message: str, hint: str = "", token: Token | None = None) -> NoReturn:
        token = token or self.peek()
        raise _Wrong(message, hint, token.start, token.end)

    def span(self, start: int, end: int | None = None) -> Span:
        line = bisect_right(self._lines, start)
        return Span(start, self.position if end is None else end, line, start - self._lines[line - 1] + 1)

    # --- recovery

    def script(self) -> tuple[Statement, ...]:
        """pipeline = { statement } ;"""
        statements: list[Statement] = []
        while self._more():
            statements += self.block()
            if self._more():
                token = self.take()
                self._record(
                    _Wrong(f"{token.text} without an IF before it", "remove it", token.start, token.end)
                )
                self._skip()
        return tuple(statements)

    def _more(self) -> bool:
        try:
            return self.peek().kind != "end"
        except Unclosed as error:
            self._unclosed(error)
            return False

    def block(self) -> list[Statement]:
        """{ statement }, up to the end or a word that closes an IF's arm."""
        statements: list[Statement] = []
        while self._more() and self.peek().word not in _CLOSERS:
            begin = self.position
            try:
                statements.append(self.statement())
            except _Wrong as error:
                self._record(error)
                self._skip()
            except Unclosed as error:
                self._unclosed(error)
            if self.position == begin:
                self.position += 1
        return statements

    def _record(self, error: _Wrong) -> None:
        place = (error.start, error.end)
        self.problems.append(_problem(self.text, self.path, place, error.message, error.hint))

    def _unclosed(self, error: Unclosed) -> None:
        closer = {"string": "its closing quote", "comment": "*/"}.get(error.what, "the same $…$")
        place = (error.start, error.start + 1)
        self.problems.append(
            _problem(self.text, self.path, place, f"this {error.what} is never closed", f"add {closer}")
        )
        self.position = len(self.text)
        self._peeked = None

    def _skip(self) -> None:
        self._peeked = None
        try:
            self.position = end_of_sql(self.text, self.position)
            if self.position < len(self.text):
                self.position += 1
        except Unclosed as error:
            self._unclosed(error)

    # --- statements

    def statement(self) -> Statement:
        """statement = source | load | create | export | set | include | if ;"""
        token = self.peek()
        match token.word:
            case "SOURCE":
                return self.source()
            case "LOAD":
                return self.load()
            case "CREATE":
                return self.create()
            case "EXPORT":
                return self.export()
            case "SET":
                return self.set()
            case "INCLUDE":
                return self.include()
            case "IF":
                return self.if_()
        near = difflib.get_close_matches(token.word, _STATEMENTS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"write one of {', '.join(_STATEMENTS)}"
        self.wrong(f"{_shown(token)} starts no statement", hint)

    def source(self) -> Source:
        """source = "SOURCE" name ( "TYPE" name "PARAMS" object | "FROM" string "OPTIONS" object ) ";" ;"""
        start = self.take().start
        name = self.name("the source's name")
        if self.accept("FROM"):
            profile = self.string("the name of a connector of the profile, in quotes")
            options = self.object() if self.accept("OPTIONS") else None
            return Source(name, self.end(start), profile=profile, params=options)
        self.expect("TYPE", 'write SOURCE name TYPE CSV PARAMS {"path": "data/x.csv"};')
        kind = self.name("a connector type such as CSV")
        self.expect("PARAMS", 'write PARAMS {"name": value, …}')
        return Source(name, type=kind, params=self.object(), span=self.end(start))

    def load(self) -> Load:
        """load = "LOAD" ( table | "*" ) "FROM" name [ "." stream ] [ "MODE" … ] ";" ;"""
        start = self.take().start
        table = None if self.accept("*") else self.table()
        self.expect("FROM", "write LOAD table FROM source;")
        source = self.name("the source's name")
        stream = self.name("the stream's name") if self.accept(".") else None
        mode = self.mode(("REPLACE", "APPEND", "UPSERT")) if self.accept("MODE") else None
        return Load(table, source, stream, mode, self.end(start))

    def create(self) -> Create:
        """create = "CREATE" [ "OR" "REPLACE" ] ( "TABLE" | "VIEW" ) table [ "MODE" … ] "AS" query ";" ;"""
        start = self.take().start
        replace = self.accept("OR") is not None
        if replace:
            self.expect("REPLACE", "write CREATE OR REPLACE TABLE …")
        view = self.accept("VIEW") is not None
        if not view:
            self.expect("TABLE", "write CREATE TABLE name AS SELECT …; or CREATE VIEW …")
        table = self.table()
        mode = self.mode(("REPLACE", "APPEND", "UPSERT", "INCREMENTAL")) if self.accept("MODE") else None
        self.expect("AS", "write CREATE TABLE name [MODE …] AS SELECT …;")
        begin = self.position
        query = self.query(begin, end_of_sql(self.text, begin), "a query after AS")
        return Create(table, view, replace, mode, query, self.end(start))

    def export(self) -> Export:
        """export = "EXPORT" ( query | table ) "TO" ( string | name ) [ "TYPE" name ] [ "OPTIONS" object ] ";" ;"""
        start = self.take().start
        begin = self.position
        tokens = self._tokens(begin)
        to = _last_to(tokens)
        if to is None:
            self.wrong("this EXPORT has no TO", 'write EXPORT SELECT … TO "output/file.csv";')
        what = self._exported(begin, tokens, to)
        self.position, self._peeked = tokens[to].end, None
        token = self.peek()
        target = (
            self.string("a target") if token.kind == "text" else self.name("a target: a string or a name")
        )
        kind = self.name("a connector type such as CSV") if self.accept("TYPE") else None
        options = self.object() if self.accept("OPTIONS") else None
        return Export(what, target, kind, options, self.end(start))

    def _tokens(self, begin: int) -> list[SqlToken]:
        tokens: list[SqlToken] = []
        try:
            for token in scan(self.text, begin):
                tokens.append(token)  # noqa: PERF402 - what came before Unclosed is kept
        except Unclosed:
            # Strings of OPTIONS may hold backslashes, which SQL's strings do not know.
            if _last_to(tokens) is None:
                raise
        return tokens

    def _exported(self, begin: int, tokens: list[SqlToken], to: int) -> Query | Table:
        before = tokens[:to]
        if before and all(t.kind in ("word", "quoted", "variable") or t.text == "." for t in before):
            table = self.table()
            if self.position == before[-1].end:
                return table
        return self.query(begin, tokens[to].start, "a query or a table before TO")

    def set(self) -> Set:
        """set = "SET" name "=" value ";" ;"""
        start = self.take().start
        name = self.name("the variable's name")
        self.expect("=", "write SET name = value;")
        token = self.peek()
        if token.kind == "mark":
            self.wrong("SET needs a value", 'write SET name = "value";')
        value = self.scalar()
        return Set(name, value, self.end(start))

    def include(self) -> Include:
        """include = "INCLUDE" string [ "AS" name ] ";" ;"""
        start = self.take().start
        path = self.string("the file's path in quotes")
        alias = self.name("the prefix for its names") if self.accept("AS") else None
        return Include(path, alias, self.end(start))

    def if_(self) -> If:
        """if = "IF" condition "THEN" { statement } { ELSEIF … } [ "ELSE" { statement } ] "END" "IF" ";" ;"""
        start = self.take().start
        self.depth += 1
        if self.depth > _DEEPEST:
            self.wrong(f"IF is nested more than {_DEEPEST} deep", "split the file with INCLUDE")
        branches = [self._branch()]
        otherwise: list[Statement] = []
        while True:
            if self.accept("ELSEIF"):
                branches.append(self._branch())
            elif self.accept("ELSE"):
                if self.accept("IF"):
                    branches.append(self._branch())
                    continue
                otherwise = self.block()
                break
            else:
                break
        self.depth -= 1
        if self.accept("ENDIF") is None:
            self.expect("END", "close the IF with END IF;")
            self.expect("IF", "close the IF with END IF;")
        return If(tuple(branches), tuple(otherwise), self.end(start))

    def _branch(self) -> Branch:
        begin = self.position
        for token in scan(self.text, begin):
            if token.kind == "word" and token.depth == 0 and token.text.upper() == "THEN":
                condition = self.query(begin, token.start, "a condition between IF and THEN")
                self.position, self._peeked = token.end, None
                return Branch(condition, tuple(self.block()))
        self.wrong("this IF has no THEN", "write IF ${name} == 'value' THEN …")

    # --- parts

    def end(self, start: int) -> Span:
        """The `;` of a statement, and the statement's span."""
        token = self.peek()
        if self.accept(";"):
            return self.span(start)
        if token.kind == "end":
            # The last statement of a file may leave it out.
            return self.span(start)
        self.wrong(f"{_shown(token)} does not belong here", "end the statement with ;")

    def query(self, begin: int, end: int, what: str) -> Query:
        start = begin
        while start < end:  # the body begins after blanks; comments belong to it
            if not self.text[start].isspace():
                break
            start += 1
        stop = end
        while stop > start and self.text[stop - 1].isspace():
            stop -= 1
        if _only_comments(self.text, start, stop):
            raise _Wrong(f"expected {what}", "", min(start, len(self.text)), min(start + 1, len(self.text)))
        self.position, self._peeked = end, None
        return Query(self.text[start:stop], self.span(start, stop))

    def name(self, what: str) -> Name:
        """An identifier, bare or in double quotes; it may hold ${…}."""
        token = self.peek()
        if token.kind == "name":
            self.take()
            return Name(token.text, self.span(token.start))
        if token.kind == "text" and token.text[0] == '"':
            self.take()
            text = token.text[1:-1].replace('""', '"')
            if not text or any(ord(c) < 32 or ord(c) == 127 for c in text):
                self.wrong("a name cannot be empty or hold control characters", "rename it", token)
            return Name(text, self.span(token.start))
        self.wrong(
            f"expected {what}, found {_shown(token)}", "a name is letters, digits and _, or in double quotes"
        )

    def table(self) -> Table:
        """table = name [ "." name ] ;"""
        start = self.peek().start
        parts = [self.name("a table's name")]
        while self.accept("."):
            parts.append(self.name("a table's name after the dot"))
        span = self.span(start)
        if len(parts) > 2:
            raise _Wrong("a table has at most two parts", "write schema.table", span.start, span.end)
        return Table(tuple(parts), span)

    def string(self, what: str) -> Text:
        token = self.peek()
        if token.kind != "text":
            self.wrong(f"expected {what}, found {_shown(token)}", "put it in quotes")
        self.take()
        return Text(unquote(token.text), self.span(token.start))

    def mode(self, allowed: tuple[str, ...]) -> Mode:
        """mode = "REPLACE" | "APPEND" | "UPSERT" "KEY" keys | "INCREMENTAL" "BY" column [ "LOOKBACK" … ] ;"""
        token = self.take()
        start = token.start
        match token.word:
            case "REPLACE" | "APPEND" as kind:
                return Mode(kind, self.span(start))
            case "UPSERT":
                keys = self.keys() if self.accept("KEY", "KEYS") else ()
                return Mode("UPSERT", self.span(start), keys=keys)
            case "INCREMENTAL" if "INCREMENTAL" in allowed:
                self.expect("BY", "write MODE INCREMENTAL BY column")
                by = self.name("the column that tells time")
                lookback = self.lookback() if self.accept("LOOKBACK") else None
                return Mode("INCREMENTAL", self.span(start), by=by, lookback=lookback)
        near = difflib.get_close_matches(token.word, allowed, n=1)
        hint = f"did you mean {near[0]}?" if near else f"write one of {', '.join(allowed)}"
        self.wrong(f"{_shown(token)} is no mode here", hint, token)

    def keys(self) -> tuple[Name, ...]:
        """keys = "(" column { "," column } [ "," ] ")" | column { "," column } ;"""
        closing = self.accept("(") is not None
        keys = [self.name("a key column")]
        while self.accept(","):
            if closing and self.peek().text == ")":
                break
            keys.append(self.name("a key column"))
        if closing:
            self.expect(")", "close the list of key columns")
        return tuple(keys)

    def lookback(self) -> str:
        """A number and a unit, or a string such as '1 day'."""
        token = self.take()
        if token.kind == "text":
            number, _, unit = unquote(token.text).strip().partition(" ")
        else:
            number = token.text
            unit = self.take().word if self.peek().kind == "name" else ""
        unit = unit.strip().upper()
        if not number.isdecimal() or unit.removesuffix("S") not in _UNITS:
            self.wrong("LOOKBACK needs a number and a unit", "write LOOKBACK 7 DAYS or '1 day'", token)
        return f"{number} {unit}"

    # --- objects

    def object(self) -> Object:
        """A JSON object with comments and trailing commas; ${…} may stand unquoted as a value."""
        start = self.peek().start
        spans: dict[str, Span] = {}
        value = self._members(spans, 0)
        return Object(value, spans, self.span(start))

    def _members(self, spans: dict[str, Span], depth: int) -> dict[str, Any]:
        self.expect("{", 'write {"name": value, …}')
        value: dict[str, Any] = {}
        while not self.accept("}"):
            key = self._key()
            if key in value:
                self.wrong(f"{key!r} is given twice", "keep one of them", self._last)
            self.expect(":", 'write "name": value')
            begin = self.peek().start
            value[key] = self._value(depth + 1)
            spans[key] = self.span(begin)
            if not self.accept(","):
                self.expect("}", "separate the members with commas and close the object with }")
                break
        return value

    def _key(self) -> str:
        token = self.peek()
        if token.kind == "text":
            self._last = self.take()
            return unquote(token.text)
        if token.kind == "name":
            self.wrong(f"the name {token.text} needs double quotes", f'write "{token.text}": …')
        self.wrong(f"expected a name in double quotes, found {_shown(token)}", 'write {"name": value, …}')

    def _value(self, depth: int) -> Any:
        if depth > _DEEPEST:
            self.wrong(f"the object is nested more than {_DEEPEST} deep", "flatten it")
        token = self.peek()
        if token.text == "{" and token.kind == "mark":
            return self._members({}, depth)
        if self.accept("["):
            items: list[Any] = []
            while not self.accept("]"):
                items.append(self._value(depth + 1))
                if not self.accept(","):
                    self.expect("]", "separate the items with commas and close the list with ]")
                    break
            return items
        return self.scalar()

    def scalar(self) -> str | int | float | bool | None:
        """A string, number, true, false, null, or one bare ${variable}."""
        token = self.take()
        if token.kind == "text":
            return unquote(token.text)
        if token.kind == "number":
            return _number(token.text)
        if token.word in _CONSTANTS:
            return _CONSTANTS[token.word]
        if token.kind == "name" and "${" in token.text:
            return token.text
        self.wrong(
            f"{_shown(token)} is no value", "write a string in quotes, a number, true, false or null", token
        )


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("+-").isdecimal() else float(text)


def _shown(token: Token) -> str:
    if token.kind == "end":
        return "the end of the file"
    return token.text if len(token.text) <= 40 else token.text[:39] + "…"


def _only_comments(text: str, start: int, end: int) -> bool:
    while start < end:
        if text.startswith("--", start):
            newline = text.find("\n", start, end)
            start = end if newline < 0 else newline + 1
        elif text.startswith("/*", start):
            start = block_end(text, start)
        elif text[start].isspace():
            start += 1
        else:
            return False
    return True


def _last_to(tokens: list[SqlToken]) -> int | None:
    """Index of the TO that ends an EXPORT's query: the last at depth 0 that a target follows."""
    for index in range(len(tokens) - 2, 0, -1):
        token, before, after = tokens[index], tokens[index - 1], tokens[index + 1]
        if token.depth or token.kind != "word" or token.text.upper() != "TO":
            continue
        if before.text.upper() in ("AS", ".", "SIMILAR"):
            continue
        if after.kind in ("text", "quoted", "word", "variable") and _ends_target(tokens, index + 1):
            return index
    return None


def _ends_target(tokens: list[SqlToken], index: int) -> bool:
    """Whether after the target at `index` come TYPE, OPTIONS or the statement's end."""
    end = tokens[index].end
    for token in tokens[index + 1 :]:
        if token.start != end:  # a bare target may be glued together: out_${env}
            return token.text.upper() in ("TYPE", "OPTIONS")
        end = token.end
    return True
