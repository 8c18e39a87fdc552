"""Words for what a mix does, and strips by name."""

from __future__ import annotations

import pytest
import torch

from dasp.mixing import DifferentiableMixingConsole
from dasp.mixing.presets import named_strip
from dasp.mixing.summary import summarize

RATE = 16000


def test_a_line_says_level_position_equaliser_compressor_and_send():
    console = DifferentiableMixingConsole(RATE)
    values = console.denormalize(console.default_controls(2))
    track = values["track"]
    track["gain"]["gain_db"] = torch.tensor([-3.25, 2.0])
    track["stereo_panner"]["pan"] = torch.tensor([-0.5, 0.0])
    track["parametric_eq"]["gain_db"][0] = torch.tensor([-4.0, 0.0, 3.1, 0.0])
    track["parametric_eq"]["frequency_hz"][0, 2] = 2400.0
    # A constant at 0 dB, 20 dB above the threshold: at 4:1 it comes down by 15 dB.
    for control, value in (("threshold_db", -20.0), ("ratio", 4.0), ("attack_ms", 0.1), ("knee_db", 0.0)):
        track["compressor"][control][1] = value
    track["send"]["reverb_db"] = torch.tensor([-60.0, -18.0])
    lines = summarize(console, console.normalize(values), ["kick", "voice 2"], [torch.ones(1, RATE)] * 2)
    assert lines[0] == "kick     -3.2 dB, 50 % left; EQ -4.0 dB below 100 Hz, +3.1 dB around 2.4 kHz"
    assert lines[1] == "voice 2  +2.0 dB, centre; 4.0:1 above -20 dB, 15.0 dB on average; reverb -18 dB"
    assert lines[2] == "master   nothing"


def test_strips_are_named_in_order_and_end_in_fader_and_panner():
    strip = named_strip(["highpass", "comp", "equalizer"], RATE)
    assert list(strip.stages()) == ["highpass", "compressor", "parametric_eq", "gain", "stereo_panner"]
    assert list(named_strip(["eq", "comp", "pan"], RATE).stages())[-2:] == ["gain", "stereo_panner"]
    assert list(named_strip(["fader", "gate"], RATE).stages()) == ["gain", "expander", "stereo_panner"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "strip is empty, expected some of eq, comp"),
        (["compp"], "strip: 'compp' is unknown, did you mean comp"),
    ],
)
def test_unknown_strips_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        named_strip(names, RATE)
