"""`.sf` files beside what they must give: a tree's outline, a layout, or the text of all errors."""

from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from sqlflow_dagster.errors import PipelineError
from sqlflow_dagster.language.parser import parse
from sqlflow_dagster.language.render import format_script
from sqlflow_dagster.language.tree import Bare, Name, Object, Query, Script, Span, Table, Text

CASES = Path(__file__).parent / "cases"


def read(path):
    return path.read_bytes().decode()


def outline(node, indent=""):
    """A tree as text: one line a statement part, spans as line:column."""
    match node:
        case Script(statements=statements):
            return "".join(outline(statement) for statement in statements)
        case Name(text):
            return f"`{text}`"
        case Text(value):
            return repr(value)
        case Query(sql):
            return f"<<{sql}>>"
        case Table(parts):
            return ".".join(outline(part) for part in parts)
        case Object(value, spans):
            places = ", ".join(f"{key} at {span.line}:{span.column}" for key, span in spans.items())
            return f"{show(value)} ({places})"
    if not is_dataclass(node):
        return show(node)
    lines = [
        f"{indent}{type(node).__name__} {node.span.line}:{node.span.column}"
        if hasattr(node, "span")
        else f"{indent}{type(node).__name__}"
    ]
    for field in fields(node):
        value = getattr(node, field.name)
        if isinstance(value, Span) or value is None or value == ():
            continue
        lines.append(f"{indent}  {field.name}: {part(value, indent)}")
    return "\n".join(lines).rstrip("\n") + "\n"


def part(value, indent):
    nested = "\n" + indent + "    "
    if isinstance(value, tuple) and value and not isinstance(value[0], Name):
        return "\n" + "".join(outline(item, indent + "    ") for item in value).rstrip("\n")
    if isinstance(value, tuple):
        return ", ".join(map(outline, value))
    text = outline(value, "")
    return (
        text.rstrip("\n").replace("\n", nested)
        if is_dataclass(value) and not isinstance(value, Query)
        else text
    )


def show(value):
    match value:
        case Bare():
            return f"bare {value}"
        case dict():
            return "{" + ", ".join(f"{key!r}: {show(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(show, value)) + "]"
    return repr(value)


def errors(text):
    with pytest.raises(PipelineError) as caught:
        parse(text, "case.sf")
    return f"{caught.value}\n"


WORK = {
    "trees": lambda text: outline(parse(text, "case.sf")),
    "layout": lambda text: format_script(text, "case.sf"),
    "errors": errors,
}


def cases(kind):
    return [pytest.param(path, id=path.stem) for path in sorted((CASES / kind).glob("*.sf"))]


@pytest.mark.parametrize("path", cases("trees"))
def test_a_file_parses_to_its_tree(path):
    assert WORK["trees"](read(path)) == read(path.with_suffix(".expected"))


@pytest.mark.parametrize("path", cases("errors"))
def test_all_errors_of_a_file_are_told_at_once_with_place_and_remedy(path):
    assert WORK["errors"](read(path)) == read(path.with_suffix(".expected"))


@pytest.mark.parametrize("path", cases("layout"))
def test_a_file_is_laid_out(path):
    assert WORK["layout"](read(path)) == read(path.with_suffix(".expected"))


@pytest.mark.parametrize("path", [*cases("layout"), *cases("trees")])
def test_laying_out_twice_changes_nothing(path):
    once = format_script(read(path), "case.sf")
    assert format_script(once, "case.sf") == once
