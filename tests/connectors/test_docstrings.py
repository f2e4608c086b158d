"""The example at the top of each connector is one that runs."""

import inspect
import textwrap

import pytest

from sqlflow_dagster.connectors.options import parse as read_options
from sqlflow_dagster.connectors.registry import find, types
from sqlflow_dagster.language.parser import parse


@pytest.mark.parametrize("name", types())
def test_the_example_in_the_docstring_is_a_source_of_its_type(name):
    kind = find(name)
    _lead, _colons, rest = inspect.getdoc(inspect.getmodule(kind)).partition("::\n\n")
    block = rest.partition("\n\n")[0] if rest else ""
    (source, *_others) = parse(textwrap.dedent(block), name).statements
    assert source.type.text == name
    read_options(kind.options_type, source.params.value)
