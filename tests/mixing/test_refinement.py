"""Refinement against a waveform: exact where the console can be, and bound by what it may change."""

from __future__ import annotations

import pytest
import torch

import dasp.modules as M
from dasp.mixing import Constraints, DifferentiableMixingConsole
from dasp.mixing.deconvolution import with_impulse_responses
from dasp.mixing.fitting import _scales
from dasp.mixing.refinement import Refinement, Stretch, can_refine

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
