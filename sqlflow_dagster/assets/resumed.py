"""A run that goes on with what another one left undone → that one, whose rows are not stored twice."""

from __future__ import annotations

from dagster import DagsterEventType, DagsterInstance, DagsterRun

# On a run of the steps that another one left undone, and on one that Dagster begins because another one failed.
_GOES_ON = ("dagster/is_resume_retry", "dagster/retry_number")
# On a run of the assets that another one left undone. It stays on where that run is run again later, all of it.
_ASSETS_LEFT = "dagster/is_asset_resume_retry"
_PARENT = "dagster/parent_run_id"


def resumed(instance: DagsterInstance, run: DagsterRun) -> str:
    """Return the id of the first run that this one goes on with, by way of others or not; as a rule its own."""
    while before := run.parent_run_id or run.tags.get(_PARENT):
        parent = instance.get_run_by_id(before)
        if parent is None:
            return before if any(tag in run.tags for tag in (*_GOES_ON, _ASSETS_LEFT)) else run.run_id
        if not _goes_on(instance, run, parent):
            break
        run = parent
    return run.run_id


def _goes_on(instance: DagsterInstance, run: DagsterRun, parent: DagsterRun) -> bool:
    if any(tag in run.tags for tag in _GOES_ON):
        return True
    if _ASSETS_LEFT in run.tags:
        return _ASSETS_LEFT not in parent.tags or _chose_what_was_left(instance, run, parent)
    if not (run.parent_run_id and run.step_keys_to_execute):
        return False
    # Steps of the other run that a program chose: those of which none was done. Where that is all, "from failure" is
    # not told from "all"; what was stored is then reported as such, and not doubled.
    done = instance.all_logs(parent.run_id, of_type=DagsterEventType.STEP_SUCCESS)
    return not {entry.step_key for entry in done} & set(run.step_keys_to_execute)


def _chose_what_was_left(instance: DagsterInstance, run: DagsterRun, parent: DagsterRun) -> bool:
    if run.asset_selection is None or run.asset_selection != parent.asset_selection:
        return run.asset_selection is not None and run.asset_selection < (parent.asset_selection or set())
    return not instance.all_logs(parent.run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION)
