"""The language's rooms stand any text: typed errors only, and work that grows no faster than the text."""

import gc
import importlib.util
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqlflow_dagster.errors import SQLFlowError
from sqlflow_dagster.language.conditions import evaluate
from sqlflow_dagster.language.parser import parse
from sqlflow_dagster.language.render import format_script
from sqlflow_dagster.language.variables import Variables, expand_sql

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("fuzz_parser", HERE / "fuzz_parser.py")
fuzz_parser = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fuzz_parser)

CASES = [path.read_text() for path in sorted(HERE.glob("cases/*/*.sf"))]
TOKENS = """SOURCE|LOAD|CREATE|OR|REPLACE|TABLE|VIEW|EXPORT|SET|INCLUDE|IF|THEN|ELSE|ELSEIF|END|ENDIF|FROM|TYPE|PARAMS|OPTIONS
MODE|UPSERT|APPEND|KEY|INCREMENTAL|BY|LOOKBACK|AS|TO|SELECT|a|b_1|CSV|'x'|"y"|1|-2.5|7 DAYS|;|,|.|(|)|{|}|[|]|:|=|==|*|${v}|${n|1}
$${|${|}|'|"|$$|$t$|E'|\\|--|/*|*/|\n|\r|\t|\ufeff|\0|é|😀|AND|NOT|IN|BETWEEN|true|null|PYTHON_FUNC|@""".replace(
    "\n", "|"
).split("|")
texts = (
    st.text(max_size=60)
    | st.lists(st.sampled_from([*TOKENS, "\n", "|"]), max_size=40).map(" ".join)
    | st.lists(st.sampled_from(TOKENS), max_size=25).map("".join)
)


@st.composite
def damaged(draw):
    """A case file with a piece taken out, put twice, or put elsewhere."""
    text = draw(st.sampled_from(CASES))
    start, stop, at = sorted(draw(st.integers(0, len(text))) for _ in range(3))
    piece = draw(st.sampled_from(["", text[start : start + 40], draw(st.sampled_from(TOKENS))]))
    return text[:start] + piece + text[min(stop, start + 40) : at] + piece + text[at:]


@given(texts | damaged())
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_gives_a_tree_or_typed_errors(text):
    fuzz_parser.check(text)


@pytest.mark.proof
@given(texts | damaged())
@settings(max_examples=20_000, suppress_health_check=[HealthCheck.too_slow])
def test_very_many_texts_give_a_tree_or_typed_errors(text):
    fuzz_parser.check(text)


HEADS = [
    "",
    "CREATE TABLE a AS SELECT ",
    'SOURCE a TYPE b PARAMS { "a": ',
    "IF ",
    "EXPORT SELECT ",
    "SET a = ",
    "IF true THEN\n",
]
UNITS = [
    "'", '"', "$a$", "$", "/*", "--x\n", "${a|", "${a|'", "${", "${v}", "(", ")", "[", "{", "SELECT ", "CREATE TABLE a AS ",
    "x;", "SET x = 1;\n", "SET x = 1\n", "SOURCE a TYPE b PARAMS {", "IF a THEN ", "IF true THEN\n", "END IF;", "ELSE ",
    "EXPORT t TO ", "TO 'a' ", "TO /* ", "\\", '"\\', "E'\\", "E'a'\n", "''", "\n'", "a.", "a, ", "NOT ", "1.", "1e", "\t",
    "é", "${v}x", "$$", '"a": ', "/* */", "PYTHON_FUNC('a.b', ",
]  # fmt: skip


def calls(work, text):
    """How many functions, of ours, the interpreter's and the patterns', a piece of work calls."""
    count = 0
    gc.disable()  # what it calls when it collects is not the work's

    def profile(_frame, event, _argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        work(text)
    except SQLFlowError as error:
        str(error)
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


WORK = {
    "parse": lambda text: parse(text, "t.sf"),
    "layout": lambda text: format_script(text, "t.sf"),
    "expand": lambda text: expand_sql(text, Variables(run={"v": 1})),
    "condition": lambda text: evaluate(text, Variables(run={"v": 1})),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_work_grows_no_faster_than_the_text(work, head):
    for unit in UNITS:
        small, large = (calls(work, head + unit * n) for n in (100, 400))
        assert large <= 4 * small + 200, unit


def test_deep_nesting_is_refused_and_not_followed():
    for text in (
        "IF true THEN\n" * 5000,
        'SOURCE a TYPE b PARAMS { "a": ' + "[" * 5000,
        "IF " + "(" * 5000 + " THEN",
    ):
        with pytest.raises(SQLFlowError):
            parse(text, "t.sf")
