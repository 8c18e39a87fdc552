from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import GROUPS, cases, measure, oracles, peers, report, roofline, tables, targets
from benchmarks.__main__ import main
from benchmarks.row import Row
from benchmarks.run import run
from dasp import PROCESSORS

QUICK = cases.cases(quick=True)
PROCESSOR_CASES = [case for case in QUICK if case.group == "processors"]


def processor(case):
    return case.subject.removesuffix("_automation")


def test_every_processor_has_a_case():
    assert {processor(case) for case in PROCESSOR_CASES} == set(PROCESSORS)


def test_every_case_is_in_a_group():
    assert {case.group for case in QUICK} == set(GROUPS)


def test_case_names_are_unique():
    for quick in (False, True):
        names = [case.name for case in cases.cases(quick)]
        assert len(names) == len(set(names))


def test_inputs_are_those_of_the_declarations_and_repeatable():
    for case in PROCESSOR_CASES:
        first, second = (next(iter(case.make(case.shape))) for _ in range(2))
        spec = PROCESSORS[processor(case)]
        assert set(first.tensors) == {*spec.controls, *spec.signals}
        assert first.x.shape == case.shape
        torch.testing.assert_close(first.x, second.x, rtol=0, atol=0)
        for name, value in first.tensors.items():
            torch.testing.assert_close(value, second.tensors[name], rtol=0, atol=0)


# A processor without an oracle here is compared with itself in float64.
@pytest.mark.parametrize("case", [case for case in PROCESSOR_CASES if case.exact], ids=lambda case: case.name)
def test_processors_agree_with_their_oracles(case):
    (inputs,) = case.make(case.shape)
    y = case.ours(inputs)(inputs.x, **inputs.tensors).double().numpy()
    # The sharpest definition errors (a sign, a time constant, a law) are above -60 dB; float32 rounding is below -110.
    assert measure.errors_db(y, case.exact(inputs)).max() < -100


@pytest.mark.parametrize("case", [case for case in QUICK if case.sweep], ids=lambda case: case.name)
def test_filters_are_exact_over_the_whole_range(case):
    (row,) = run(case, [], quick=True)
    assert row.error_db <= -140


@pytest.fixture
def threads(monkeypatch):
    """Puts back what `--threads` changes for the whole process."""
    before = torch.get_num_threads()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.setenv(name, str(before))
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_json_has_every_field(tmp_path, capsys):
    path = tmp_path / "results" / "quick.json"
    status = main(["--quick", "--no-peers", "--filter", "parametric_eq", "--json", str(path)])
    printed = capsys.readouterr().out
    assert status == 0
    assert "parametric_eq 2x2x8192" in printed
    assert "not judged" in printed
    assert "| parametric_eq_short 1x1x64 " in printed
    assert list(path.parent.iterdir()) == [path]

    content = json.loads(path.read_text())
    assert set(content) == {"schema", "run", "environment", "peers", "rows", "targets"}
    assert content["schema"] == tables.SCHEMA
    assert {"commit", "dirty", "cpu", "instruction_set", "threads", "torch", "numpy", "scipy", "dasp", "time"} <= set(
        content["environment"]
    )
    rows = {row["case"]: row for row in content["rows"]}
    timed, swept = rows["parametric_eq"], rows["parametric_eq_accuracy"]
    assert (timed["group"], timed["library"], timed["shape"]) == ("processors", "dasp", [2, 2, 8192])
    for field in ("forward_ns_per_sample", "forward_backward_ns_per_sample"):
        assert 0 < timed[field]["low"] <= timed[field]["median"] <= timed[field]["high"] < math.inf
        assert timed[field]["repeats"] >= 3
    assert timed["error_db"] < -100
    assert swept["median_error_db"] <= swept["error_db"] < -100
    assert 0 < timed["roofline_forward"] < 1
    # Rounded to 4 digits.
    least_ns = timed["copy_ns_per_sample"]["median"] * timed["bytes_forward"] / (2 * 4 * 2 * 2 * 8192)
    assert timed["roofline_forward"] == pytest.approx(least_ns / timed["forward_ns_per_sample"]["median"], rel=2e-3)
    assert [row["shape"] for row in content["rows"] if row["case"] == "parametric_eq_rows"] == [
        [rows, 1, 256] for rows in (1, 2, 4, 8, 16, 32)
    ]
    assert [row["threads"] for row in content["rows"] if row["case"] == "parametric_eq_threads"] == [1]
    assert {target["case"] for target in content["targets"]} == {
        target.case for target in targets.TARGETS if target.case.startswith("parametric_eq")
    }
    for target in content["targets"]:
        assert {"target", "unit", "status", "measured"} <= set(target)
        assert ("at_least" in target) != ("at_most" in target)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.write_json(path, {"error_db": math.nan})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_list_names_who_takes_part(capsys):
    assert main(["--list", "--filter", "compressor", "--group", "processors", "scaling"]) == 0
    line, one_row, *scaling = capsys.readouterr().out.splitlines()
    assert one_row.split()[:3] == ["processors", "compressor_one_row", "1x1x262144"]
    assert [line.split()[-1] for line in scaling] == ["dasp"] * 3
    assert line.split() == [
        "processors", "compressor", "8x2x262144", "dasp,", "dasp-pytorch,", "pedalboard,", "torchcomp",
    ]  # fmt: skip


