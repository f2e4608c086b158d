"""Outputs that are copied are the outputs that Dagster makes."""

import dagster as dg
import pytest

from sqlflow_dagster.assets.outs import OutAlike


@pytest.mark.parametrize("type_", [dg.Nothing, dg.Any])
@pytest.mark.parametrize("required", [True, False])
def test_a_copied_output_is_what_dagster_makes(type_, required):
    ours, theirs = (kind(type_, is_required=required) for kind in (OutAlike, dg.Out))
    for name in ("one", "two", None):
        made, wanted = (out.to_definition(type(None), name, None, None) for out in (ours, theirs))
        assert type(made) is type(wanted)
        assert vars(made) == vars(wanted)


def test_ops_of_different_outputs_do_not_share_them():
    @dg.op(out={"rows": OutAlike(dg.Nothing), "check": OutAlike(dg.Any, is_required=False)})
    def first():
        yield from ()

    @dg.op(out={"other": OutAlike(dg.Any)})
    def second():
        yield from ()

    assert [(o.name, o.dagster_type.is_nothing, o.is_required) for o in first.output_defs] == [
        ("rows", True, True),
        ("check", False, False),
    ]
    assert [(o.name, o.dagster_type.is_nothing, o.is_required) for o in second.output_defs] == [
        ("other", False, True)
    ]
