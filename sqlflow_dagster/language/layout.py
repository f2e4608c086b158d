"""A `.sf` file → the same file laid out: keywords in capitals, blanks and indents even, all comments kept.

SQL bodies are kept byte for byte, and so are the comments between a body and what follows it. Comments in
PARAMS and OPTIONS stay with their members. A comment among a statement's own words moves above the statement,
one before its `;` behind it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from sqlflow_dagster.language.comments import among_words, behind, comments, stream_tokens, trivia
from sqlflow_dagster.language.object_layout import laid_out
from sqlflow_dagster.language.parser import parse
from sqlflow_dagster.language.strings import quoted
from sqlflow_dagster.language.tokens import Token, next_token
from sqlflow_dagster.language.tree import (
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

_INDENT = "    "
_LINE_END = re.compile(r"\r\n|\r|\n")
_INTERVAL = re.compile(r"\d+ [A-Z]+")


def format_script(text: str, path: str) -> str:
    """Return the file's text laid out; doing it twice changes nothing.

    Raises PipelineError with every problem of the file.
    """
    return _Layout(parse(text, path)).laid_out()


def mode_text(mode: Mode | None, name: Callable[[Name], str]) -> str:
    """Return ` MODE …` as it stands in a statement, nothing for None; `name` writes the columns."""
    if mode is None:
        return ""
    text = f" MODE {mode.kind}"
    if mode.keys:
        text += f" KEY ({', '.join(map(name, mode.keys))})"
    if mode.by:
        text += f" BY {name(mode.by)}"
    if mode.lookback:
        bare = _INTERVAL.fullmatch(mode.lookback)
        text += f" LOOKBACK {mode.lookback if bare else quoted(mode.lookback)}"
    return text


class _Layout:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.source = script.text
        self.lines: list[str] = []
        self.attach = True  # whether a comment may go behind the last line
        self.fresh = True  # at the file's beginning or behind THEN and ELSE: no blank line is kept

    def laid_out(self) -> str:
        self.block(self.script.statements, 0, len(self.source), "")
        return "\n".join(self.lines) + "\n" if self.lines else ""

    def block(self, statements: Sequence[Statement], start: int, end: int, indent: str) -> None:
        """Lay out `source[start:end]`, which holds these statements and what is between them."""
        for statement in statements:
            blank = self.gap(start, statement.span.start, indent)
            if blank and not self.fresh:
                self.lines.append("")
            self.fresh = False
            if isinstance(statement, If):
                self.conditional(statement, indent)
            else:
                self.simple(statement, indent)
            start = statement.span.end
        self.gap(start, end, indent)

    def gap(self, start: int, end: int, indent: str) -> bool:
        """Lay out the comments between two statements; return whether a blank line ends the gap."""
        breaks = 0
        for kind, text in trivia(self.source, start, end):
            if kind == "space":
                breaks += len(_LINE_END.findall(text))
                continue
            if breaks == 0 and self.lines and self.attach:
                self.lines[-1] += f" {text.rstrip()}"
            else:
                self.lines += [""] if breaks > 1 and not self.fresh else []
                self.lines.append(indent + text.rstrip())
                self.fresh = False
            self.attach = True
            breaks = 0
        return breaks > 1

    # --- IF

    def conditional(self, statement: If, indent: str) -> None:
        """Lay out an IF and what is in it; comments between its own words get lines of their own."""
        position, inner = statement.span.start, indent + _INDENT
        for index, branch in enumerate(statement.branches):
            condition = branch.condition.span
            then = next_token(self.source, condition.end)
            self.comments(position, condition.start, inner if index else indent)
            self.arm(f"{'ELSE IF' if index else 'IF'} {branch.condition.sql} THEN", indent)
            self.comments(condition.end, then.start, inner)
            position = self.arm_body(branch.body, then.end, inner)
        if self.token(position).word == "ELSE":
            self.arm("ELSE", indent)
            position = self.arm_body(statement.otherwise, self.token(position).end, inner)
        self.comments(position, statement.span.end, inner)
        self.arm("END IF;", indent)
        self.fresh = False

    def arm(self, text: str, indent: str) -> None:
        self.lines.append(indent + text)
        self.fresh = self.attach = True

    def arm_body(self, body: Sequence[Statement], start: int, indent: str) -> int:
        """Lay out an arm's statements; return where the word stands that ends the arm."""
        end = self.token(body[-1].span.end if body else start).start
        self.block(body, start, end, indent)
        return end

    def comments(self, start: int, end: int, indent: str) -> None:
        """Put the comments among the words of `source[start:end]` on lines of their own."""
        for text in comments(self.source, start, end):
            self.lines.append(indent + text.rstrip())
            self.attach = False

    def token(self, position: int) -> Token:
        return next_token(self.source, position)

    # --- statements

    def simple(self, statement: Statement, indent: str) -> None:
        """Lay out a statement that holds no others, with the comments among its words."""
        above, last = among_words(self.source, statement)
        self.lines += [indent + text for text in above]
        text = indent + self.statement(statement, indent)
        self.lines.append(f"{text} {last[0]}" if last else text)
        self.lines += [indent + text for text in last[1:]]
        self.attach = not last

    def value(self, statement: Set) -> Token:
        return self.token(self.token(statement.name.span.end).end)

    def statement(self, statement: Statement, indent: str) -> str:
        match statement:
            case Source():
                text = self.declared(statement, indent)
            case Load():
                text = self.load(statement)
            case Create():
                text = self.create(statement, indent)
            case Export():
                text = self.export(statement, indent)
            case Set():
                text = self.set(statement)
            case Include(path, alias):
                text = f"INCLUDE {self.raw(path)}{f' AS {self.raw(alias)}' if alias else ''}"
            case If():  # `conditional` lays it out
                raise AssertionError(statement)
        return f"{text};"

    def declared(self, source: Source, indent: str) -> str:
        head = f"SOURCE {self.raw(source.name)}"
        if source.type:
            return self.with_object(f"{head} TYPE {self.raw(source.type)} PARAMS", source.params, indent)
        if source.profile:
            head += f" FROM {self.raw(source.profile)}"
        return self.with_object(f"{head} OPTIONS", source.params, indent) if source.params else head

    def load(self, load: Load) -> str:
        target = self.table(load.table) if load.table else "*"
        place = self.raw(load.source) + (f".{self.dotted(load.stream.span)}" if load.stream else "")
        return f"LOAD {target} FROM {place}{mode_text(load.mode, self.raw)}"

    def set(self, statement: Set) -> str:
        return f"SET {self.raw(statement.name)} = {self.value(statement).text}"

    def create(self, create: Create, indent: str) -> str:
        kind = ("OR REPLACE " if create.or_replace else "") + ("VIEW" if create.view else "TABLE")
        head = f"CREATE {kind} {self.table(create.table)}{mode_text(create.mode, self.raw)} AS"
        return f"{head}{self.before(create.query.span)}{self.body(create.query, indent)}"

    def body(self, query: Query, indent: str) -> str:
        """A body with the comments that follow it, and a line's end where another word would join one."""
        end = behind(self.source, query.span.end)
        last = [*comments(self.source, query.span.end, end)][-1:]
        text = query.sql + self.source[query.span.end : end].rstrip()
        return f"{text}\n{indent}" if last and last[0].startswith("--") else text

    def export(self, export: Export, indent: str) -> str:
        text = "EXPORT"
        if isinstance(export.what, Query):
            text += self.before(export.what.span) + self.body(export.what, indent)
        else:
            text += f" {self.table(export.what)}"
        if not text.endswith(f"\n{indent}"):
            text += self.separator(export.what.span.end, indent)
        text += f"TO {self.raw(export.target)}"
        end = export.target.span.end
        if export.type:
            text += self.separator(end, indent) + f"TYPE {self.raw(export.type)}"
            end = export.type.span.end
        if export.options:
            text += self.separator(end, indent)
            text = self.with_object(f"{text}OPTIONS", export.options, indent)
        return text

    def raw(self, part: Name | Text) -> str:
        return self.source[part.span.start : part.span.end]

    def table(self, table: Table) -> str:
        return ".".join(map(self.raw, table.parts))

    def dotted(self, span: Span) -> str:
        """A stream's name, without the blanks that may stand around its dots."""
        return "".join(text for kind, text in stream_tokens(self.source, span) if kind == "name")

    def before(self, body: Span) -> str:
        """What stands between a word and the body after it: a line's end and its indent, or a blank."""
        last = max(self.source.rfind("\n", 0, body.start), self.source.rfind("\r", 0, body.start))
        lead = self.source[last + 1 : body.start]
        return f"\n{lead}" if last >= 0 and not lead.strip() else " "

    def separator(self, position: int, indent: str) -> str:
        gap = self.source[position : self.token(position).start]
        return f"\n{indent}" if _LINE_END.search(gap) else " "

    def with_object(self, head: str, params: Object | None, indent: str) -> str:
        if params is None:
            return head
        column = len(indent) + len(head.rpartition("\n")[2]) + 1
        return f"{head} {laid_out(self.source, params.span, indent, column)}"
