"""The benchmarks say what the results of a run before were, and what became slower."""

import json
import subprocess
import sys

import pytest

from benchmarks import inputs, report, start
from benchmarks.figures import Figure, Sizes
from benchmarks.measure import Runs, Usage, paired


@pytest.fixture
def committed(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path / "benchmarks.json")
    monkeypatch.setattr(report, "PAGE", tmp_path / "benchmarks.md")
    report.write("loads", [figure(1.0)], Sizes(tmp_path, 10, 3, 10), 0.5)
    return tmp_path


def figure(ratio, case="a load"):
    return Figure(case, "1 s", "≤ 2 s", met=True, detail="so", ratio=ratio, beside="by hand")


@pytest.mark.parametrize(("ratio", "slow"), [(1.1, False), (1.15, False), (1.2, True), (None, False)])
def test_a_ratio_more_than_15_percent_greater_than_the_committed_one_is_slower(committed, ratio, slow):
    assert bool(report.slower([figure(ratio)], report.committed())) is slow


def test_a_figure_without_a_committed_one_is_not_slower(committed):
    assert report.slower([figure(9.0, case="a new one")], report.committed()) == []


def test_a_case_that_is_run_again_takes_the_place_of_its_old_figures_only(committed):
    report.write("start", [figure(2.0, case="a start")], Sizes(committed, 10, 3, 10), 0.5)
    report.write("loads", [figure(3.0)], Sizes(committed, 10, 3, 10), 0.5)
    cases = json.loads(report.RESULTS.read_text())["cases"]
    assert {name: case["figures"][0]["ratio"] for name, case in cases.items()} == {"loads": 3.0, "start": 2.0}
    assert report.PAGE.read_text().count("| ✔ |") == 2


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds():
    ours, hand = (Runs(tuple(Usage(wall, wall, 1) for wall in walls)) for walls in ([2, 40, 3], [1, 20, 3]))
    assert paired(lambda o, h: o.wall / h.wall, ours, hand) == 2


def test_the_stations_of_a_start_are_those_of_a_run(tmp_path):
    project = inputs.project(tmp_path / "project", {"start": inputs.ONE_TABLE})
    words = [sys.executable, "-c", start.STATIONS, str(project)]
    env = dict(inputs.environment(tmp_path))
    found = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    spent = json.loads(found.stdout.splitlines()[-1])
    assert list(spent)[-3:] == ["run", "reading its events", "closing"]
    assert all(seconds >= 0 for seconds in spent.values())
