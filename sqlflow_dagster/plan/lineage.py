"""SQL → where each column of its result comes from, or "not certain".

Reads the tree of DuckDB's own parser, which knows the whole dialect, and follows the names as
DuckDB's binder does. A column's inputs are the stored columns that its expression names, also in
FILTER, OVER and CASE; WHERE, ON, GROUP BY and QUALIFY decide about rows and are no inputs. What is
not understood is unknown, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlflow_dagster.plan.columns import Columns, combined, fold, has, merged, renamed, same, without_twins
from sqlflow_dagster.plan.deep import deeply
from sqlflow_dagster.plan.expressions import Node, arguments, has_star, parameters, parts
from sqlflow_dagster.plan.nodes import Lineage
from sqlflow_dagster.plan.scope import NOTHING, Column, Inputs, Relation, Scope, union
from sqlflow_dagster.plan.syntax import syntax_trees
from sqlflow_dagster.sql import TableName

# A table's columns by name, in order; None where they are not known.
Schemas = Mapping[TableName, Sequence[str] | None]

_MOST_ROUNDS = 50


def column_lineage(
    sql: str,
    schemas: Schemas,
    search_path: Sequence[str] = (),
    columns: Sequence[str] | None = None,
) -> tuple[Lineage, ...]:
    """Return the lineage of each column of a query's result, in order.

    `sql` has its variables' values in it. `schemas` holds the tables that exist; a name without a
    schema is looked for along `search_path`. `columns` are those of the table that has the result, which
    may have them in another order, and others too; without them columns that DuckDB would name by their
    expression are left out.
    """
    (tree,) = syntax_trees([sql])
    found = None if tree.error else deeply(Walk(schemas, search_path).query, tree.statements[0], {}, None)
    if columns is None:
        return tuple(_lineage(column.name, column.inputs) for column in found or () if column.name)
    if len(found or ()) == len(columns) and all(map(_may_be, found or (), columns)):
        return tuple(_lineage(name, column.inputs) for name, column in zip(columns, found or (), strict=True))
    inputs = {fold(column.name): column.inputs for column in found or () if column.name}
    return tuple(_lineage(name, inputs.get(fold(name))) for name in columns)


def output_columns(node: Node, schemas: Schemas, search_path: Sequence[str] = ()) -> tuple[str, ...] | None:
    """Return the names of a parsed query's result; None where any of them is not known."""
    found = deeply(Walk(schemas, search_path).query, node, {}, None)
    if found is None:
        return None
    names = [column.name for column in found]
    return None if None in names else tuple(name for name in names if name is not None)


def _lineage(name: str, inputs: Inputs) -> Lineage:
    return Lineage(name, None if inputs is None else tuple(sorted(inputs)))


def _may_be(column: Column, name: str) -> bool:
    return column.name is None or same(column.name, name)


Ctes = Mapping[str, Columns]


