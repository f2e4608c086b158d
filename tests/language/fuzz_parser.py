"""Fuzz target: any bytes give a tree or a typed error within a second, and what parses is laid out with nothing lost.

    make fuzz FUZZ_SECONDS=600

runs it under atheris, which follows the code's branches. `test_fuzz.py` runs `check` in the normal suite.
"""

import contextlib
import sys
import time

if __name__ == "__main__":
    import atheris

    # Only the language's own branches are followed.
    watched = atheris.instrument_imports(include=["sqlflow_dagster.language"])
else:
    watched = contextlib.nullcontext()

with watched:
    from sqlflow_dagster.language.calls import python_calls
    from sqlflow_dagster.language.conditions import evaluate, fault
    from sqlflow_dagster.language.parser import read
    from sqlflow_dagster.language.render import format_script, render
    from sqlflow_dagster.language.variables import Variables, expand_sql, expand_text, expand_value

from sqlflow_dagster.errors import ProjectError

VARIABLES = Variables(
    run={"v": "it's", "n": 1},
    profile={"t": "sales", "p": "${v}/${n}", "list": ["a", 1, None]},
    sets={"x": "a\0b"},
)
FRAMES = (
    "{}",
    'SOURCE s TYPE t PARAMS {{"k": {}}};',
    "IF {} THEN END IF;",
    "CREATE TABLE t AS {};",
    "EXPORT {} TO 'x';",
)


def check(text):
    """Read a text in every way that there is; nothing but typed errors may come out."""
    for frame in FRAMES:
        check_script(framed(frame, text))
    check_values(text)


def framed(frame, text):
    """The text where another kind of place begins."""
    return text if frame == "{}" else frame.format(text)


def check_values(text):
    """Read a text as what stands inside a statement."""
    for read_value in (expand_sql, expand_text, evaluate):
        try:
            read_value(text, VARIABLES)
        except ProjectError:
            pass
    try:
        expand_value({"k": [text]}, VARIABLES)
        python_calls(text)
    except ProjectError:
        pass
    found = fault(text)
    assert found is None or (found.message and 0 <= found.start <= found.end <= len(text) + 1)


def check_script(text):
    """What parses is kept by layout and rendering; what does not is told with its place."""
    script = read(text, "fuzz.sf")
    lines = text.count("\n") + 1
    for problem in script.problems:
        assert problem.message
        assert 1 <= problem.line <= lines
        assert problem.column >= 1
        str(problem)
    assert bool(script.unread) <= bool(script.problems)
    rendered = render(script.statements)
    assert render(read(rendered, "fuzz.sf").statements) == rendered
    if script.problems:
        return
    once = format_script(text, "fuzz.sf")
    assert format_script(once, "fuzz.sf") == once
    assert render(read(once, "fuzz.sf").statements) == rendered


def one_input(data):
    # The first byte picks one way, so that more inputs fit into a second.
    way, text = data[0] % (len(FRAMES) + 1) if data else 0, data[1:].decode("utf-8", "ignore")
    begin = time.process_time()
    check_script(framed(FRAMES[way], text)) if way < len(FRAMES) else check_values(text)
    # Instrumented code is several times slower, and a text is read some ten times.
    assert time.process_time() - begin < 10 * (1 + len(text) / 10_000)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
