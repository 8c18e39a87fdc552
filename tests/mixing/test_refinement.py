"""Refinement against a waveform: exact where the console can be, and bound by what it may change."""

from __future__ import annotations

import pytest
import torch

import dasp.modules as M
from dasp.mixing import Constraints, DifferentiableMixingConsole
from dasp.mixing.deconvolution import with_impulse_responses
from dasp.mixing.fitting import _scales
from dasp.mixing.refinement import Refinement, Stretch, can_refine
from dasp.mixing.responses import equalizer_response
from dasp.mixing.restarts import restart

RATE = 16000


@pytest.fixture
def tracks():
    draw = torch.Generator().manual_seed(0)
    return list(0.2 * torch.randn(3, 1, 8000, generator=draw))


def refined(console, tracks, hidden, steps, obey=None):
    reference = console(tracks, hidden)
    stretches = [Stretch(tracks, reference, begin, 2000, 1000) for begin in (2000, 5000)]
    start = console.default_controls(len(tracks))
    for section in start:
        start[section] = torch.where(
            console.free(section), 0.9 * hidden[section] + 0.1 * start[section], start[section]
        )
    refinement = Refinement(console, stretches, start, obey or Constraints(console), _scales(console), 1e-5)
    for _ in range(steps):
        refinement.step()
    return start, refinement.controls


def hidden_controls(console, tracks):
    values = console.denormalize(console.default_controls(len(tracks)))
    values["track"]["gain"]["gain_db"] = torch.tensor([-6.0, 3.0, -12.0])
    values["track"]["stereo_panner"]["pan"] = torch.tensor([-0.5, 0.1, 0.9])
    return values


def test_levels_pans_and_a_filter_are_found_exactly(tracks):
    strip = M.Chain(M.Highpass(RATE), M.Gain(RATE), M.StereoPanner(RATE))
    console = DifferentiableMixingConsole(RATE, strip, {}, M.Chain(M.Gain(RATE)), ["master.gain.gain_db"])
    values = hidden_controls(console, tracks)
    values["track"]["highpass"]["frequency_hz"] = torch.tensor([60.0, 300.0, 1500.0])
    hidden = console.normalize(values)
    _, found = refined(console, tracks, hidden, 8)
    torch.testing.assert_close(found["track"], hidden["track"], atol=2e-4, rtol=0)


def test_sends_to_an_impulse_response_are_found_and_to_noise_left_alone(tracks):
    locked = ["track.compressor.*", "track.parametric_eq.*", "master.*"]
    console = DifferentiableMixingConsole(RATE, locked=[*locked, "reverb.*"])
    response = torch.randn(2, 800, generator=torch.Generator().manual_seed(1)) * torch.linspace(1, 0, 800)
    room = with_impulse_responses(console, {"reverb": 0.1 * response})
    sends = torch.tensor([-10.0, -20.0, -5.0])
    for desk, exact in ((room, True), (console, False)):
        values = hidden_controls(desk, tracks)
        values["track"]["send"]["reverb_db"] = sends
        hidden = desk.normalize(values)
        start, found = refined(desk, tracks, hidden, 8)
        place = desk.control_names("track").index("send.reverb_db")
        if exact:
            torch.testing.assert_close(found["track"], hidden["track"], atol=1e-3, rtol=0)
        else:
            assert torch.equal(found["track"][:, place], start["track"][:, place])


def test_what_is_locked_stays_to_the_bit(tracks):
    console = DifferentiableMixingConsole(RATE, buses={}, locked=["track.compressor.makeup_gain_db"])
    obey = Constraints(console, locks={"track.pan": 0.25})
    hidden = console.normalize(hidden_controls(console, tracks))
    _, found = refined(console, tracks, hidden, 2, obey)
    assert (console.denormalize(found)["track"]["stereo_panner"]["pan"] == 0.25).all()
    place = console.control_names("track").index("compressor.makeup_gain_db")
    assert torch.equal(found["track"][:, place], console.default_controls(3)["track"][:, place])


def test_a_tap_before_the_fader_is_not_refined():
    assert can_refine(DifferentiableMixingConsole(RATE))
    assert not can_refine(DifferentiableMixingConsole(RATE, pre_fader=["reverb"]))


def equalized_console():
    strip = M.Chain(M.ParametricEQ(RATE, kinds=("low_shelf", "peaking")), M.Gain(RATE), M.StereoPanner(RATE))
    return DifferentiableMixingConsole(RATE, strip, {}, M.Chain(M.Gain(RATE)), ["master.gain.gain_db"])


