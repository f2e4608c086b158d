"""Whatever order Dagster may run the groups in, the result is that of the statements in file order."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqlflow_dagster.plan.nodes import Export, Load

TABLES = ["a", "b", "c", "d"]
VIEWS = ["v", "w"]


@st.composite
def pipelines(draw):
    """Statements that write and read four tables and two views, each read after it is made."""
    text = ['SOURCE s TYPE CSV PARAMS {"streams": ["x"]};', 'SOURCE r TYPE CSV PARAMS {"streams": ["x"]};']
    made = []
    for number in range(draw(st.integers(2, 12))):
        kind = draw(
            st.sampled_from(["load", "load", "create", "create", "append", "view", "export", "export"])
        )
        if kind == "load" or not made:
            table = draw(st.sampled_from(TABLES))
            mode = draw(st.sampled_from(["", " MODE APPEND"]))
            text.append(f"LOAD {table} FROM {draw(st.sampled_from('sr'))}.x{mode};")
        else:
            table = draw(st.sampled_from(VIEWS if kind == "view" else TABLES))
            # A view that reads itself, or another that reads it, has no rows.
            readable = [name for name in made if kind != "view" or name in TABLES or name < table]
            if not readable:
                continue
            query = f"SELECT {number} AS n FROM {', '.join(draw(st.lists(st.sampled_from(readable), min_size=1, max_size=2)))}"
            text.append(
                {
                    "create": f"CREATE OR REPLACE TABLE {table} AS {query};",
                    "append": f"CREATE TABLE {table} MODE APPEND AS {query};",
                    "view": f"CREATE OR REPLACE VIEW {table} AS {query};",
                    "export": f'EXPORT {query} TO "{draw(st.sampled_from("fgh"))}.csv";',
                }[kind]
            )
        if kind != "export" and table not in made:
            made.append(table)
    return "\n".join(text)


class World:
    """What tables, views and files hold: of each value the line that made it and what it was made of."""

    def __init__(self):
        self.tables, self.views, self.files = {}, {}, {}

    def value(self, name):
        if name in self.views:
            line, reads = self.views[name]
            return (line, tuple(map(self.value, reads)))
        return self.tables.get(name)

    def do(self, step):
        line = step.location.line
        if isinstance(step, Load):
            made, name = line, step.table.name
        elif isinstance(step, Export):
            self.files[step.target] = (line, tuple(self.value(read.name) for read in step.reads))
            return
        else:
            name, reads = step.table.name, [read.name for read in step.reads]
            if step.view:
                self.views[name] = (line, reads)
                return
            made = (line, tuple(map(self.value, reads)))
        self.tables[name] = made if step.mode == "replace" else (self.tables.get(name), made)

    def all(self):
        return self.tables, self.views, self.files


def needs(groups):
    """Group -> the groups that make what it reads, as the edges between assets say."""
    owner = {}
    for index, group in enumerate(groups):
        for step in group.steps:
            if not isinstance(step, Export):
                owner[step.table.name] = index
    return {
        index: {
            owner[read.name]
            for step in group.steps
            if not isinstance(step, Load)
            for read in step.reads
            if owner.get(read.name, index) != index
        }
        for index, group in enumerate(groups)
    }


@given(pipelines(), st.randoms(use_true_random=False))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_the_groups_gives_the_result_of_the_file(desk, text, random):
    groups = desk.plan(text).pipeline("p").groups
    in_file_order = World()
    steps = [step for group in groups for step in group.steps]
    for step in sorted(steps, key=lambda step: step.location.line):
        in_file_order.do(step)
    by_groups, waiting = World(), needs(groups)
    while waiting:
        ready = [index for index, others in waiting.items() if not others & waiting.keys()]
        assert ready, "a circle"
        index = random.choice(ready)
        del waiting[index]
        members = list(groups[index].steps)
        if groups[index].can_subset:
            random.shuffle(members)
        for step in members:
            by_groups.do(step)
    assert by_groups.all() == in_file_order.all()


def test_the_groups_of_a_pipeline_are_as_many_as_can_be(desk):
    text = "\n".join(f"CREATE TABLE t{n} AS SELECT {n} AS n;\nEXPORT t{n} TO 't{n}.csv';" for n in range(5))
    assert len(desk.plan(text).pipeline("p").groups) == 10
