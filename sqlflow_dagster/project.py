"""A project's folder → settings, plan, warehouse and connectors that fit together.

This is where the rooms beside each other meet: the plan learns here what a connector declares, and
a step gets its variables, its connector and its warehouse here.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from sqlflow_dagster.collector import paused
from sqlflow_dagster.connectors import registry
from sqlflow_dagster.connectors.base import Connector, Health, Place, Stream
from sqlflow_dagster.connectors.options import SourceOptions, needless, parse
from sqlflow_dagster.cursor import StateKey
from sqlflow_dagster.errors import BadOption, ExportFailed, NotAllowed, NotDiscovered, ProjectError
from sqlflow_dagster.language.variables import Variables, expand_text, expand_value, references
from sqlflow_dagster.plan.build import build
from sqlflow_dagster.plan.catalog import SourceFacts, StreamFacts
from sqlflow_dagster.plan.nodes import Export, Load, Location, Pipeline, Plan, Source, Template, Transform
from sqlflow_dagster.resilience.account import Account
from sqlflow_dagster.resilience.guard import Guard
from sqlflow_dagster.resilience.policy import DEFAULTS, policy
from sqlflow_dagster.settings import Scalar, Settings, load_settings

if TYPE_CHECKING:
    from sqlflow_dagster.warehouse.duckdb import Warehouse


@dataclass(frozen=True)
class Project:
    """A planned project. `variables` are those of the command line or of Dagster's run config.

    `only` names the pipelines it was planned for, None being all of them.
    """

    settings: Settings
    plan: Plan
    variables: Mapping[str, Scalar] = field(default_factory=dict)
    only: Collection[str] | None = None

    @cached_property
    def readers(self) -> frozenset[str] | None:
        """All LOADs, by the names of their states; None where the plan does not have all of them."""
        if self.plan.undiscovered or self.plan.left_out:
            return None
        groups = [group for pipeline in self.plan.pipelines for group in pipeline.groups]
        loads = (step for group in groups for step in group.steps if isinstance(step, Load))
        return frozenset(str(state_key(self, load)) for load in loads)

    @cached_property
    def warehouse(self) -> Warehouse:
        """The warehouse that all steps of this process share."""
        return warehouse_of(self.settings)

    def scope(
        self,
        values: Mapping[str, Template],
        run: Mapping[str, Scalar] | None = None,
        builtin: Mapping[str, Scalar] | None = None,
    ) -> Variables:
        """Return the variables that a statement sees: `values` are the SETs before it."""
        variables = Variables(
            run={**self.variables, **(run or {})},
            profile=self.settings.profile.variables,
            dotenv=self.settings.dotenv,
            environ=os.environ,
            builtin=builtin or {},
        )
        for name, value in values.items():
            variables = variables.with_set(name, value)
        return variables

    def writers(self, step: Load | Transform) -> tuple[Load | Transform, ...]:
        """Return all steps that write the table of `step`, in the order they take effect."""
        pipeline = self.plan.pipeline(step.pipeline)
        return tuple(
            other
            for group in (pipeline.groups if pipeline else ())
            for other in group.steps
            if not isinstance(other, Export) and other.table.folded == step.table.folded
        )

    def check_run_variables(self, pipeline: Pipeline, run: Mapping[str, Scalar]) -> None:
        """Raise ProjectError for run variables that would change the graph, or are secret.

        The graph is fixed when definitions load, and run config is stored as plain text.
        """
        if not run:
            return
        secret = sorted(set(run) & self._secret_variables(pipeline))
        if secret:
            raise ProjectError(
                f"{', '.join(secret)}: a secret cannot be given in run config, which is stored as text; "
                "put it in the environment or in `.env`"
            )
        again = load_project(
            self.settings.root,
            self.settings.environment,
            {**self.variables, **run},
            undiscovered=bool(self.plan.undiscovered),
            only=self.only,
        )
        if _shape(again.plan.pipeline(pipeline.name)) != _shape(pipeline):
            raise ProjectError(
                f"{', '.join(sorted(run))}: these variables change which steps {pipeline.name} has, which is "
                "fixed when definitions load; use `sqlflow run --vars`, or the profile's `variables`"
            )

    def _secret_variables(self, pipeline: Pipeline) -> set[str]:
        names: set[str] = set()
        for source in pipeline.sources:
            fields = registry.find(source.type).options_type.model_fields
            for key, value in source.params.items():
                field = fields.get(key)
                if field and "SecretStr" in str(field.annotation) and isinstance(value, str):
                    names |= {reference.name for reference in references(value)}
        return names

    def connector(self, source: Source, variables: Variables) -> Connector[Any]:
        """Open a source's connector with its parameters' values.

        Raises BadOption, or ProjectError where a variable has no value.
        """
        kind = registry.find(source.type)
        options, _notices = _options(kind, expand_value(dict(source.params), variables), self.settings)
        connector = kind(options, _place(self.settings))
        connector.readers = lambda: self.readers
        connector.guard = self._guard(source.name, kind, options, connector.account())
        return connector

    def sources(self) -> tuple[Source, ...]:
        """Return the SOURCEs of all pipelines, and the profile's `connectors` that can be read from.

        Those of the profile have the pipeline "". One that only an EXPORT can use is left out.
        """
        own = [source for pipeline in self.plan.pipelines for source in pipeline.sources]
        place = Location(self.settings.root / "profiles" / f"{self.settings.environment}.yml", 1, 1)
        profile = self.settings.profile.connectors
        named = [Source("", name, entry.type, entry.params, place) for name, entry in profile.items()]
        return (*own, *(source for source in named if self._readable(source)))

    def _readable(self, source: Source) -> bool:
        fields = registry.find(source.type).options_type.model_fields.items()
        given = set(source.params)
        return all(name in given or not field.is_required() for name, field in fields)

    def discover(self, source: Source) -> tuple[Stream, ...]:
        """Look up a source's streams, remember them for the next plan, and return them.

        Raises BadOption, SourceError, or ProjectError where a variable has no value.
        """
        with self.connector(source, self.scope(source.scope)) as connector:
            ask = connector.discover
            return tuple(ask() if connector.by_request else connector.guard.call(ask))

    def sink(
        self, export: Export, variables: Variables
    ) -> tuple[type[Connector[Any]], BaseModel, str, Place]:
        """Return what writes an export: the connector, its options, the target and where it may work."""
        kind = registry.find(export.type)
        values = expand_value({**export.params, **export.options}, variables)
        return kind, _sink_options(kind, values), expand_text(export.target, variables), _place(self.settings)

    def sink_guard(self, export: Export, kind: type[Connector[Any]], options: BaseModel) -> Guard:
        """Return the rules by which an export's target is written to."""
        return self._guard(export.name, kind, options, "")

    def exports(self) -> tuple[Export, ...]:
        """Return the EXPORTs of all pipelines, in the order they take effect."""
        return tuple(
            step
            for pipeline in self.plan.pipelines
            for group in pipeline.groups
            for step in group.steps
            if isinstance(step, Export)
        )

    def target(self, export: Export, variables: Variables) -> AbstractContextManager[ExportTarget]:
        """Return what an export writes to, to be asked how it is; nothing is contacted.

        Raises BadOption, or ProjectError where a variable has no value.
        """
        kind, options, target, place = self.sink(export, variables)
        return nullcontext(ExportTarget(self.sink_guard(export, kind, options), kind, options, target, place))

    def _guard(self, name: str, kind: type[Connector[Any]], options: BaseModel, account: str) -> Guard:
        given = {name: value for name, value in options if name not in needless(type(options))}
        rules = policy(
            kind.policy or DEFAULTS[kind.family],
            max_retries=given.get("max_retries"),
            rate_limit=given.get("rate_limit"),
            options=given.get("resilience"),
        )
        if not rules.breaker_failures and rules.rate is None:
            return Guard(name, rules)
        folder = self.settings.state_directory / "accounts"
        return Guard(name, rules, Account(folder, f"{kind.__name__}:{account or name}", rules))


