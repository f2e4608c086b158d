"""A selection of assets → the job that runs them, resolved among its neighbours alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

__all__ = ["pipeline_job"]


def pipeline_job(name: str, keys: Iterable[dg.AssetKey], description: str | None) -> PipelineJob:
    """Return the job of the given assets, as `dg.define_asset_job` would."""
    job = dg.define_asset_job(name, selection=dg.AssetSelection.assets(*keys), description=description)
    return PipelineJob(
        **{field: getattr(job, field) for field in UnresolvedAssetJobDefinition.__annotations__}
    )


class PipelineJob(UnresolvedAssetJobDefinition):
    """A job that Dagster resolves in time that grows with the job, not with the whole repository.

    Dagster compares each job with all assets there are, so a repository of twice as many pipelines
    takes four times as long to load. What a job needs to know of are its own assets, the checks of
    them, and what these read.
    """

    def resolve(self, asset_graph: AssetGraph, *args: Any, **kwargs: Any) -> dg.JobDefinition:
        """Return the job's definition. Raises DagsterInvalidDefinitionError where an asset is missing."""
        return super().resolve(_neighbourhood(asset_graph, self.selection), *args, **kwargs)


def _neighbourhood(graph: AssetGraph, selection: dg.AssetSelection) -> AssetGraph:
    selected = selection.resolve(graph, allow_missing=True)
    checks = {check for key in selected for check in graph.get(key).check_keys}
    owners = [graph.assets_def_for_key(key) for key in selected]
    definitions = {*owners, *(graph.assets_def_for_key(check) for check in checks)}
    keys = {
        key
        for definition in definitions
        for key in (
            *definition.node_keys_by_input_name.values(),
            *definition.node_keys_by_output_name.values(),
            *(check.asset_key for check in definition.check_keys),
        )
    }
    return AssetGraph(
        asset_nodes_by_key={key: graph.get(key) for key in keys if graph.has(key)},
        assets_defs_by_check_key={
            check: definition for definition in definitions for check in definition.check_keys
        },
    )
