"""A group of steps → one op with its assets, and what happens when Dagster runs it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext  # Dagster reads the annotation, and knows it by this name

from sqlflow_dagster.assets import checks, reachable
from sqlflow_dagster.assets.dead_runs import PIPELINE_TAG
from sqlflow_dagster.assets.freshness import retry_policy
from sqlflow_dagster.assets.metadata import metadata_of
from sqlflow_dagster.assets.names import Keys, Names, legal_name
from sqlflow_dagster.assets.outs import OutAlike
from sqlflow_dagster.assets.resources import KEY
from sqlflow_dagster.assets.secrets import Redactor, redactor
from sqlflow_dagster.assets.session import begin_run, sessions_of
from sqlflow_dagster.errors import (
    LoadRefused,
    NotAllowed,
    ProjectError,
    QueryFailed,
    RetryLater,
    SQLFlowError,
)
from sqlflow_dagster.plan.nodes import Export, Group, Load, Pipeline, Step, Transform
from sqlflow_dagster.project import Project
from sqlflow_dagster.session import Outcome, Session

# Waiting does not mend these: a retry would only say the same again.
_FINAL = (ProjectError, NotAllowed, LoadRefused, QueryFailed)
# A far side that asks for more than this is asked again before that.
_LONGEST_WAIT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class GroupOp:
    """What one op runs: a group of a pipeline, and the specs of the assets it makes."""

    project: Project
    pipeline: Pipeline
    group: Group
    keys: Keys
    specs: tuple[dg.AssetSpec, ...]

    @property
    def partitions(self) -> dg.PartitionsDefinition[Any] | None:
        """The partitions that its assets have, None for none."""
        return next((spec.partitions_def for spec in self.specs if spec.partitions_def), None)

    @property
    def last_steps(self) -> Mapping[dg.AssetKey, Step]:
        """The step after which each asset is done."""
        return {self.keys.of(step): step for step in self.group.steps}

    @property
    def tables(self) -> tuple[Load | Transform, ...]:
        """The steps that write tables."""
        return tuple(step for step in self.group.steps if not isinstance(step, Export))


def group_asset(op: GroupOp, name: str) -> dg.AssetsDefinition:
    """Return the assets of a group, made by the op `name`.

    Built from its parts: `@multi_asset` takes output names from the keys, and refuses a table such
    as `Order Details`.
    """
    profile = op.project.settings.profile.pipeline(op.pipeline.name)
    names = Names()
    outputs = {names.take("__".join(spec.key.path)): spec for spec in op.specs}
    declared = [check for key, step in op.last_steps.items() for check in checks.declared(step, key)]
    declared += reachable.declared(op.group, op.keys)
    check_outputs = {names.take("__".join((*check.asset_key.path, check.name))): check for check in declared}
    inputs = _inputs(op.specs)
    optional = op.group.can_subset

    @dg.op(
        name=name,
        ins={name: dg.In(dg.Nothing) for name in inputs},
        out={
            **dict.fromkeys(outputs, OutAlike(dg.Nothing, is_required=not optional)),
            **dict.fromkeys(check_outputs, OutAlike(dg.Any, is_required=not optional)),
        },
        required_resource_keys={KEY},
        retry_policy=retry_policy(profile.retry),
        pool=profile.pool,
        tags={PIPELINE_TAG: legal_name(op.pipeline.name)},
    )
    def run(context: AssetExecutionContext) -> Iterator[Any]:
        yield from execute(context, op)

    return dg.AssetsDefinition(
        keys_by_input_name=inputs,
        keys_by_output_name={name: spec.key for name, spec in outputs.items()},
        node_def=run,
        can_subset=optional,
        specs=op.specs,
        check_specs_by_output_name=check_outputs,
        backfill_policy=_backfill_policy(op),
    )


def _backfill_policy(op: GroupOp) -> dg.BackfillPolicy | None:
    """How many partitions of a backfill become one run; a run of several replaces the range of all of them."""
    partitions = op.project.settings.profile.pipeline(op.pipeline.name).partitions
    if partitions is None or not op.partitions:
        return None
    if partitions.per_run is None:
        return dg.BackfillPolicy.single_run()
    return dg.BackfillPolicy.multi_run(partitions.per_run)


def _inputs(specs: Sequence[dg.AssetSpec]) -> dict[str, dg.AssetKey]:
    own = {spec.key for spec in specs}
    names = Names()
    needed = dict.fromkeys(dep.asset_key for spec in specs for dep in spec.deps if dep.asset_key not in own)
    return {names.take("__".join(key.path)): key for key in needed}


def execute(context: AssetExecutionContext, op: GroupOp) -> Iterator[Any]:
    """Yield a result for each asset as it is stored; at the end fail if any of them did."""
    begin_run(context)
    try:
        sessions = sessions_of(context, op.project, op.pipeline, op.partitions)
    except SQLFlowError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    try:
        yield from _results(context, op, sessions)
    except (dg.Failure, dg.RetryRequested):
        raise
    # The edge of our code: a driver's error may repeat its secrets, and Dagster stores what it says.
    except Exception as error:
        text = _chain_text(error)
        clean = redactor(sessions[-1], op.pipeline)(text)
        if clean == text:
            raise
        raise dg.Failure(clean) from None


def _results(context: AssetExecutionContext, op: GroupOp, sessions: Sequence[Session]) -> Iterator[Any]:
    from sqlflow_dagster.run import run_partitions  # noqa: PLC0415 - slow, and loading definitions needs none

    session = sessions[-1]
    selected = context.selected_asset_keys
    steps = [step for step in op.group.steps if op.keys.of(step) in selected]
    waiting = [op.keys.of(step) for step in steps]
    failed: list[Outcome] = []
    outcomes: list[Outcome] = []
    tables: list[checks.Table] = []
    for outcome in run_partitions(sessions, steps):
        outcomes.append(outcome)
        key = op.keys.of(outcome.step)
        waiting.remove(key)
        if outcome.error:
            failed.append(outcome)
            context.log.error(_described(op, outcome, redactor(session, op.pipeline)))
        elif key not in waiting:
            yield dg.MaterializeResult(asset_key=key, metadata=metadata_of(outcome, op.keys.tables))
            if not isinstance(outcome.step, Export):
                tables.append(checks.Table(key, outcome.step, outcome))
    tables += [
        checks.Table(key, step)
        for key, step in op.last_steps.items()
        if key not in selected and not isinstance(step, Export)
    ]
    yield from checks.answered(session, tables, context.selected_asset_check_keys)
    clean = redactor(session, op.pipeline)
    yield from reachable.answered(
        session, op.group, op.keys, outcomes, context.selected_asset_check_keys, clean
    )
    if failed:
        _fail(op, failed, clean)


def _described(op: GroupOp, outcome: Outcome, clean: Redactor) -> str:
    return f"{op.keys.of(outcome.step).to_user_string()}: {clean(str(outcome.error))}"


def _fail(op: GroupOp, failed: Sequence[Outcome], clean: Redactor) -> None:
    """Raise what makes Dagster try again, or not, and names each part that failed."""
    errors = [outcome.error for outcome in failed if outcome.error]
    text = "\n".join(_described(op, outcome, clean) for outcome in failed)
    later = [error.after for error in errors if isinstance(error, RetryLater) and error.after is not None]
    policy = op.project.settings.profile.pipeline(op.pipeline.name).retry
    failure: Exception = dg.Failure(text, allow_retries=not all(isinstance(e, _FINAL) for e in errors))
    if later and policy:
        # Dagster shows the cause once the tries are used up.
        failure = dg.RetryRequested(policy.max_retries, min(max(later), _LONGEST_WAIT_SECONDS))
    cause = errors[0]
    raise failure from (cause if clean(_chain_text(cause)) == _chain_text(cause) else dg.Failure(text))


def _chain_text(error: BaseException) -> str:
    """Everything that Dagster would store of an error: its own text and those it came from."""
    texts = []
    link: BaseException | None = error
    while link is not None:
        texts.append(f"{type(link).__name__}: {link}")
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return "\n".join(texts)