@dataclass
class ExportTarget:
    """Where an export writes, and by which rules."""

    guard: Guard
    kind: type[Connector[Any]]
    options: BaseModel = field(repr=False)
    target: str = field(repr=False)
    place: Place

    def check(self) -> Health | None:
        """Say whether it is there and may be written to; None where its TYPE cannot tell."""
        return self.kind.check_target(self.target, self.options, self.place)


def warehouse_of(settings: Settings) -> Warehouse:
    """Return the warehouse that the profile names; nothing is opened."""
    from sqlflow_dagster.warehouse.duckdb import Warehouse, WarehouseSettings  # noqa: PLC0415 - slow

    duckdb = settings.profile.engines.duckdb
    return Warehouse(
        WarehouseSettings(
            path=settings.database,
            state_directory=settings.state_directory,
            memory_limit=duckdb.memory_limit,
            threads=duckdb.threads,
            temp_directory=settings.root / duckdb.temp_directory if duckdb.temp_directory else None,
            timezone=duckdb.timezone,
            lock_timeout_seconds=duckdb.lock_timeout_seconds,
            allowed_directories=(settings.root / "data", *_allowed(settings)),
        )
    )


def state_key(project: Project, step: Load, partition: str | None = None) -> StateKey:
    """Return the name under which the state of a LOAD is kept."""
    settings = project.settings
    return StateKey(
        project=settings.project,
        environment=settings.environment,
        pipeline=step.pipeline,
        source=step.source.name,
        stream=step.stream,
        table=step.table.name,
        partition=partition,
    )


