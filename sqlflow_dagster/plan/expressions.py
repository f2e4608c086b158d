"""An expression of DuckDB's syntax tree → the expressions that its value is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlflow_dagster.sql import fold

Node = Mapping[str, Any]


def parts(node: Node) -> list[Node] | None:
    """Return the parts of an expression, None where its value is not simply made of them."""
    of = _PARTS.get(str(node.get("class")))
    return of(node) if of else None


def arguments(node: Node) -> list[Node]:
    """Return the arguments of a function; of PYTHON_FUNC("m.f", a, k = b) only `a` and `b`."""
    children: list[Node] = node.get("children", [])
    if str(node.get("function_name", "")).casefold() != "python_func":
        return children
    return [child["right"] if child.get("type") == "COMPARE_EQUAL" else child for child in children[1:]]


def parameters(node: Node) -> frozenset[str]:
    """Return the folded names before a lambda's arrow: one, or several in a row."""
    nodes = node.get("children", []) if node.get("class") == "FUNCTION" else [node]
    return frozenset(fold(str(n["column_names"][-1])) for n in nodes if n.get("column_names"))


def has_star(node: Any) -> bool:
    """Return whether `*` or COLUMNS() stands in an expression, so that it makes several columns."""
    if isinstance(node, list):
        return any(map(has_star, node))
    if not isinstance(node, dict) or node.get("class") == "SUBQUERY":
        return False
    return node.get("class") == "STAR" or any(map(has_star, node.values()))


def _parts_of_window(node: Node) -> list[Node]:
    parts = [*node.get("children", []), *node.get("partitions", [])]
    parts += [order["expression"] for key in ("orders", "arg_orders") for order in node.get(key, [])]
    expressions = ("start_expr", "end_expr", "offset_expr", "default_expr", "filter_expr")
    return parts + [node[key] for key in expressions if node.get(key)]


def _parts_of_case(node: Node) -> list[Node]:
    parts = [part for check in node["case_checks"] for part in check.values()]
    return [*parts, node["else_expr"]] if "else_expr" in node else parts


def _parts_of_arrow(node: Node) -> list[Node] | None:
    """`j -> 'key'` reads JSON; a lambda is taken apart where its function is."""
    arrow = node["lhs"].get("class") != "FUNCTION" and node["expr"].get("class") == "CONSTANT"
    return [node["lhs"]] if arrow else None


# The parts of an expression that its value is made of, by DuckDB's class of it.
_PARTS: Mapping[str, Callable[[Node], list[Node] | None]] = {
    "OPERATOR": lambda node: node.get("children", []),
    "CONJUNCTION": lambda node: node.get("children", []),
    "COMPARISON": lambda node: [node["left"], node["right"]],
    "CAST": lambda node: [node["child"]],
    "COLLATE": lambda node: [node["child"]],
    "BETWEEN": lambda node: [node["input"], node["lower"], node["upper"]],
    "CASE": _parts_of_case,
    "WINDOW": _parts_of_window,
    "LAMBDA": _parts_of_arrow,
}