class Walk:
    """One walk over one query's tree; `schemas` by folded name."""

    def __init__(self, schemas: Schemas, search_path: Sequence[str]) -> None:
        """Keep the stored tables."""
        self.tables = {table.folded: (table, columns) for table, columns in schemas.items()}
        self.search_path = [fold(schema) for schema in search_path]

    def query(self, node: Node, ctes: Ctes, outer: Scope | None) -> Columns:
        """Return the columns of a query, None where their number or order is not known."""
        ctes = self._with(node, ctes, outer)
        match node.get("type"):
            case "SELECT_NODE":
                return self._select(node, ctes, outer)
            case "SET_OPERATION_NODE":
                sides = [node[key] for key in ("left", "right") if key in node] + node.get("children", [])
                results = [self.query(side, ctes, outer) for side in sides]
                return combined(str(node.get("setop_type")), results)
            case "RECURSIVE_CTE_NODE":
                return self._recursive(node, ctes, outer)
        return None

    def _with(self, node: Node, ctes: Ctes, outer: Scope | None) -> Ctes:
        for entry in node.get("cte_map", {}).get("map", []):
            value = entry["value"]
            columns = self.query(value["query"]["node"], ctes, outer)
            ctes = {**ctes, fold(entry["key"]): renamed(columns, value.get("aliases", []))}
        return ctes

    def _recursive(self, node: Node, ctes: Ctes, outer: Scope | None) -> Columns:
        if node.get("key_targets"):  # USING KEY also replaces rows
            return None
        name = fold(str(node.get("cte_name", "")))
        columns = renamed(self.query(node["left"], ctes, outer), node.get("aliases", []))
        for _ in range(_MOST_ROUNDS):
            again = self.query(node["right"], {**ctes, name: columns}, outer)
            together = combined("UNION", [columns, again])
            if together == columns:
                return columns
            columns = together
        return None

    # --- SELECT

    def _select(self, node: Node, ctes: Ctes, outer: Scope | None) -> Columns:
        scope = self.from_(node.get("from_table", {"type": "EMPTY"}), ctes, outer)
        columns: list[Column] = []
        for item in node.get("select_list", []):
            found = self._item(item, scope, ctes)
            if found is None:
                return None
            columns += found
            if item.get("alias"):
                aliases = {**scope.aliases, fold(item["alias"]): found[0].inputs}
                scope = replace(scope, aliases=aliases)
        return without_twins(columns)

    def _item(self, item: Node, scope: Scope, ctes: Ctes) -> Sequence[Column] | None:
        if item.get("class") == "STAR":
            return self._star(item, scope, ctes)
        if has_star(item) or item.get("function_name") == "unnest":
            # COLUMNS() in an expression, `* LIKE`, and a struct in unnest() make several columns.
            return None
        name = item.get("alias")
        if not name and item.get("class") == "COLUMN_REF":
            name = item["column_names"][-1]
        return [Column(name or None, self.value(item, scope, ctes))]

    def _star(self, item: Node, scope: Scope, ctes: Ctes) -> Sequence[Column] | None:
        if item.get("expr"):
            return None
        owner = item.get("relation_name")
        columns = _columns_of(scope, fold(owner)) if owner else scope.star
        if columns is None:
            return None
        dropped = [str(name) for name in item.get("exclude_list", [])]
        dropped += [entry["column"] for entry in item.get("qualified_exclude_list", [])]
        replaced = {entry["key"]: entry["value"] for entry in item.get("replace_list", [])}
        renamed = {entry["key"]["column"]: entry["value"] for entry in item.get("rename_list", [])}
        for name in [*dropped, *replaced, *renamed]:
            if sum(same(column.name, name) for column in columns) != 1:
                return None
        kept = [c for c in columns if not any(same(c.name, name) for name in dropped)]
        values = {fold(name): self.value(value, scope, ctes) for name, value in replaced.items()}
        names = {fold(name): value for name, value in renamed.items()}
        return [
            Column(names.get(fold(c.name), c.name), values.get(fold(c.name), c.inputs)) if c.name else c
            for c in kept
        ]

    # --- FROM

    def from_(self, node: Node, ctes: Ctes, outer: Scope | None) -> Scope:
        """Return the names that a FROM brings; `outer` is what lateral and correlated parts see."""
        match node.get("type"):
            case "EMPTY":
                return Scope(parent=outer)
            case "JOIN":
                return self._join(node, ctes, outer)
        relation = self._relation(node, ctes, outer)
        return Scope(relations=(relation,), star=relation.columns, parent=outer)

    def _relation(self, node: Node, ctes: Ctes, outer: Scope | None) -> Relation:
        alias, names = str(node.get("alias", "")), node.get("column_name_alias", [])
        match node.get("type"):
            case "BASE_TABLE":
                return self._table(node, ctes).named(alias, names)
            case "SUBQUERY":
                columns = self.query(node["subquery"]["node"], ctes, outer)
                return Relation(alias, columns).named(alias, names)
            case "EXPRESSION_LIST":
                return Relation(alias, self._values(node, ctes, outer)).named(alias, names)
            case "TABLE_FUNCTION":
                return self._function(node, ctes, outer).named(alias, names)
        return Relation(alias)

    def _table(self, node: Node, ctes: Ctes) -> Relation:
        schema, name = str(node.get("schema_name", "")), str(node["table_name"])
        if not schema and fold(name) in ctes:
            return Relation(name, ctes[fold(name)])
        if node.get("catalog_name") or node.get("at_clause"):
            return Relation(name)
        for candidate in [fold(schema)] if schema else self.search_path:
            stored = self.tables.get(TableName(candidate, fold(name)))
            if stored:
                return _stored(name, *stored)
        return Relation(name)

    def _values(self, node: Node, ctes: Ctes, outer: Scope | None) -> Columns:
        scope = Scope(parent=outer)
        rows = [[self.value(value, scope, ctes) for value in row] for row in node.get("values", [])]
        if len({len(row) for row in rows}) != 1:
            return None
        return tuple(
            Column(f"col{index}", union(cells)) for index, cells in enumerate(zip(*rows, strict=True))
        )

    def _function(self, node: Node, ctes: Ctes, outer: Scope | None) -> Relation:
        function = node["function"]
        name, given = str(function.get("function_name", "")), function.get("children", [])
        if function.get("schema") or name not in ("unnest", "range", "generate_series"):
            return Relation(name)
        if name == "unnest" and len(given) != 1:
            return Relation(name)
        scope = Scope(parent=outer)
        columns = [Column(name, union(self.value(argument, scope, ctes) for argument in given))]
        if node.get("with_ordinality") == "WITH_ORDINALITY":
            columns.append(Column("ordinality", NOTHING))
        return Relation(name, tuple(columns))

    def _join(self, node: Node, ctes: Ctes, outer: Scope | None) -> Scope:
        left = self.from_(node["left"], ctes, outer)
        right = self.from_(node["right"], ctes, left)
        kind = node.get("join_type")
        if kind in ("SEMI", "ANTI"):
            return left
        relations = (*left.relations, *right.relations)
        using = [fold(name) for name in node.get("using_columns", [])]
        if node.get("ref_type") == "NATURAL":
            if left.star is None or right.star is None:
                return Scope(relations=relations, star=None, murky=True, parent=outer)
            using = [fold(c.name) for c in left.star if c.name and has(right.star, c.name)]
        using_values = {name: merged(name, kind, left, replace(right, parent=None)) for name in using}
        star = None
        if left.star is not None and right.star is not None:
            star = tuple(
                replace(c, inputs=using_values[fold(c.name)]) if fold(c.name) in using_values else c
                for c in left.star
            )
            star += tuple(c for c in right.star if fold(c.name) not in using_values)
        return Scope(
            relations=relations,
            merged={**left.merged, **right.merged, **using_values},
            star=star,
            murky=left.murky or right.murky,
            parent=outer,
        )

    # --- expressions

    def value(self, node: Node, scope: Scope, ctes: Ctes, bound: frozenset[str] = frozenset()) -> Inputs:
        """Return the inputs of an expression; `bound` are the parameters of lambdas around it."""
        kind = str(node.get("class"))
        if kind in ("CONSTANT", "PARAMETER"):
            return NOTHING
        if kind == "COLUMN_REF":
            return _named(node["column_names"], scope, bound)
        if kind == "POSITIONAL_REFERENCE":
            return _at(scope.star, int(node.get("index", 0)) - 1)
        if kind == "FUNCTION":
            return self._call(node, scope, ctes, bound)
        if kind == "SUBQUERY":
            return None if bound else self._subquery(node, scope, ctes)
        inner = parts(node)
        return None if inner is None else union(self.value(part, scope, ctes, bound) for part in inner)

    def _call(self, node: Node, scope: Scope, ctes: Ctes, bound: frozenset[str]) -> Inputs:
        if node.get("schema", "main") != "main":
            return None  # `x.upper()`: x is a column or a schema
        orders = node.get("order_bys", {}).get("orders", [])
        parts = [*arguments(node), *(order["expression"] for order in orders)]
        if node.get("filter"):
            parts.append(node["filter"])
        takes_lambda = str(node.get("function_name", "")).startswith(
            ("list_", "array_", "apply", "filter", "reduce")
        )
        inputs: list[Inputs] = []
        for part in parts:
            if part.get("class") == "LAMBDA" and takes_lambda:
                inner = bound | parameters(part["lhs"])
                inputs.append(self.value(part["expr"], scope, ctes, inner))
            else:
                inputs.append(self.value(part, scope, ctes, bound))
        return union(inputs)

    def _subquery(self, node: Node, scope: Scope, ctes: Ctes) -> Inputs:
        kind = node.get("subquery_type")
        if kind not in ("SCALAR", "ANY"):
            return None  # EXISTS is made of rows, not of columns
        columns = self.query(node["subquery"]["node"], ctes, scope)
        if columns is None or len(columns) != 1:
            return None
        compared = self.value(node["child"], scope, ctes) if node.get("child") else NOTHING
        return union([compared, columns[0].inputs])


def _stored(name: str, table: TableName, known: Sequence[str] | None) -> Relation:
    columns = [Column(column, frozenset({(table, column)})) for column in known or ()]
    return Relation(name, tuple(columns) or None, table, fold(table.schema))


def _named(names: Sequence[str], scope: Scope, bound: frozenset[str]) -> Inputs:
    if fold(names[0]) not in bound:
        return scope.resolve(names)
    # `x.x` may be a field of the lambda's parameter, or the column of a table called like it.
    return None if len(names) > 1 and scope.has_relation(names[0]) else NOTHING


def _at(columns: Columns, index: int) -> Inputs:
    return columns[index].inputs if columns and 0 <= index < len(columns) else None


def _columns_of(scope: Scope, alias: str) -> Columns:
    owners = [relation for relation in scope.relations if fold(relation.alias) == alias]
    return owners[0].columns if len(owners) == 1 else None
