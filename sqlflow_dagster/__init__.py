"""SQLFlow pipelines as Dagster assets.

The public names are imported when they are first used, so that the package itself costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sqlflow_dagster.collector import paused

if TYPE_CHECKING:
    from sqlflow_dagster.assets.build import build_definitions, build_pipeline_specs, sqlflow_assets
    from sqlflow_dagster.assets.component import SQLFlowDiscoveredProjectComponent, SQLFlowProjectComponent
    from sqlflow_dagster.assets.resources import SQLFlowResource
    from sqlflow_dagster.assets.translator import SQLFlowTranslator, StepData
    from sqlflow_dagster.assets.warehouse_resource import WarehouseResource, warehouse_resource
    from sqlflow_dagster.connectors.memory_tables import in_memory_rows, put_in_memory
    from sqlflow_dagster.errors import SQLFlowError
    from sqlflow_dagster.project import Project, load_project
    from sqlflow_dagster.udf import python_scalar_udf, python_table_udf

_HOMES = {
    "build_definitions": "assets.build",
    "build_pipeline_specs": "assets.build",
    "sqlflow_assets": "assets.build",
    "SQLFlowDiscoveredProjectComponent": "assets.component",
    "SQLFlowProjectComponent": "assets.component",
    "SQLFlowResource": "assets.resources",
    "SQLFlowTranslator": "assets.translator",
    "StepData": "assets.translator",
    "WarehouseResource": "assets.warehouse_resource",
    "warehouse_resource": "assets.warehouse_resource",
    "in_memory_rows": "connectors.memory_tables",
    "put_in_memory": "connectors.memory_tables",
    "SQLFlowError": "errors",
    "Project": "project",
    "load_project": "project",
    "python_scalar_udf": "udf",
    "python_table_udf": "udf",
}

__all__ = [
    "Project",
    "SQLFlowDiscoveredProjectComponent",
    "SQLFlowError",
    "SQLFlowProjectComponent",
    "SQLFlowResource",
    "SQLFlowTranslator",
    "StepData",
    "WarehouseResource",
    "build_definitions",
    "build_pipeline_specs",
    "in_memory_rows",
    "load_project",
    "put_in_memory",
    "python_scalar_udf",
    "python_table_udf",
    "sqlflow_assets",
    "warehouse_resource",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with paused():
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
