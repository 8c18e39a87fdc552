"""The guard of the hot loops: what it measures, and when it fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import dasp.functional as F
from benchmarks import guard, measure
from benchmarks.__main__ import main
from dasp import kernels

pytestmark = pytest.mark.skipif(
    kernels.describe()["cpu_kernels"] != "compiled", reason="there are no compiled kernels to guard"
)
LOOP = "sosfilt_short, forward"


def timing(fastest, low=None):
    low = fastest if low is None else low
    return measure.Timing(median=low, low=low, high=low, fastest=fastest, repeats=20)


def attempt(loop, copy=1.0, scipy=10.0, varies=1.0, cpu_share=1.0):
    """A measurement in which the lower quartile of the copy is above its fastest by the factor `varies`."""
    yardsticks = {"copy": timing(copy, copy * varies), "scipy": timing(scipy)}
    return guard.Attempt(yardsticks, {LOOP: timing(loop)}, cpu_share)


EXPECTED = attempt(2.0).ratios(LOOP)


def test_a_loss_of_a_quarter_is_tolerated_and_more_is_not():
    assert EXPECTED == {"copy": 0.5, "scipy": 5.0}
    assert guard.judge(LOOP, EXPECTED, [attempt(2.0 / 0.76)]).status == "ok"
    found = guard.judge(LOOP, EXPECTED, [attempt(2.0 / 0.74)])
    assert found.line() == f"{LOOP}: lost: 0.37 x copy, expected 0.5, 3.7 x scipy, expected 5"


def test_a_yardstick_that_was_fast_by_itself_is_no_loss():
    assert guard.judge(LOOP, EXPECTED, [attempt(2.0, copy=0.3)]).status == "ok"


def test_one_good_attempt_is_enough():
    assert guard.judge(LOOP, EXPECTED, [attempt(4.0), attempt(2.1)]).status == "ok"


@pytest.mark.parametrize(
    ("disturbed", "reason"),
    [
        (attempt(4.0, varies=1.4), "copy itself varies by 40 %"),
        (attempt(4.0, cpu_share=0.5), "other processes took 50 % of the time"),
    ],
)
def test_a_loss_on_a_busy_machine_is_unmeasurable(disturbed, reason):
    found = guard.judge(LOOP, EXPECTED, [attempt(4.0), disturbed])
    assert found.status == "unmeasurable"
    assert found.text.startswith(reason)
    # Of three attempts two were undisturbed.
    assert guard.judge(LOOP, EXPECTED, [attempt(4.0), disturbed, attempt(4.0)]).status == "lost"


def test_a_loop_that_nothing_is_recorded_for_is_unmeasurable():
    assert guard.judge(LOOP, None, [attempt(4.0)]).status == "unmeasurable"


def test_only_what_falls_short_is_measured_again(monkeypatch):
    monkeypatch.setattr(guard, "_PAUSE_S", 0)
    measured = []

    def slow_at_first(case):
        measured.append(case.name)
        of_case = measured.count(case.name)
        slow = case.name == "recurrence" and of_case < 4
        return guard.Attempt(attempt(1.0).yardsticks, {f"{case.name}, forward": timing(4.0 if slow else 2.0)})

    chosen = [case for case in guard.guarded() if case.name in ("ballistics", "recurrence")]
    expected = {f"{case.name}, forward": EXPECTED for case in chosen}
    findings = guard.check(chosen, expected, slow_at_first)
    assert [finding.status for finding in findings] == ["ok", "ok"]
    assert measured == ["ballistics", *["recurrence"] * 4]


@pytest.mark.usefixtures("threads")
def test_the_guard_passes_on_itself_and_fails_when_a_loop_is_slower(tmp_path, monkeypatch, capsys):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(guard, "_PAUSE_S", 0)
    monkeypatch.setattr(guard, "_BUDGET_S", 0.03)
    path = tmp_path / "guard.json"
    call = ["--guard", str(path), "--filter", "sosfilt_short"]
    assert main([*call, "--update"]) == 0
    assert main(call) == 0
    assert "guard: 2 ok, 0 lost, 0 unmeasurable" in capsys.readouterr().out

    sosfilt = F.sosfilt

    def four_times(x, sos):
        for _ in range(3):
            sosfilt(x, sos)
        return sosfilt(x, sos)

    monkeypatch.setattr(F, "sosfilt", four_times)
    findings = guard.check(guard.guarded("sosfilt_short"), guard.load(path)["ratios"][instruction_set()])
    # On a machine that is too busy at this very moment it could not be told.
    assert {finding.status for finding in findings} <= {"lost", "unmeasurable"}
    if any(finding.status == "lost" for finding in findings):
        monkeypatch.setattr(guard, "check", lambda *arguments: findings)
        assert main(call) == 1
        assert "lost" in capsys.readouterr().out


def instruction_set():
    return kernels.describe()["instruction_set"]


def test_update_keeps_what_it_does_not_measure(tmp_path):
    path = tmp_path / "guard.json"
    before = {"of another machine": {LOOP: EXPECTED}, instruction_set(): {"another, forward": EXPECTED, LOOP: {}}}
    path.write_text(json.dumps({"schema": guard.SCHEMA, "ratios": before}))
    guard.update(path, guard.guarded("sosfilt_short"), lambda case: attempt(2.0))
    content = json.loads(path.read_text())
    assert content["ratios"]["of another machine"] == {LOOP: EXPECTED}
    assert content["ratios"][instruction_set()] == {"another, forward": EXPECTED, LOOP: EXPECTED}
    assert set(content["versions"]) == {"numpy", "scipy", "torch"}


def test_a_file_of_another_schema_is_refused(tmp_path):
    path = tmp_path / "guard.json"
    path.write_text('{"schema": 0}')
    with pytest.raises(ValueError, match="--update"):
        guard.load(path)


def test_without_compiled_kernels_the_guard_fails(monkeypatch, capsys):
    monkeypatch.setattr(guard.kernels, "describe", lambda: {"cpu_kernels": "fallback: no compiler"})
    assert guard.main(Path("nowhere.json"), "", updating=False) == 1
    assert "no compiler" in capsys.readouterr().out


def test_the_checked_in_file_has_every_loop():
    ratios = guard.load(Path(guard.__file__).parent / "guard.json")["ratios"]
    loops = {
        f"{case.name}, {direction}" for case in guard.guarded() for direction in ("forward", "forward and backward")
    }
    assert ratios
    for of_instruction_set in ratios.values():
        assert set(of_instruction_set) == loops