def test_an_unknown_name_is_an_error(capsys):
    assert main(["--filter", "nothing like this"]) == 2
    assert "--list" in capsys.readouterr().err


def test_a_peer_that_is_not_installed_is_listed(monkeypatch):
    def missing(name):
        raise peers.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(peers.importlib.metadata, "version", missing)
    found = peers.load()
    assert {peer.status for peer in found} == {"not installed"}
    assert all(peer.adapters("parametric_eq") == [] for peer in found)


def test_a_peer_that_cannot_be_imported_says_why(monkeypatch):
    def broken(module):
        raise OSError("Could not load this library: /somewhere/lib/_extension.so")

    monkeypatch.setattr(peers.importlib.metadata, "version", lambda name: "1.0")
    monkeypatch.setattr(peers.importlib, "import_module", broken)
    assert {peer.status for peer in peers.load()} == {
        "cannot be imported: OSError: Could not load this library: _extension.so"
    }


def test_a_peer_that_raises_has_a_row_that_says_so():
    class Broken:
        name = "broken"

        def adapters(self, subject):
            return [self.adapt]

        def adapt(self, inputs):
            raise RuntimeError("no such band")

    case = next(case for case in QUICK if case.name == "gain")
    ours, theirs = run(case, [Broken()], quick=True)
    assert ours.error_db < -100
    assert (theirs.library, theirs.note) == ("broken", "failed: RuntimeError: no such band")
    assert theirs.failed
    document = {"rows": [ours.record(), theirs.record()]}
    assert tables.notes(document) == [theirs.note]
    (table,) = tables.speed(document, "processors")
    assert table.lines[1][1] == "broken"
    assert table.lines[1][-1] == "[1]"


@pytest.mark.peer
@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_no_installed_peer_raises(case):
    usable = [peer for peer in peers.load() if peer.module is not None]
    if not any(peer.adapters(case.subject) for peer in usable):
        pytest.skip("no installed peer does this")
    assert [row.note for row in run(case, usable, quick=True) if row.failed] == []


def test_targets_name_cases_and_peers():
    by_name = {case.name: case for case in cases.cases()}
    for target in targets.TARGETS:
        assert target.case in by_name
        assert not target.peer or target.peer.partition(" (")[0] in peers.names(by_name[target.case].subject)


def row_of(name, library="dasp", *, forward=None, backward=None, shape=None, **more):
    case = next(case for case in cases.cases() if case.name == name)
    if shape is not None:
        case = cases.replace(case, shape=shape)
    timings = [None if value is None else measure.Timing(*[value] * 4, repeats=5) for value in (forward, backward)]
    return Row(case, library, forward=timings[0], forward_backward=timings[1], **more)


def verdict_of(text, rows, **more):
    (found,) = [v for v in targets.verdicts(targets.Results(rows), **{"quick": False, **more}) if text in v.target.text]
    return found


@pytest.mark.parametrize(("ours", "theirs", "status"), [(1.0, 60.0, "PASS"), (1.0, 59.9, "MISS"), (None, 60.0, "not")])
def test_a_ratio_is_judged_against_its_target(ours, theirs, status):
    rows = [
        row_of("parametric_eq", "dasp", backward=ours),
        row_of("parametric_eq", "dasp-pytorch", backward=theirs),
    ]
    assert verdict_of("beside dasp-pytorch", rows).status.startswith(status)
    assert verdict_of("beside dasp-pytorch", rows, quick=True).status.startswith("not")


def test_a_target_without_its_peer_says_why():
    missing = peers.Peer("torchaudio", "2.11.0", "cannot be imported: OSError: no library", None)
    results = targets.Results([row_of("parametric_eq", backward=1.0)], [missing])
    (found,) = [v for v in targets.verdicts(results, quick=False) if "torchaudio" in v.target.text]
    assert found.status == f"not measured: no figure of torchaudio; {missing.status}"


def test_memory_is_judged_in_multiples_of_the_input():
    size = 4 * 8 * 2 * 262144
    for multiple, status in ((3, "PASS"), (3.01, "MISS")):
        row = row_of("parametric_eq", memory_forward_backward=round(multiple * size))
        found = verdict_of("extra memory of the six-band", [row])
        assert (found.status, round(found.measured, 2)) == (status, multiple)


