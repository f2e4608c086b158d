"""What proofs found → docs/proofs.md."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "proofs.md"
_CRASHES, _LOCK, _LOAD = (f"tests/warehouse/test_{name}.py" for name in ("crashes", "lock", "load"))
_FAULTS, _LIMITS = "tests/proofs/test_faults.py", "tests/proofs/test_limits.py"
_SERVERS = "tests/proofs/test_servers.py"
_DEAD, _RUN = "tests/assets/test_dead_runs.py", "tests/cli/test_run.py"
# A fault, what is expected, and the tests that show it.
ROWS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "kill -9 at named places",
        "rows and cursor are those of a whole load or of none; the restart converges",
        (
            f"{_CRASHES}::test_a_killed_load_is_whole_or_absent_and_the_next_one_mends_it",
            "tests/proofs/test_kills.py::test_a_run_killed_at_a_commit_loses_and_doubles_nothing",
        ),
    ),
    (
        "kill -9 at named places and at random, 200 times",
        "as above; see the table below",
        ("tests/proofs/test_kills.py::test_two_hundred_kills_lose_and_double_nothing",),
    ),
    (
        "kill -9, 20 times, while four writers make 100,000 changes that are read from Postgres' log",
        "source and copy are identical, text by text; no slot is ahead of what is stored, and none is left over",
        (
            "tests/proofs/test_cdc.py::test_a_hundred_thousand_changes_and_twenty_kills_leave_an_identical_copy",
        ),
    ),
    (
        "SIGTERM, Ctrl-C, a run canceled in the web UI",
        "it ends soon, keeps its checkpoints, leaves no stage, and the run is shown as ended",
        (
            f"{_FAULTS}::test_a_canceled_load_stops_soon_and_keeps_what_it_has_committed",
            f"{_FAULTS}::test_a_canceled_query_stops_soon_and_leaves_its_table",
            f"{_RUN}::test_a_stopped_run_is_canceled_keeps_what_was_stored_and_ends_with_130",
            f"{_SERVERS}::test_a_run_that_is_terminated_in_the_web_ui_ends_and_the_next_one_goes_on",
        ),
    ),
    (
        "the process of a run, the code server or all of Dagster killed",
        "the run is marked failed, and no living run of this or another host is",
        (
            f"{_DEAD}::test_a_run_killed_before_it_could_name_its_process_is_failed_after_a_while",
            f"{_DEAD}::test_a_killed_dagster_job_is_failed_by_the_next_run",
            f"{_DEAD}::test_a_run_with_a_process_is_dead_only_where_that_can_be_seen",
            f"{_DEAD}::test_the_daemon_is_told_of_a_run_killed_before_its_first_step",
            f"{_SERVERS}::test_when_all_processes_are_killed_the_run_fails_and_is_tried_once_more",
        ),
    ),
    (
        "two runs of one stream at once",
        "the second to commit finds another marker and reads again; each row once",
        (
            f"{_FAULTS}::test_two_runs_that_read_from_one_cursor_store_each_row_once",
            f"{_CRASHES}::test_processes_that_load_the_same_stream_at_once_lose_and_double_nothing",
        ),
    ),
    (
        "Dagster's storage locked, or its Postgres restarted, when the cursor is copied",
        "the rows are stored, a notice says so, the next run repairs the copy",
        (
            f"{_FAULTS}::test_a_locked_run_storage_loses_nothing_and_is_repaired",
            f"{_FAULTS}::test_a_postgres_run_storage_that_is_restarted_says_so_and_goes_on",
        ),
    ),
    (
        "cursors that go back, jump to 2999 or are NULL",
        "the cursor stays at the present; the rows are loaded and counted",
        (
            f"{_FAULTS}::test_a_source_that_goes_back_does_not_take_the_cursor_with_it",
            f"{_FAULTS}::test_a_jump_to_the_year_2999_and_null_leave_the_cursor_where_the_present_is",
        ),
    ),
    (
        "time zones: gap and fold, naive and aware, the session's zone changed, nanoseconds",
        "the cursor is the same moment, with every digit",
        (
            f"{_FAULTS}::test_neither_the_machines_nor_the_sessions_time_zone_moves_a_cursor",
            f"{_FAULTS}::test_a_session_that_changes_its_time_zone_reads_on_from_the_same_moment",
            f"{_FAULTS}::test_clock_time_in_a_gap_or_fold_is_kept_as_it_is_written",
            f"{_FAULTS}::test_nanoseconds_of_a_cursor_are_kept",
        ),
    ),
    (
        "a clock that is wrong by a month, or jumps back",
        "nothing lost or doubled; the newest marker is told by its number",
        (
            f"{_FAULTS}::test_a_clock_that_is_wrong_loses_and_doubles_nothing",
            f"{_FAULTS}::test_the_newest_marker_is_told_by_its_number_and_not_by_a_clock",
        ),
    ),
    (
        "a full disk, files that may not grow, a read-only disk",
        "named; the warehouse opens, table and cursor as before",
        (
            f"{_LIMITS}::test_a_full_or_read_only_disk_is_named_and_changes_nothing",
            f"{_CRASHES}::test_a_full_disk_is_named_and_leaves_the_table_as_it_was",
        ),
    ),
    (
        "a torn write-ahead log, cut at 25 places",
        "it opens as of some commit, marker and rows together, or says that it cannot",
        (f"{_CRASHES}::test_a_log_torn_by_a_crash_opens_as_of_some_commit",),
    ),
    (
        "20 million rows under a memory limit of 256 MB",
        "the process stays under 512 MB",
        (f"{_LIMITS}::test_twenty_million_rows_need_no_more_memory_than_allowed",),
    ),
    (
        "the warehouse held by another process, program or thread",
        "waited for, then the holder is named; a dead one does not block",
        (
            f"{_LOCK}::test_the_holder_is_named_after_the_wait",
            f"{_LOCK}::test_a_dead_holder_does_not_block",
            f"{_LOCK}::test_a_program_that_does_not_know_the_lock_is_waited_for_and_named",
        ),
    ),
    (
        "1,000 streams, 10,000 partitions, 10,000 files",
        "one op; ticks in seconds; each partition asked for once",
        (
            f"{_LIMITS}::test_a_thousand_streams_are_one_op_that_loads_in_seconds",
            f"{_LIMITS}::test_a_thousand_streams_are_loaded_once_each",
            f"{_LIMITS}::test_ten_thousand_partitions_that_are_due_are_asked_for_once_each",
        ),
    ),
    (
        "a sensor that dies between its run and its cursor",
        "the same run is asked for again, under the same key",
        (f"{_LIMITS}::test_a_sensor_over_ten_thousand_files_ticks_in_seconds_and_dies_without_harm",),
    ),
    (
        "cursors and markers of another release, or broken",
        "kept aside and repaired; a wider table of markers is read on",
        (
            f"{_FAULTS}::test_a_cursor_document_that_is_not_ours_is_kept_aside_and_repaired",
            f"{_FAULTS}::test_a_warehouse_whose_markers_a_later_release_has_widened_is_read_on",
        ),
    ),
)


@dataclass
class Findings:
    """What the proofs did: how each test ended, without its parameters, and kills by place.

    `code` names the product's code that they were run on.
    """

    code: str = ""
    results: dict[str, Counter[str]] = field(default_factory=dict)
    kills: list[tuple[str, int, int]] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    def note(self, test: str, end: str) -> None:
        """Count how a test ended."""
        self.results.setdefault(test, Counter())[end] += 1

    def after(self, before: dict[str, Any]) -> Findings:
        """Return these beside what an earlier session found with the same code; a test's newer end counts."""
        if before.get("code") != self.code:
            return self
        earlier = {test: Counter(ends) for test, ends in before["results"].items()}
        return Findings(
            self.code, earlier | self.results, self.kills or before["kills"], self.seeds or before["seeds"]
        )

    def complete(self) -> bool:
        """Whether every test of the page was run and passed."""
        tests = {test for _fault, _expected, shown_by in ROWS for test in shown_by}
        return bool(self.kills) and all(set(self.results.get(test, {"": 0})) == {"passed"} for test in tests)


