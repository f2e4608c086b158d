"""Where a SQL body or a condition inside a `.sf` file ends; its text is kept byte for byte."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sqlflow_dagster.language import clauses
from sqlflow_dagster.language.reader import Reader, Wrong, not_a_variable, unclosed
from sqlflow_dagster.language.strings import malformed
from sqlflow_dagster.language.tokens import SqlToken, Unclosed, next_token, scan
from sqlflow_dagster.language.tree import Query, Table

_EXPORT = 'write EXPORT SELECT … TO "output/file.csv";'
_PAIRS = {"(": ")", "[": "]", "{": "}"}
_NAME = r'(?:[\w.${}]+|"[^"\n]*")'
_BEGINNING = rf"""(?:
    SOURCE\s+{_NAME}\s+(?:TYPE|FROM)\b
  | LOAD\s+(?:{_NAME}|\*)\s+FROM\b
  | CREATE\s+(?:OR\s+REPLACE\s+)?(?:TABLE|VIEW)\b
  | EXPORT\s+(?:SELECT|WITH|FROM|{_NAME}\s+TO)\b
  | SET\s+\w+\s*=
  | INCLUDE\s+['"]
  | IF\b[^;\n]*\bTHEN\b
)"""
# At the beginning of a line and after what may end a query, these begin a statement of ours and
# continue no SQL: the `;` before them was forgotten.
_STATEMENT = re.compile(
    rf"""{_BEGINNING} | (?:END\s+IF|ENDIF)\s*; | ELSE\s+{_BEGINNING} | ELSEIF\b[^;\n]*\bTHEN\b""",
    re.IGNORECASE | re.VERBOSE,
)
_FIRST_WORDS = frozenset(("SOURCE", "LOAD", "CREATE", "EXPORT", "SET", "INCLUDE", "IF"))
_CLOSERS = frozenset(("END", "ENDIF", "ELSE", "ELSEIF"))
_NEVER_LAST = frozenset(
    (
        *("SELECT", "FROM", "WHERE", "AND", "OR", "NOT", "AS", "ON", "BY", "JOIN", "IN", "IS", "LIKE"),
        *("THEN", "WHEN", "CASE", "ELSE", "BETWEEN", "UNION", "EXCEPT", "INTERSECT", "WITH", "USING"),
        *("HAVING", "DISTINCT", "LIMIT", "OFFSET", "CROSS", "INNER", "LEFT", "RIGHT", "FULL"),
    )
)
_SOLID_ENDS = frozenset(("word", "text", "escaped", "quoted", "dollar", "number", "variable", "close"))


def query(reader: Reader, what: str, hint: str) -> Query:
    """Return the SQL from the reader's place to the `;` that ends it. Raises Wrong."""
    body = _Body(reader)
    for _token in body.tokens():
        pass
    return body.query(what, hint)


def exported(reader: Reader) -> Query | Table:
    """Return what an EXPORT exports, and leave the reader after its TO. Raises Wrong.

    TO ends the query at depth 0 where a string or name and then TYPE, OPTIONS or `;` follow it; in
    `AS to`, `t.to` and `SIMILAR TO` it is part of the query.
    """
    body = _Body(reader)
    likely: tuple[SqlToken, int, int] | None = None
    try:
        for token in body.tokens():
            if token.depth or token.kind != "word" or token.text.upper() != "TO":
                continue
            follows = _after(reader.text, token.end) if body.last not in ("AS", ".", "SIMILAR") else ""
            if follows == "target":
                return _what(reader, body, token)
            if follows == "text":
                likely = (token, body.start, body.end)
    except Wrong:
        # Strings of OPTIONS may hold backslashes, which SQL's strings do not know.
        if likely is None:
            raise
    if likely:
        token, body.start, body.end = likely
        return _what(reader, body, token)
    start, end = (body.start, body.start + 1) if body.start >= 0 else (body.begin - len("EXPORT"), body.begin)
    raise Wrong(
        "this EXPORT has no TO", 'write EXPORT SELECT … TO "output/file.csv";', start, end, body.stop + 1
    )


def condition(reader: Reader) -> Query | None:
    """Return the text between IF and THEN, and leave the reader after THEN.

    None where there is no THEN: that is reported, and the reader is where the next statement begins.
    """
    body = _Body(reader)
    try:
        for token in body.tokens(conditional=True):
            # At any depth: a bracket that was forgotten is the condition's own fault.
            if token.kind == "word" and token.text.upper() == "THEN":
                found = body.query("a condition between IF and THEN", "write IF ${name} == 'value' THEN")
                reader.position = token.end
                return found
    except Wrong as error:
        if error.resume is None:
            raise
    start = body.begin - len("IF") if body.start < 0 else body.start
    end = max(start + 1, body.end)
    reader.report(Wrong("this IF has no THEN", "write IF ${name} == 'value' THEN", start, end))
    line = reader.text.find("\n", body.begin)
    reader.position = body.stop if line < 0 else min(line, body.stop)
    return None


def skip(text: str, position: int) -> int:
    """Return the offset after the `;` that ends the SQL at `position`, or where a statement begins."""
    new_line, last = False, position
    for token in scan(text, position, trivia=True):
        if token.kind == "space":
            new_line = new_line or "\n" in token.text
        elif token.kind != "comment":
            if new_line and _begins_statement(text, token):
                return token.start
            new_line = False
        last = token.end
    return min(last + 1, len(text))


def begins_line(reader: Reader, position: int) -> bool:
    """Whether the word at `position` is the first of its line and may begin or close a statement."""
    span = reader.span(position, position)
    before = reader.text[position - min(span.column - 1, _DEEPEST_INDENT + 1) : position]
    if len(before) > _DEEPEST_INDENT or before.strip():
        return False
    token = next_token(reader.text, position)
    return token.word in _FIRST_WORDS or token.word in _CLOSERS


_DEEPEST_INDENT = 200


def _begins_statement(text: str, token: SqlToken) -> bool:
    word = token.text.upper() if token.kind == "word" else ""
    return (word in _FIRST_WORDS or word in _CLOSERS) and _STATEMENT.match(text, token.start) is not None


class _Body:
    """What has been read of a body: `text[start:end]` from its first token or comment to its last token."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.begin = self.end = self.stop = reader.position
        self.start = -1
        self.last = ""
        self._brackets: list[SqlToken] = []
        self._may_end = False

    def tokens(self, *, conditional: bool = False) -> Iterator[SqlToken]:
        """Yield the body's tokens, each before it is counted in; `last` is the one before, in capitals."""
        text, new_line, comment = self.reader.text, False, -1
        try:
            for token in scan(text, self.begin, trivia=True):
                self.stop = token.end
                if token.kind == "space":
                    new_line = new_line or "\n" in token.text
                elif token.kind == "comment":
                    comment = token.start if comment < 0 else comment
                else:
                    if new_line and (self._may_end or conditional) and self._forgotten(token, conditional):
                        raise self._unended(token)
                    new_line = False
                    yield token
                    self._add(token, -1 if conditional else comment)
        except Unclosed as error:
            raise unclosed(error) from error
        if self._brackets:
            opening = self._brackets[-1]
            hint = f"close it with {_PAIRS[opening.text]}"
            raise Wrong(
                f"this {opening.text} is never closed", hint, opening.start, opening.end, self.stop + 1
            )

    def query(self, what: str, hint: str) -> Query:
        """Return the body, and leave the reader after it."""
        if self.start < 0:
            raise Wrong(f"expected {what}", hint, self.begin, self.begin + 1)
        self.reader.position = self.end
        return Query(self.reader.text[self.start : self.end], self.reader.span(self.start, self.end))

    def _forgotten(self, token: SqlToken, conditional: bool) -> bool:
        if conditional:
            return token.kind == "word" and token.text.upper() in _FIRST_WORDS
        return token.depth == 0 and _begins_statement(self.reader.text, token)

    def _unended(self, token: SqlToken) -> Wrong:
        self.stop = token.start
        return Wrong(
            f"expected ; before {token.text}",
            "end the statement with ;",
            max(self.begin, self.end - 1),
            self.end,
            resume=token.start,
        )

    def _add(self, token: SqlToken, comment: int) -> None:
        if self.start < 0:
            self.start = token.start if comment < 0 else comment
        self.end = token.end
        self.last = token.text.upper() if len(token.text) < 20 else ""
        self._may_end = token.kind in _SOLID_ENDS and self.last not in _NEVER_LAST
        if token.kind == "open":
            self._brackets.append(token)
        elif token.kind == "close":
            self._close(token)
        elif "$" in token.text:
            self._check_variables(token)

    def _close(self, token: SqlToken) -> None:
        if not self._brackets:
            hint = "remove it, or open it before"
            raise Wrong(f"this {token.text} closes nothing", hint, token.start, token.end)
        opening = self._brackets.pop()
        if _PAIRS[opening.text] != token.text:
            hint = f"write {_PAIRS[opening.text]}, which closes the {opening.text} before it"
            raise Wrong(f"this {token.text} does not close a {opening.text}", hint, token.start, token.end)

    def _check_variables(self, token: SqlToken) -> None:
        lone = token.text == "$"
        text = self.reader.text[token.start : token.end + 42] if lone else token.text[token.lead :]
        bad = malformed(text) if not lone or text.startswith("${") else None
        if bad:
            start = self.reader.text.find(bad, token.start)
            self.reader.report(Wrong(*not_a_variable(bad), start, start + len(bad)))


def _after(text: str, position: int) -> str:
    """What follows a TO: `target` with what may come after one, else `text` for a string."""
    try:
        first = next_token(text, position)
        if first.kind not in ("text", "name"):
            return ""
        second = next_token(text, first.end)
    except Unclosed:
        return ""
    if second.word in ("TYPE", "OPTIONS") or second.text == ";" or second.kind == "end":
        return "target"
    return "text" if first.kind == "text" else ""


def _what(reader: Reader, body: _Body, to: SqlToken) -> Query | Table:
    found = _table(reader, to) or body.query("a query or a table between EXPORT and TO", _EXPORT)
    reader.position = to.end
    return found


def _table(reader: Reader, to: SqlToken) -> Table | None:
    """The table that stands alone before TO, None where a query does."""
    begin = reader.position
    try:
        found = clauses.table(reader)
        if reader.peek().start == to.start:
            return found
    except Wrong:
        pass  # then it is a query, and its own errors are DuckDB's to find
    reader.position = begin
    return None
