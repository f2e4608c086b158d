"""A project's `.sf` files → the plan, or every problem of every file.

First the statements in effect (flatten), then which tables they write, then all SQL bodies in one
call of the parser, then steps, checks and groups. Nothing here contacts a source.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlflow_dagster.language import tree
from sqlflow_dagster.language.variables import Variables
from sqlflow_dagster.plan.bodies import Body, bodies
from sqlflow_dagster.plan.catalog import Catalog
from sqlflow_dagster.plan.flatten import flatten
from sqlflow_dagster.plan.functions import check_functions
from sqlflow_dagster.plan.groups import group_steps
from sqlflow_dagster.plan.loads import Sources, Wanted, make_load, read_whole
from sqlflow_dagster.plan.names import check_schema, table_name
from sqlflow_dagster.plan.nodes import Export, Load, Pipeline, Plan
from sqlflow_dagster.plan.placed import File, Placed
from sqlflow_dagster.plan.report import Report
from sqlflow_dagster.plan.tables import Tables, Write
from sqlflow_dagster.plan.transforms import Maker
from sqlflow_dagster.plan.validate import (
    Planned,
    check_circles,
    check_columns,
    check_creates,
    check_exports,
    check_loads,
    check_order,
    check_views,
    check_writers,
)
from sqlflow_dagster.settings import Scalar, Settings
from sqlflow_dagster.sql import TableName, fold


def build(
    settings: Settings,
    catalog: Catalog,
    run_variables: Mapping[str, Scalar] | None = None,
    *,
    undiscovered: bool = False,
    only: Collection[str] | None = None,
) -> Plan:
    """Return the plan of a project; `run_variables` win over all others.

    `undiscovered` leaves out loads of sources whose streams are not known yet. `only` names the
    pipelines that are needed, None being all: others with problems are left out, with a notice.

    Raises PipelineError with every problem of every file, or of those that are needed.
    """
    report = Report(undiscovered_is_fine=undiscovered)
    variables = Variables(
        run=run_variables or {},
        profile=settings.profile.variables,
        dotenv=settings.dotenv,
        environ=os.environ,
    )
    one_schema = settings.profile.one_schema
    files = [
        flatten(path, settings.root, one_schema or path.stem, variables, report)
        for path in settings.pipeline_files
    ]
    drafts = [_draft(file, settings, catalog, report) for file in files]
    tables = _tables(drafts, files, one_schema)
    parsed = bodies((placed for file in files for placed in file.placed), report)
    check_functions(parsed.values(), settings.root / settings.profile.paths.python_udfs, report)
    check_writers(tables, report)
    pipelines = [_pipeline(draft, tables, parsed, settings, catalog, report) for draft in drafts]
    shown = {file.name: file.path.relative_to(settings.root).as_posix() for file in files}
    check_circles(pipelines, shown, report)
    report.raise_if_any(
        None if only is None else {path for file in files if file.name in only for path in file.paths}
    )
    wrong = report.wrong_paths()
    broken = tuple(file.name for file in files if wrong & file.paths)
    left_out = [f"{name} is left out, something in it is wrong: sqlflow validate {name}" for name in broken]
    return Plan(
        tuple(pipeline for pipeline in pipelines if pipeline.name not in broken),
        tuple(dict.fromkeys([*report.notices, *left_out])),
        tuple(report.undiscovered),
        broken,
    )


@dataclass(frozen=True, slots=True)
class _Draft:
    """A file with its sources and what each statement writes; None where the names are not known."""

    file: File
    sources: Sources
    wanted: Mapping[int, Sequence[Wanted] | None]
    created: Mapping[int, TableName | None]


def _draft(file: File, settings: Settings, catalog: Catalog, report: Report) -> _Draft:
    check_schema(report, file)
    sources = Sources(file, catalog, settings.profile.connectors, report)
    for placed in file.placed:
        if isinstance(placed.statement, tree.Source):
            sources.declare(placed, placed.statement)
    wanted: dict[int, Sequence[Wanted] | None] = {}
    created: dict[int, TableName | None] = {}
    for order, placed in enumerate(file.placed):
        if isinstance(placed.statement, tree.Load):
            wanted[order] = sources.wanted(placed, placed.statement)
        elif isinstance(placed.statement, tree.Create):
            created[order] = table_name(report, file, placed, placed.statement.table)
    return _Draft(file, sources, wanted, created)


def _tables(drafts: Sequence[_Draft], files: Sequence[File], one_schema: str | None) -> Tables:
    tables = Tables(files, one_schema)
    for draft in drafts:
        name = draft.file.name
        for order, placed in enumerate(draft.file.placed):
            loads = draft.wanted.get(order, ())
            if loads is None or draft.created.get(order, ()) is None:
                tables.open_ended.add(name)
            for item in loads or ():
                tables.add(Write(name, item.table, placed, order))
            if table := draft.created.get(order):
                tables.add(Write(name, table, placed, order))
    return tables


def _pipeline(
    draft: _Draft,
    tables: Tables,
    parsed: Mapping[int, Body],
    settings: Settings,
    catalog: Catalog,
    report: Report,
) -> Pipeline:
    maker = Maker(draft.file, tables, catalog, settings.profile.connectors, report)
    exports: set[str] = set()
    planned: list[Planned] = []
    for order, placed in enumerate(draft.file.placed):
        planned += _planned(draft, maker, order, placed, parsed.get(id(placed)), exports)
    planned = _settled(check_columns(draft.file.schema, planned, report))
    check_creates(draft.file, tables, report)
    check_order(draft.file, planned, tables, report)
    check_views(planned, report)
    check_loads(planned, report)
    check_exports(planned, report)
    declared = [found for found in draft.sources.declared.values() if found]
    isolated = {fold(d.source.name) for d in declared if d.facts and d.facts.isolate}
    return Pipeline(
        name=draft.file.name,
        path=draft.file.path,
        groups=group_steps(draft.file.name, [item.step for item in planned], isolated),
        sources=tuple(found.source for found in declared),
        description=draft.file.description,
    )


def _settled(planned: Sequence[Planned]) -> list[Planned]:
    """Read whole what another statement of the file replaces in each run."""
    replaced: dict[TableName, int] = {}
    for item in planned:
        if not isinstance(item.step, Export) and item.step.mode == "replace":
            replaced.setdefault(item.step.table.folded, item.step.location.line)
    settled: list[Planned] = []
    for item in planned:
        step = item.step
        if isinstance(step, Load) and step.incremental and step.table.folded in replaced:
            settled.append(replace(item, step=read_whole(step, replaced[step.table.folded])))
        else:
            settled.append(item)
    return settled


def _planned(
    draft: _Draft, maker: Maker, order: int, placed: Placed, body: Body | None, exports: set[str]
) -> list[Planned]:
    statement = placed.statement
    if isinstance(statement, tree.Load):
        return [
            Planned(step, placed, order, wanted=wanted)
            for wanted in draft.wanted[order] or ()
            if (
                step := make_load(
                    maker.report, wanted, sole_writer=len(maker.tables.writes(wanted.table)) == 1
                )
            )
        ]
    table = draft.created.get(order)
    if isinstance(statement, tree.Create) and body and table:
        transform, reads = maker.transform(placed, statement, table, body)
        return [Planned(transform, placed, order, reads, body)]
    if isinstance(statement, tree.Export):
        made = maker.export(placed, statement, body, exports)
        return [Planned(made[0], placed, order, made[1])] if made else []
    return []
