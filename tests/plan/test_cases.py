"""Whole files in `cases/`: each `.sf` beside the plan or the problems that it gives.

`SQLFLOW_WRITE_CASES=1` writes the expected files anew; read the difference before you keep it.
"""

import json
import os
from pathlib import Path

import pytest

from sqlflow_dagster.errors import PipelineError
from sqlflow_dagster.plan.explain import as_json

CASES = sorted((Path(__file__).parent / "cases").glob("*.sf"))


FUNCTIONS = {"text": "def trim(name): ...", "models": "def score(rows, weight): ..."}


def outcome(desk, text):
    for module, source in FUNCTIONS.items():
        desk.write(f"python_udfs/{module}.py", source)
    try:
        (pipeline,) = as_json(desk.plan(text))["pipelines"]
    except PipelineError as error:
        return {"problems": str(error).splitlines()}
    for step in (step for group in pipeline["groups"] for step in group["steps"]):
        del step["file"]
    return {"groups": pipeline["groups"]}


@pytest.mark.parametrize("case", CASES, ids=[case.stem for case in CASES])
def test_a_file_gives_its_plan_or_its_problems(desk, case):
    expected = case.with_suffix(".json")
    found = outcome(desk, case.read_text())
    if os.environ.get("SQLFLOW_WRITE_CASES"):
        expected.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    assert found == json.loads(expected.read_text())
