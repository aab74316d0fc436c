"""What small_result counts as CPU seconds, and where its cap ends it."""

import csv
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest
from small_runs import finish, laboratory, write_run

from benchmarks import small_hours, small_result
from benchmarks.small_hours import CapReachedError, Session, cpu_seconds
from benchmarks.small_laboratory import HOURS, hours_used, note_hours
from benchmarks.small_plan import COCKTAIL, FULL, SMOKE
from medhiera.experiments.runner import ExperimentRunner


def lines(folder):
    with (folder / HOURS).open(newline="") as file:
        return [(row["run"], row["seed"], row["cpu_seconds"]) for row in csv.DictReader(file)]


def test_hours_are_added_up_over_interruptions(tmp_path):
    assert hours_used(tmp_path) == 0
    for cpu in (1800.0, 900.0):
        note_hours(tmp_path / HOURS, "random", 0, cpu, 2 * cpu)
    assert hours_used(tmp_path) == 0.75


def test_what_a_run_uses_is_noted_while_it_runs(tmp_path, monkeypatch):
    """Not at its end alone: a machine that dies writes nothing."""
    used = [3.2]
    monkeypatch.setattr(small_hours, "cpu_seconds", lambda: used[0])
    with Session(laboratory(tmp_path), 1.0, every=0.02) as session:
        session.begin("mae-leak", 0)
        used[0] = 63.4
        ends = time.monotonic() + 30
        while len(lines(tmp_path)) < 2 and time.monotonic() < ends:
            time.sleep(0.02)
        assert lines(tmp_path) == [("small_result", "0", "3"), ("mae-leak", "0", "60")]
        used[0] = 99.9
        session.begin("probe-leak", 0)
        used[0] = 120.0
    assert lines(tmp_path)[2:] == [("mae-leak", "0", "37"), ("probe-leak", "0", "20")]


def test_own_seconds_and_those_of_a_child_that_still_runs_count():
    before, own = cpu_seconds(), time.process_time()
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        while sum(psutil.Process(child.pid).cpu_times()[:2]) < 0.5:
            time.sleep(0.05)
        while time.process_time() - own < 0.5:
            pass
        assert cpu_seconds() - before >= 0.9
    finally:
        child.kill()
        child.wait()
    assert cpu_seconds() - before >= 0.9  # and once it has ended


def test_a_cap_that_is_crossed_within_a_sweep_ends_it(tmp_path, monkeypatch, caplog):
    lab, begun = laboratory(tmp_path), []

    def run(runner, arm, seed):
        begun.append(arm.name)
        write_run(lab, arm, seed, 0.8)
        note_hours(lab.output / HOURS, arm.name, seed, 1800, 1800)
        return True

    monkeypatch.setattr(ExperimentRunner, "run", run)
    monkeypatch.setattr(small_hours, "cpu_seconds", lambda: 0.0)  # the tests before this one used some too
    with caplog.at_level("INFO", logger="benchmarks.small_result"):
        small_result.run_plan(lab, 1.0, ["random"])
    assert begun == ["random-100pct-lr0.0003", "random-100pct-lr0.001"]
    assert "of 1.0 CPU hours are used: nothing more is begun" in caplog.text


def test_no_probe_is_begun_beyond_the_cap(tmp_path, monkeypatch):
    monkeypatch.setattr(small_result, "teacher_of", lambda *words: pytest.fail("the teacher is opened"))
    monkeypatch.setattr(small_hours, "cpu_seconds", lambda: 0.0)
    note_hours(tmp_path / HOURS, "random", 0, 3600, 3600)
    with Session(laboratory(tmp_path), 1.0) as session, pytest.raises(CapReachedError, match=r"1\.0 of 1\.0"):
        small_result.probe(session, "teacher", lambda: small_result.teacher_of("TEACHER", 128))


def test_the_folder_to_publish_is_a_copy_that_resumes_with_the_test_split(tmp_path, monkeypatch):
    lab = laboratory(tmp_path, replace(FULL, shares=SMOKE.shares))
    commands = []

    def run(runner, arm, seed):
        folder = runner.folder(arm.name, seed)
        commands.append((folder, runner.command(arm, seed), runner.record(arm.name, seed)))
        (folder / "README.md").write_text("scored")
        return True

    monkeypatch.setattr(ExperimentRunner, "run", run)
    with Session(lab, 1.0) as session:
        small_result.score_for_card(session)
        assert not commands  # the primary contestant is not finished
        finish(lab, COCKTAIL, lab.budget.shares[0], (2.0, 2.0))
        swept = lab.folder("cocktail-100pct-lr0.001", 0)
        before = {path.name: path.read_bytes() for path in swept.iterdir()}
        for _ in range(2):
            small_result.score_for_card(session)
    [(folder, words, record)] = commands  # the second time it is there
    assert folder == tmp_path / "stage2" / "seed0" and record is None
    assert "--score_test" not in words and "--bootstrap_resamples" not in words  # the recipe's: as published
    assert words[words.index("--learning_rate") + 1] == "1.0e-03"
    assert words[words.index("--model_name_or_path") + 1] == str(tmp_path / "mae-cocktail" / "seed0")
    assert {path.name: path.read_bytes() for path in swept.iterdir()} == before
