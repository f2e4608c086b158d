"""Plan → what will run, in which order, what is full or incremental and why: for `sqlflow plan`.

Parameters are left out and targets are shown as written, so no secret can be in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlflow_dagster.plan.names import without_password
from sqlflow_dagster.plan.nodes import Export, Group, Load, Pipeline, Plan, Step, Transform


def explain(plan: Plan, pipelines: Sequence[str] = ()) -> list[str]:
    """Return the plan as lines of text; `pipelines` picks some by name."""
    lines: list[str] = []
    for pipeline in _picked(plan, pipelines):
        lines.append(f"{pipeline.name} ({pipeline.path.name})")
        for number, group in enumerate(pipeline.groups, 1):
            lines.append(f"  {number}. {_title(group)}")
            lines += [f"     {_line(step)}" for step in group.steps]
        if not pipeline.groups:
            lines.append("  nothing to run")
    return lines + [f"notice: {notice}" for notice in plan.notices]


def as_json(plan: Plan, pipelines: Sequence[str] = ()) -> dict[str, Any]:
    """Return the plan as JSON-able data; `pipelines` picks some by name.

    Steps stand in the order in which they take effect. A step's `kind` is load, transform or export.
    """
    return {
        "pipelines": [
            {
                "name": pipeline.name,
                "path": str(pipeline.path),
                "groups": [
                    {"name": group.name, "kind": group.kind, "steps": [_data(step) for step in group.steps]}
                    for group in pipeline.groups
                ],
            }
            for pipeline in _picked(plan, pipelines)
        ],
        "notices": list(plan.notices),
    }


def why(step: Step) -> str:
    """Return one line: whether a step does its work whole or in part, and why."""
    if isinstance(step, Load):
        return step.why
    if isinstance(step, Export):
        return "full: the whole result, or nothing"
    if step.view:
        return "full: a view stores nothing"
    since = f"the newest {step.by}" + (f" less {step.lookback.lower()}" if step.lookback else "")
    return {
        "replace": "full: the table is built anew and swapped",
        "append": "append: the result's rows are added",
        "upsert": f"upsert: rows with the result's {', '.join(step.keys)} are replaced",
        "incremental": f"incremental: rows from {since} on are replaced",
    }[step.mode]


def _picked(plan: Plan, names: Sequence[str]) -> list[Pipeline]:
    return [pipeline for pipeline in plan.pipelines if not names or pipeline.name in names]


def _title(group: Group) -> str:
    count = len(group.steps)
    match group.kind:
        case "source":
            return f"source {group.name}: {count} load{'s' if count > 1 else ''} side by side"
        case "merged":
            return f"{group.name}: {count} steps in this order, as one"
    return f"{group.kind} {group.name}"


def _line(step: Step) -> str:
    place = f"line {step.location.line}"
    match step:
        case Load():
            return f"LOAD {step.table} FROM {step.source.name}.{step.stream}  [{why(step)}; {place}]"
        case Transform():
            kind = "VIEW" if step.view else "TABLE"
            reads = ", ".join(map(str, step.reads)) or "nothing stored"
            return f"{kind} {step.table} reads {reads}  [{why(step)}; {place}]"
        case Export():
            reads = ", ".join(map(str, step.reads)) or "nothing stored"
            return f"EXPORT {step.type} {without_password(step.target)} reads {reads}  [{why(step)}; {place}]"


def _data(step: Step) -> dict[str, Any]:
    data: dict[str, Any] = {"why": why(step), "line": step.location.line, "file": str(step.location.path)}
    match step:
        case Load():
            data |= {
                "kind": "load",
                "table": str(step.table),
                "source": step.source.name,
                "type": step.source.type,
                "stream": step.stream,
                "mode": step.mode,
                "incremental": step.incremental,
                "keys": list(step.keys),
                "cursor_field": step.cursor_field,
            }
        case Transform():
            data |= {
                "kind": "transform",
                "table": str(step.table),
                "view": step.view,
                "mode": step.mode,
                "keys": list(step.keys),
                "by": step.by,
                "lookback": step.lookback,
                "reads": [str(table) for table in step.reads],
            }
        case Export():
            data |= {
                "kind": "export",
                "name": step.name,
                "type": step.type,
                "target": without_password(step.target),
                "reads": [str(table) for table in step.reads],
            }
    return data