def test_calls_are_judged_in_microseconds():
    found = verdict_of("64 samples", [row_of("compressor_short", backward=1000.0)])
    assert (found.measured, found.status) == (64.0, "PASS")


def test_scaling_is_judged_by_its_worst():
    lengths = [(1, 2, 44100), (1, 2, 26460000)]
    rows = [
        row_of("sosfilt_samples", forward=forward, backward=backward, shape=shape)
        for shape, forward, backward in zip(lengths, (1.0, 1.1), (5.0, 4.0), strict=True)
    ]
    found = verdict_of("variation", rows)
    assert (found.measured, found.status) == (1.25, "MISS")
    threads = [
        row_of("sosfilt_threads", forward=forward, backward=backward, threads=number)
        for number, forward, backward in ((1, 2.0, 8.0), (2, 1.0, 4.5))
    ]
    found = verdict_of("two threads", threads)
    assert found.status == "PASS"
    assert found.measured == pytest.approx(8 / 4.5)
    assert verdict_of("two threads", threads[:1]).status == "not measured: one thread only"


def test_roofline_is_the_share_of_the_speed_of_a_copy():
    x, y = torch.zeros(16, 1000), torch.zeros(16, 1000)
    assert roofline.bytes_moved([x], [y], backward=False) == 8 * 16000
    # Forward and backward read x; backward reads the gradient of y and writes that of x.
    assert roofline.bytes_moved([x], [y], backward=True) == 20 * 16000
    # Moves as much as a copy of the input does, in four times the time.
    assert roofline.share(8 * 16000, call_ns=400.0, copied=4 * 16000, copy_ns=100.0) == 0.25
    row = row_of(
        "sosfilt",
        forward=1.0,
        backward=5.0,
        copy=measure.Timing(*[0.5] * 4, repeats=5),
        bytes_forward=8 * 16 * 262144,
        bytes_forward_backward=20 * 16 * 262144,
    )
    assert (row.roofline_forward, row.roofline_forward_backward) == (0.5, 0.25)
    assert verdict_of("share", [row]).status == "PASS"


def test_copies_copy():
    x = torch.randn(3, 1000)
    for copy in (roofline.copy_to_existing(x), roofline.copy_to_fresh(x)):
        torch.testing.assert_close(copy(), x, rtol=0, atol=0)


def test_scaling_has_a_row_for_each_point():
    case = next(case for case in QUICK if case.name == "sosfilt_threads")
    before = torch.get_num_threads()
    points = tuple(cases.Point((2, 1, 256), threads) for threads in (1, 2))
    rows = run(cases.replace(case, points=points), [], quick=True)
    assert [row.threads for row in rows] == [1, 2]
    assert all(row.forward is not None and row.forward_backward is not None for row in rows)
    assert torch.get_num_threads() == before


def test_an_output_that_is_not_finite_is_recorded_as_such():
    row = row_of("gain", "broken", error_db=math.inf)
    record = row.record()
    assert "error_db" not in record
    (table,) = tables.speed({"rows": [record]}, "processors")
    assert table.lines[0][table.header.index("error")] == "NaN"


def test_times_are_per_sample():
    def wait():
        measure.time.sleep(0.004)

    (timing,) = measure.times([wait], samples=1000, budget_s=0.02)
    assert timing.repeats == 5
    assert 4000 <= timing.low <= timing.median <= timing.high


def test_peak_memory_counts_what_a_call_allocates():
    size = 64 << 20
    before = measure.peak_memory(lambda: None)
    if before is None:
        pytest.skip("this system does not tell the peak of resident memory")
    found = measure.peak_memory(lambda: torch.ones(size // 4) + 1)
    # Both tensors are resident when the second has been filled.  The system counts pages to within a few dozen.
    assert 1.99 * size < found < 2.2 * size


def test_errors_are_relative_to_the_peak_of_each_item():
    exact = np.array([[1.0, -2.0], [10.0, 0.0], [0.0, 0.0]])
    errors = measure.errors_db(np.add(exact, [[0.02, 0.0], [0.0, 0.1], [0.0, 0.0]]), exact)
    np.testing.assert_allclose(errors, [-40, -40, measure.EXACT_DB])
    assert measure.errors_db(np.array([[math.nan]]), np.array([[1.0]])) == math.inf
    with pytest.raises(ValueError, match="shape"):
        measure.errors_db(exact, exact[:2])


def test_oracle_of_the_smoother_is_the_branching_one_pole():
    g = np.array([[0.0, -1.0, -1.0, 0.0]])
    y = oracles.branching_one_pole(g, np.array([0.5]), np.array([0.75]))
    np.testing.assert_allclose(y, [[0.0, -0.5, -0.75, -0.5625]])


def test_results_are_not_committed():
    assert "benchmarks/results/" in Path(cases.__file__).parents[1].joinpath(".gitignore").read_text().splitlines()