@paused()
def load_project(
    root: Path | str,
    profile: str | None = None,
    variables: Mapping[str, Scalar] | None = None,
    *,
    undiscovered: bool = False,
    only: Collection[str] | None = None,
) -> Project:
    """Return the planned project at `root`; `variables` win over all others.

    `undiscovered` leaves out the loads of sources whose streams have not been looked up yet, which
    are in `plan.undiscovered` then; without it they are problems. `only` names the pipelines that
    are needed, None being all: others with problems are left out, and a notice says so.

    Raises SettingsError, or PipelineError with every problem of every `.sf` file that is needed.
    """
    settings = load_settings(root, profile)
    plan = build(settings, ConnectorCatalog(settings), variables or {}, undiscovered=undiscovered, only=only)
    return Project(settings, plan, variables or {}, only)


@dataclass(frozen=True, slots=True)
class ConnectorCatalog:
    """What the plan may know of connectors: declared facts, nothing that needs the far side."""

    settings: Settings

    def types(self) -> tuple[str, ...]:
        """Return the connector types by name."""
        return registry.types()

    def type_for_target(self, target: str) -> str | None:
        """Return the type that a target's suffix or scheme says, None where it says none."""
        return registry.type_for_target(target)

    def describe(self, type: str, params: Mapping[str, Any]) -> SourceFacts:  # noqa: A002 - the language's word
        """Return what a SOURCE with these parameters declares. Raises BadOption."""
        kind = registry.find(type)
        options, notices = _options(kind, params, self.settings)
        with kind(options, _place(self.settings)) as connector:
            streams = _streams(connector)
        _check_bounds(options, streams or ())
        own_cursor = any(stream.own_cursor for stream in streams or ())
        if options.loss_audit and (options.sync_mode not in kind.counts or own_cursor):
            said = f"loss_audit: {type} cannot count the rows of this read, so that the check can only warn of it"
            notices = (*notices, said)
        return SourceFacts(
            sync_mode=options.sync_mode,
            primary_key=options.primary_key,
            cursor_field=options.cursor_field,
            destination_sync_mode=options.destination_sync_mode,
            row_provenance=options.row_provenance,
            isolate=options.isolate,
            loss_audit=options.loss_audit,
            quarantines=options.quarantines,
            streams=streams,
            notices=tuple(notices),
        )

    def check_export(
        self,
        type: str,  # noqa: A002
        target: str | None,
        options: Mapping[str, Any],
        params: Mapping[str, Any],
    ) -> None:
        """Raise BadOption where an EXPORT's OPTIONS, or its target, are not what its connector takes."""
        kind = registry.find(type)
        taken = _sink_options(kind, {**params, **options})
        if target is None:
            return
        try:
            kind.check_words(target, taken, _place(self.settings))
        except (NotAllowed, ExportFailed) as error:
            raise BadOption(str(error)) from error


