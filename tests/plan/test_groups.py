"""Groups: what has to be one op, in an order in which every reader sees what file order gives it."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlflow_dagster.plan.groups import group_steps
from sqlflow_dagster.plan.nodes import Export, Load, Location, Source, Transform
from sqlflow_dagster.sql import TableName

HERE = Location(Path("p.sf"), 1, 1)


def load(table, source="s"):
    return Load(
        "p", Source("p", source, "CSV", {}, HERE), table, TableName("p", table), "append", incremental=False,
        keys=(), cursor_field=None, sole_writer=False, location=HERE, why="",
    )  # fmt: skip


def create(table, *reads, view=False):
    return Transform(
        "p", TableName("p", table), view, "replace", (), None, None, "", tuple(TableName("p", r) for r in reads),
        {}, HERE, "",
    )  # fmt: skip


def export(target, *reads):
    return Export(
        "p", target, "", target, "CSV", {}, {}, tuple(TableName("p", r) for r in reads), {}, HERE, ""
    )


def shown(groups):
    def name(step):
        return step.name if isinstance(step, Export) else step.table.name

    return [f"{group.kind} {group.name}: {' '.join(map(name, group.steps))}" for group in groups]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (
            [load("a"), create("b", "a"), export("x", "b")],
            ["source s: a", "table b: b", "export export_x: x"],
        ),
        ([load("a"), load("b", "other"), load("c")], ["source s: a c", "source other: b"]),
        (
            [create("u"), load("a"), create("v", "a"), load("b")],
            ["table u: u", "source s: a b", "table v: v"],
        ),
        ([load("a"), load("a", "other")], ["merged a: a a"]),
        ([load("a"), load("a")], ["merged a: a a"]),
        ([load("a"), export("x", "a"), load("a")], ["merged a: a x a"]),
        ([load("a"), create("b", "a"), create("A", "b")], ["merged a: a b A"]),
        (
            [create("a"), create("b", "a"), create("c", "b"), create("a", "c")],
            ["merged a: a b c a"],
        ),
        (
            [create("a"), export("x", "a"), create("a"), export("y", "a")],
            ["merged a: a x a", "export export_y: y"],
        ),
        ([export("x"), create("a"), export("x", "a")], ["table a: a", "merged export_x: x x"]),
        ([create("a", "a")], ["table a: a"]),
        ([load("s"), create("t", "s"), load("x", "T")], ["source s: s", "table t: t", "source T_2: x"]),
        # A view over a table that is loaded again is not in the way; a reader between the loads is.
        ([load("a"), create("v", "a", view=True), load("a", "o")], ["merged a: a a", "table v: v"]),
        (
            [load("a"), create("v", "a", view=True), export("x", "v"), load("a", "o"), export("y", "v")],
            ["merged a: a v x a", "export export_y: y"],
        ),
    ],
)
def test_steps_that_have_to_be_one_op_are_one_group(steps, expected):
    assert shown(group_steps("p", steps)) == expected


def test_isolated_sources_are_one_group_a_stream():
    groups = group_steps("p", [load("a"), load("b"), load("c", "o"), load("d", "o")], {"s"})
    assert shown(groups) == ["source s: a", "source s_2: b", "source o: c d"]


def test_exports_into_different_tables_of_one_target_are_apart():
    one, two = (
        Export("p", f"e{n}", "", "pg", "POSTGRES", {"table": f"t{n}"}, {}, (), {}, HERE, "") for n in (1, 2)
    )
    assert len(group_steps("p", [one, two])) == 2


def test_only_a_source_group_can_run_in_part():
    groups = group_steps("p", [load("a"), load("b"), create("c", "a"), load("d", "o"), load("d", "q")])
    assert {group.name: group.can_subset for group in groups} == {"s": True, "c": False, "d": False}


def seen(steps):
    """What each step finds in the tables it reads when the steps run in this order."""
    content, views, found = {}, {}, {}

    def read(table):
        if table in views:
            return tuple((name, read(name)) for name in views[table])
        return content.get(table, ())

    for number, step in steps:
        if isinstance(step, Load):
            content[step.table] = (*content.get(step.table, ()), number)
            continue
        # Making a view finds nothing out; only who reads it does.
        is_view = isinstance(step, Transform) and step.view
        found[number] = () if is_view else tuple(read(table) for table in step.reads)
        if is_view:
            views[step.table] = step.reads
        elif isinstance(step, Transform):
            content[step.table] = (number, found[number])
    return found, {t: read(t) for t in {*content, *views}}


NAMES = ["a", "b", "c", "d", "e"]
# A name is a view or a table, as validation has it, and a view reads only what comes before it in NAMES.
VIEWS = {"d", "e"}


@st.composite
def programs(draw):
    steps = []
    for number in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["load", "create", "create", "export"]))
        made = {step.table.name for step in steps if not isinstance(step, Export)}
        reads = draw(st.lists(st.sampled_from(sorted(made)), unique=True, max_size=3)) if made else []
        if kind == "load":
            steps.append(load(draw(st.sampled_from("abc")), draw(st.sampled_from("st"))))
        elif kind == "export":
            steps.append(export(draw(st.sampled_from([f"x{number}", "same"])), *reads))
        else:
            name = draw(st.sampled_from(NAMES))
            view = name in VIEWS
            steps.append(create(name, *(r for r in reads if not view or r < name), view=view))
    return steps


@settings(max_examples=400)
@given(programs())
def test_groups_in_their_order_do_what_the_file_says(steps):
    groups = group_steps("p", steps)
    number = {id(step): n for n, step in enumerate(steps)}
    order = [(number[id(step)], step) for group in groups for step in group.steps]
    assert sorted(n for n, _ in order) == list(range(len(steps)))
    assert seen(order) == seen(enumerate(steps))


@settings(max_examples=200)
@given(programs())
def test_no_group_waits_for_one_behind_it_and_each_table_has_one(steps):
    groups = group_steps("p", steps)
    writers = [{s.table.folded for s in g.steps if not isinstance(s, Export)} for g in groups]
    assert sum(map(len, writers)) == len(set().union(*writers))
    made = set()
    for group, own in zip(groups, writers, strict=True):
        made |= own
        assert {t.folded for s in group.steps if not isinstance(s, Load) for t in s.reads} <= made


def test_thousands_of_steps_in_a_chain_and_in_a_circle_are_grouped():
    chain = [create(f"t{n}", f"t{n - 1}") for n in range(1, 5000)]
    assert len(group_steps("p", [load("t0"), *chain])) == 5000
    circle = [load("t0"), *chain, create("t0", "t4999")]
    assert [group.kind for group in group_steps("p", circle)] == ["merged"]
