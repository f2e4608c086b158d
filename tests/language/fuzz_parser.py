"""Fuzz target: any bytes give a tree or a typed error, and what parses is laid out with nothing lost.

    python tests/language/fuzz_parser.py -max_len=10000 -timeout=1

runs it under atheris, where that is installed. `test_fuzz.py` runs `check` in the normal suite.
"""

import sys

from sqlflow_dagster.errors import PipelineError, ProjectError
from sqlflow_dagster.language.calls import python_calls
from sqlflow_dagster.language.conditions import evaluate
from sqlflow_dagster.language.parser import parse
from sqlflow_dagster.language.render import format_script, render
from sqlflow_dagster.language.variables import Variables, expand_sql, expand_text

VARIABLES = Variables(run={"v": "it's", "n": 1}, profile={"t": "sales", "p": "${v}/${n}"})


def check(text):
    """Read a text in every way that there is; nothing but typed errors may come out."""
    try:
        script = parse(text, "fuzz.sf")
    except PipelineError as error:
        for problem in error.problems:
            assert 1 <= problem.line <= script_lines(text)
            assert problem.column >= 1
            assert problem.message
    else:
        rendered = render(script.statements)
        assert render(parse(rendered, "fuzz.sf").statements) == rendered
        once = format_script(text, "fuzz.sf")
        assert format_script(once, "fuzz.sf") == once
        assert render(parse(once, "fuzz.sf").statements) == rendered
    for read in (expand_sql, expand_text, evaluate):
        try:
            read(text, VARIABLES)
        except ProjectError:
            pass
    try:
        python_calls(text)
    except ProjectError:
        pass


def script_lines(text):
    return text.count("\n") + 1


def one_input(data):
    check(data.decode("utf-8", "ignore"))


if __name__ == "__main__":
    import atheris

    atheris.instrument_all()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
