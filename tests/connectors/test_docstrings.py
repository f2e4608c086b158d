"""The example at the top of each connector is one that a project may have."""

import inspect
import textwrap

import pytest

from sqlflow_dagster.connectors.registry import find, types
from sqlflow_dagster.project import load_project


@pytest.mark.parametrize("name", types())
def test_the_example_in_the_docstring_is_a_source_of_its_type(bench, name):
    _lead, _colons, rest = inspect.getdoc(inspect.getmodule(find(name))).partition("::\n\n")
    example = textwrap.dedent(rest.partition("\n\n")[0])
    bench.write(
        ".env",
        "DATABASE_URL=postgresql://user:password@host/shop\nMYSQL_URL=mysql://user:password@host/shop\n"
        "S3_ENDPOINT=http://host\nS3_KEY=k\nS3_SECRET=s\n",
    )
    bench.pipeline(example)
    (source,) = load_project(bench.root).plan.pipeline("p").sources
    assert source.type == name