def set_equalizer(console, controls, track, frequency_hz, gain_db, q):
    values = console.denormalize(controls)
    for name, value in (("frequency_hz", frequency_hz), ("gain_db", gain_db), ("q", q)):
        values["track"]["parametric_eq"][name][track] = torch.tensor(value)
    return console.normalize(values)


def stuck(tracks, obey=None):
    """A refinement that ends beside the hidden settings: the bell goes down above, where it should go up below."""
    console = equalized_console()
    hidden = set_equalizer(console, console.default_controls(3), 1, [120.0, 900.0], [-6.0, 5.0], [0.7, 1.0])
    start = set_equalizer(console, hidden, 1, [120.0, 6000.0], [-6.0, 4.0], [0.7, 0.3])
    reference = console(tracks, hidden)
    stretches = [Stretch(tracks, reference, begin, 2000, 1000) for begin in (2000, 5000)]
    refinement = Refinement(console, stretches, start, obey or Constraints(console), _scales(console), 1e-5)
    for _ in range(10):
        refinement.step()
    return console, refinement, hidden


def run_restart(console, refinement):
    seen = []
    scales = _scales(console)["track"]
    restart(refinement, console, scales, torch.Generator().manual_seed(0), lambda: seen.append(1))
    assert len(seen) == 3


def test_a_restart_leads_out_of_a_local_minimum(tracks):
    console, refinement, hidden = stuck(tracks)
    before = refinement.cost()
    assert (refinement.controls["track"] - hidden["track"]).abs().max() > 0.1
    run_restart(console, refinement)
    for _ in range(4):
        refinement.step()
    assert refinement.cost() < 0.01 * before
    torch.testing.assert_close(refinement.controls["track"][1], hidden["track"][1], atol=5e-3, rtol=0)


def test_a_restart_obeys_locks(tracks):
    locks = {"b.parametric_eq.q[0]": 0.6}
    console, refinement, _ = stuck(tracks, Constraints(equalized_console(), ["a", "b", "c"], locks))
    before = refinement.controls["track"].clone()
    # Otherwise nothing would be tried.
    assert refinement.unexplained() < 1e-2
    run_restart(console, refinement)
    after = refinement.controls["track"]
    place = console.control_names("track").index("parametric_eq.q[0]")
    assert not torch.equal(after[1], before[1])
    assert after[1, place] == before[1, place]


def test_constraints_of_one_track_are_those_it_has_among_others():
    console = equalized_console()
    obey = Constraints(console, ["a", "b", "c"], {"b.pan": 0.5}, {"b.gain_db": (-6.0, 0.0), "a.gain_db": (-3.0, 3.0)})
    u = console.random_controls(3, torch.Generator().manual_seed(2))
    for track in range(3):
        alone = obey.of_track(track)
        assert torch.equal(alone({"track": u["track"][track : track + 1]})["track"][0], obey(u)["track"][track])
        assert torch.equal(alone.free("track")[0], obey.free("track")[track])


def test_what_is_wanted_of_a_strip_is_the_missing_filter(tracks):
    console = equalized_console()
    hidden = set_equalizer(console, console.default_controls(3), 1, [200.0, 2000.0], [2.0, -2.0], [0.7, 1.0])
    stretches = [Stretch(tracks, console(tracks, hidden), 1000, 6000, 1000)]
    start = console.default_controls(3)
    refinement = Refinement(console, stretches, start, Constraints(console), _scales(console), 1e-5)
    edges = torch.tensor([100.0, 140.0, 700.0, 900.0, 1900.0, 2100.0], dtype=torch.float64)
    factor, power = refinement.alone(1).wanted(edges)
    controls = {name: value[1] for name, value in console.denormalize(hidden)["track"]["parametric_eq"].items()}
    centre = (edges[1:] * edges[:-1]).sqrt()
    true = equalizer_response(("low_shelf", "peaking"), controls, RATE, centre)
    assert (power > 0).all()
    # The other tracks are noise of the same level: what they have in common with this one is a few per cent.
    assert ((factor[0] - true).abs()[[0, 2, 4]] < 0.1).all()
    assert (true - 1).abs()[[0, 4]].min() > 0.15


def test_the_refinement_of_one_track_is_that_of_the_mix(tracks):
    _, refinement, _ = stuck(tracks)
    alone = refinement.alone(1)
    assert alone.cost() <= refinement.cost()
    torch.testing.assert_close(alone.unexplained(), refinement.unexplained(), rtol=1e-4, atol=0)
    moved = {**alone.controls, "track": alone.controls["track"] + 0.01}
    whole = refinement.controls["track"].clone()
    whole[1] = moved["track"][0]
    change = refinement.cost({**refinement.controls, "track": whole}) - refinement.cost()
    assert alone.cost(moved) - alone.cost() == pytest.approx(change, rel=1e-3)