def _options(
    kind: type[Connector[Any]], params: Mapping[str, Any], settings: Settings
) -> tuple[Any, tuple[str, ...]]:
    """The parameters of a SOURCE as its connector takes them, with notices; some are the profile's where left out."""
    options, notices = parse(kind.options_type, dict(params))
    if "schema_policy" not in options.model_fields_set:
        options = options.model_copy(update={"schema_policy": settings.profile.schema_policy})
    return options, notices


def _streams(connector: Connector[Any]) -> tuple[StreamFacts, ...] | None:
    options = connector.options
    try:
        streams = connector.streams()
    except NotDiscovered:
        return None
    return tuple(
        StreamFacts(
            name=stream.name,
            primary_key=options.primary_key or stream.primary_key,
            # A cursor that the connector makes is no column, whatever `cursor_field` calls it.
            cursor_field=stream.cursor_field
            if stream.own_cursor
            else options.cursor_field or stream.cursor_field,
            own_cursor=stream.own_cursor,
            again=stream.again,
        )
        for stream in streams
    )


def _shape(pipeline: Pipeline | None) -> list[tuple[Any, ...]]:
    """What of a pipeline is its graph: names, types, modes and who reads whom."""
    shape: list[tuple[Any, ...]] = []
    for step in (step for group in (pipeline.groups if pipeline else ()) for step in group.steps):
        match step:
            case Load():
                shape.append(
                    (step.table, step.source.name, step.source.type, step.stream, step.mode, step.keys)
                )
            case Transform():
                shape.append((step.table, step.view, step.mode, step.keys, step.by, step.reads))
            case Export():
                shape.append((step.name, step.type, step.reads))
    return shape


def _check_bounds(options: SourceOptions, streams: Sequence[StreamFacts]) -> None:
    """Raise BadOption for bounds of a cursor where no stream has a column for one."""
    if not streams or any(stream.cursor_field for stream in streams):
        return
    for name in ("start_date", "end_date", "lookback_window"):
        if getattr(options, name) and (name != "lookback_window" or options.sync_mode != "full_refresh"):
            raise BadOption(f"{name}: it is told by a column; name it in `cursor_field`", option=name)


def _sink_options(kind: type[Connector[Any]], values: Mapping[str, Any]) -> BaseModel:
    if kind.sink_options_type is None:
        raise BadOption(f"{kind.__name__} reads only; EXPORT to another TYPE")
    options, _notices = parse(kind.sink_options_type, dict(values))
    return options


def _allowed(settings: Settings) -> tuple[Path, ...]:
    return tuple(settings.root / folder for folder in settings.profile.engines.duckdb.allowed_directories)


def _place(settings: Settings) -> Place:
    folders = ("profiles", settings.profile.paths.pipelines, settings.profile.paths.python_udfs)
    return Place(
        root=settings.root,
        spool=settings.state_directory / "spool",
        allowed=_allowed(settings),
        warehouse=settings.database,
        own=(*(settings.root / name for name in folders), settings.state_directory),
    )
