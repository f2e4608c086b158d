"""kill -9 at named places and at any moment: nothing lost, nothing doubled, cursors right."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .campaign import (
    AT_RANDOM,
    BY_DAGSTER,
    FAILPOINTS,
    IN_BACKFILL,
    IN_FULL_REFRESH,
    IN_RESET,
    Run,
    Runner,
    Tally,
    finish,
    first_run,
    kill_at,
    kill_at_random,
    kill_in_backfill,
    kill_in_reset,
)
from .world import World

pytestmark = pytest.mark.fault

SEEDS = (1, 2)
LEAST_KILLS = 200
ROUNDS = {
    **dict.fromkeys(FAILPOINTS, 5),
    IN_RESET: 4,
    IN_BACKFILL: 8,
    BY_DAGSTER: 8,
    IN_FULL_REFRESH: 16,
    AT_RANDOM: 36,
}


@pytest.mark.parametrize(
    "failpoint", ["before_commit", "after_commit_before_cursor_mirror", "after_cursor_before_materialization"]
)
def test_a_run_killed_at_a_commit_loses_and_doubles_nothing(tmp_path: Path, failpoint: str):
    world, tally = World(tmp_path / "shop", seed=7), Tally()
    with Runner(tmp_path / "log") as runner:
        first_run(world, runner)
        kill_at(world, runner, failpoint, 1, tally)
    assert tally.kills[failpoint] == 1


@pytest.mark.proof
def test_two_hundred_kills_lose_and_double_nothing(tmp_path: Path, findings):
    with ThreadPoolExecutor(len(SEEDS)) as threads:
        tallies = list(threads.map(lambda seed: _campaign(tmp_path, seed), SEEDS))
    kills = sum((tally.kills for tally in tallies), Counter())
    missed = sum((tally.missed for tally in tallies), Counter())
    findings.seeds = SEEDS
    findings.kills = [(place, kills[place], missed[place]) for place in ROUNDS]
    assert kills.total() >= LEAST_KILLS
    assert all(kills[place] for place in ROUNDS), kills


def _campaign(folder: Path, seed: int) -> Tally:
    world, tally = World(folder / f"shop_{seed}", seed), Tally()
    plan = [place for place, rounds in ROUNDS.items() for _ in range(rounds)]
    random.Random(seed).shuffle(plan)
    with Runner(folder / f"log_{seed}") as runner:
        first_run(world, runner)
        for place in plan:
            _round(world, runner, place, tally)
        finish(world, runner)
    return tally


def _round(world: World, runner: Runner, place: str, tally: Tally) -> None:
    dice = world.random
    if place == AT_RANDOM:
        kill_at_random(world, runner, tally)
    elif place == IN_RESET:
        kill_in_reset(world, runner, tally)
    elif place == IN_BACKFILL:
        kill_in_backfill(world, runner, tally)
    elif place in (BY_DAGSTER, IN_FULL_REFRESH):
        full = place == IN_FULL_REFRESH or dice.random() < 0.3
        how = Run(full_refresh=full, by_dagster=place == BY_DAGSTER)
        if dice.random() < 0.5:
            kill_at_random(world, runner, tally, how, place)
        else:
            at = dice.choice(["after_stage_write", "before_commit", "after_commit", "in_run_start"])
            passing = 1 if at == "in_run_start" else dice.randint(1, 11 if "commit" in at else 7)
            kill_at(world, runner, at, passing, tally, how, place)
    else:
        # Only one of the loads may change its schema, and there are two exports; all pass the other places.
        most = {"in_schema_alter": 1, "in_export": 2}.get(place, 7)
        kill_at(world, runner, place, dice.randint(1, most), tally)
