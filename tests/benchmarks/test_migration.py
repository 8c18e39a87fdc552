"""What is measured for those who come from another library, and the results that the documentation shows."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest
import torch

from benchmarks import migration
from benchmarks.peers import Peer

DOCS = Path(migration.__file__).parents[1] / "docs"
RESULTS = DOCS / "migration.json"
DOCUMENT = json.loads(RESULTS.read_text())


def finding(theirs, quantity, library=None):
    (found,) = (
        f
        for row in DOCUMENT["rows"]
        if row["theirs"].startswith(theirs) and library in (None, row["library"])
        for f in row["found"]
        if f["quantity"] == quantity
    )
    return found


def test_a_library_that_is_missing_is_named_with_the_reason():
    pair = migration.PAIRS[0]
    (row,) = migration.measure([Peer(pair.library, "", "not installed", None)], [pair])
    assert row["why"] == "not installed"
    (table,) = migration.tables({"rows": [row]})
    assert table.lines[0][3:] == ("not measured: not installed", "", "", "")


def test_a_pair_that_fails_is_named_with_the_reason():
    pair = migration.PAIRS[0]
    (row,) = migration.measure([Peer(pair.library, "1", "", json)], [pair])
    assert row["why"].startswith("AttributeError")


def test_gains_and_times_of_steps_are_those_of_a_known_smoother():
    def smoothed(x):
        """Two dB down for the loud part, approached with a time constant of 5 ms, left with one of 20 ms."""
        n = torch.arange(44100) / 44.1
        up = -2 * (1 - (-n / 5).exp())
        gain = torch.cat([torch.zeros(44100), up, -2 * (-n / 20).exp()])
        return x * 10 ** (gain / 20)

    found = migration._dynamics(smoothed)
    assert found["gain at -60 dB"] == pytest.approx(0, abs=1e-4)
    assert found["gain at -6 dB"] == pytest.approx(-2, abs=1e-4)
    assert found["63 % of the way up"] == pytest.approx(5, abs=0.1)
    assert found["63 % of the way down"] == pytest.approx(20, abs=0.1)


def test_responses_are_those_of_a_delayed_sum():
    def comb(x):
        y = x.clone()
        y[..., 1:] += x[..., :-1]
        return y

    # |1 + exp(-j w)| = 2 cos(w / 2)
    assert migration._response(comb, [0.0, migration.SAMPLE_RATE / 4]) == pytest.approx([6.0206, 3.0103], abs=1e-3)


def test_the_checked_in_results_are_small_current_and_whole():
    assert RESULTS.stat().st_size < 40_000
    assert DOCUMENT["schema"] == migration.SCHEMA
    named = [(row["library"], row["theirs"], row["dasp"], row["settings"]) for row in DOCUMENT["rows"]]
    assert named == [(pair.library, pair.theirs, pair.ours, pair.settings) for pair in migration.PAIRS]
    assert not [row for row in DOCUMENT["rows"] if "why" in row]


def test_the_checked_in_results_name_no_host_and_no_path():
    text = RESULTS.read_text()
    assert not re.search(r"[\"\s(]/\w+/|[A-Z]:\\\\", text)
    assert f'"{socket.gethostname()}"' not in text


def test_the_pages_say_what_the_results_show():
    for row in DOCUMENT["rows"]:
        if row["library"] == "torchaudio":
            assert all(f["theirs"] < -100 for f in row["found"] if f["quantity"] == "at 1000 Hz" and f["unit"] == "dB")
    assert finding("LowPassFilter", "ssm at 1000 Hz")["theirs"] > 5
    assert finding("LowPassFilter", "ssm at 1000 Hz, with its polarity inverted")["theirs"] < -90
    assert finding("PeakingFilter", "fsm at 1000 Hz, 44101 samples")["theirs"] < -90
    assert finding("PeakingFilter", "fsm at 1000 Hz, 44100 samples")["theirs"] > -3
    assert finding("ParametricEqualizer", "lfilter")["theirs"] < -70 < finding("ParametricEqualizer", "ssm")["theirs"]
    twice = finding("Compressor(energy_smoother=None", "gain, ratio 1.5")
    assert twice["theirs"] == pytest.approx(2 * twice["dasp"], rel=0.01)
    alike = finding('Compressor(energy_smoother="ballistics', "time constant of its level, falling")
    assert alike["theirs"] == pytest.approx(10, rel=0.01)
    pole = finding("Compressor(threshold_db", "time constant of its level, rising", "pedalboard")
    assert pole["theirs"] == pytest.approx(10 / 6.2832, rel=0.02)
    assert finding("Convolution", "gain of a single 1")["theirs"] == pytest.approx(-18.06, abs=0.01)


@pytest.mark.peer
def test_pedalboard_is_measured_as_it_was():
    pytest.importorskip("pedalboard")
    library = next(peer for peer in migration.load() if peer.name == "pedalboard")
    pairs = [pair for pair in migration.PAIRS if pair.library == "pedalboard"]
    for row, before in zip(migration.measure([library], pairs), DOCUMENT["rows"], strict=False):
        for found, known in zip(row["found"], before["found"], strict=True):
            assert found["theirs"] == pytest.approx(known["theirs"], abs=1.0), (row["theirs"], found["quantity"])