def code() -> str:
    """Return the name of the product's code as it is: what Git calls its tree, and what is not committed."""
    told = [
        subprocess.run(
            ["git", *words, "--", "sqlflow_dagster"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        for words in (("ls-files", "--stage"), ("diff", "HEAD"))
    ]
    return hashlib.sha256("".join(done.stdout for done in told).encode()).hexdigest()


def write(found: Findings) -> None:
    PAGE.write_text(
        f"""# Proofs

Written by `make proofs`; do not edit. {_machine()}

## Faults

| fault | expected | shown by | result |
|---|---|---|---|
{_faults(found)}

## kill -9

One pipeline with seven loads (key and cursor column; cursor column without a key, with rows alike in all
columns; new and corrected files; full refresh; three streams of one source, committed page by page), four
tables (rebuilt, APPEND, INCREMENTAL BY with lookback, UPSERT) and two exports; another one by daily
partitions. Between runs the far side adds, changes and equally dates rows, corrects files and adds columns,
and cursors are reset or set back. A run of `sqlflow run` or `dagster job execute`, plain, of a partition or a
full refresh, is killed with SIGKILL at a named place or at any moment; restarts may be killed again. The
seeds are {", ".join(map(str, found.seeds))}.

After each kill, on a copy of the warehouse: each loaded table is what it was before or what it shall be,
never between, and one that is committed by pages has all that lies before its cursor; the newest marker says
the same as the newest row; each export is the whole old or the whole new one. After the restart: all tables
and exports equal a truth kept in Python, with duplicates counted; the cursor in Dagster's run storage is the
newest marker, which is the newest row; APPEND rows are there once for every run since the last full refresh;
killed runs are marked failed and, after the last run, none is left as living; the restart's exit status is 0.
The first thing that does not hold ends the campaign, and this page is not written.

| killed | times | ended before the kill | rows lost | rows doubled | cursors wrong |
|---|---|---|---|---|---|
{_kills(found)}
"""
    )


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in ("dagster", "duckdb", "pyarrow"))
    return (
        f"Machine: {os.cpu_count()} cores, {memory} GB, Linux {platform.release()}; "
        f"Python {platform.python_version()}, {versions}."
    )


def _faults(found: Findings) -> str:
    return "\n".join(
        f"| {fault} | {expected} | {'<br>'.join(f'`{test}`' for test in tests)} | {_result(found, tests)} |"
        for fault, expected, tests in ROWS
    )


def _result(found: Findings, tests: tuple[str, ...]) -> str:
    total = sum((found.results[test] for test in tests), Counter())
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(total.items()))


def _kills(found: Findings) -> str:
    lines = [
        f"| {place if ' ' in place else f'`{place}`'} | {kills} | {missed} | 0 | 0 | 0 |"
        for place, kills, missed in found.kills
    ]
    total, missed = (sum(row[n] for row in found.kills) for n in (1, 2))
    return "\n".join([*lines, f"| **all** | **{total}** | {missed} | **0** | **0** | **0** |"])
