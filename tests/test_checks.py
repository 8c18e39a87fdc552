"""Broadcasting of controls against audio, messages, and value checks in debug mode."""

from __future__ import annotations

import math

import pytest
import torch

import dasp
import dasp.functional as F
from dasp._checks import control

X = torch.zeros(4, 3, 2, 50)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), (1, 1)),
        ((3,), (3, 1, 1)),
        ((1,), (1, 1, 1)),
        ((4, 3), (4, 3, 1, 1)),
        ((4, 1), (4, 1, 1, 1)),
        ((4, 3, 2), (4, 3, 2, 1)),
        ((4, 3, 1), (4, 3, 1, 1)),
        ((4, 3, 2, 50), (4, 3, 2, 50)),
        ((1, 1, 1, 50), (1, 1, 1, 50)),
    ],
)
def test_a_control_is_per_item_then_per_channel_then_per_sample(shape, expected):
    assert control("gain", "gain_db", torch.zeros(shape), X).shape == expected


def test_bands_come_last():
    values = control("parametric_eq", "q", torch.ones(4, 3, 6), X, size=6)
    assert values.shape == (4, 3, 1, 1, 6)
    assert control("parametric_eq", "q", 0.5, X, size=6).shape == (1, 1, 6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: F.compressor(torch.zeros(2, 1, 100), 44100, ratio=torch.ones(3)),
            r"compressor: ratio has shape \(3,\), expected \(\) or \(2,\) or \(2, 1\) or \(2, 1, 100\) "
            r"to match x of shape \(2, 1, 100\)",
        ),
        (
            lambda: F.noise_shaped_reverb(torch.zeros(2, 1, 100), 44100, mix=torch.ones(2, 1, 100)),
            r"mix has shape \(2, 1, 100\); a value for every sample \(automation\) is not supported",
        ),
        (
            lambda: F.gain(torch.zeros(2, 100), 44100, torch.zeros(3)),
            r"gain: gain_db has shape \(3,\), expected \(\) or \(2,\) or \(2, 100\) to match x of shape \(2, 100\)",
        ),
        (
            lambda: F.parametric_eq(torch.zeros(2, 1, 100), 44100, gain_db=[1.0, 2.0]),
            r"parametric_eq: gain_db has shape \(2,\), expected \(6,\) or \(2, 6\) or \(2, 1, 6\)",
        ),
        (
            lambda: F.gain(torch.zeros(100), 44100),
            r"x has shape \(100,\), expected \(\*batch, channels, samples\)",
        ),
        (lambda: F.gain(torch.zeros(0, 100), 44100), "expected at least one channel"),
        (lambda: F.gain(torch.zeros(1, 100), -1), "gain: sample_rate is -1, expected a finite number above 0"),
        (lambda: F.gain(torch.zeros(1, 100), math.nan), "sample_rate is nan"),
        (lambda: F.stereo_widener(torch.zeros(1, 100), 44100), r"x has shape \(1, 100\), expected 2 channel"),
        (lambda: F.distortion(torch.zeros(1, 100), 44100, curve="fuzz"), "curve is 'fuzz', expected one of 'tanh'"),
    ],
)
def test_a_wrong_shape_or_value_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.gain(torch.zeros(1, 100, dtype=torch.int16), 44100), r"gain: x has type torch.int16"),
        (lambda: F.gain(torch.zeros(1, 100, dtype=torch.complex64), 44100), "x has type torch.complex64"),
        (lambda: F.gain([0.0], 44100), "x is a list, expected a torch.Tensor"),
        (lambda: F.gain(torch.zeros(1, 100), "44100"), "sample_rate is a str"),
        (lambda: F.gain(torch.zeros(1, 100), torch.tensor(44100.0)), "sample_rate is a Tensor"),
        (lambda: F.gain(torch.zeros(1, 100), 44100, "loud"), "gain_db is 'loud', expected a number or a tensor"),
        (lambda: F.gain(torch.zeros(1, 100), 44100, torch.zeros(1, dtype=torch.complex64)), "expected real numbers"),
    ],
)
def test_a_wrong_kind_is_named(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_values_are_checked_in_debug_mode_only():
    bad = torch.tensor([[0.0, math.nan]])
    F.gain(bad, 44100)
    F.compressor(torch.zeros(1, 10), 44100, ratio=0.5)
    with dasp.debug():
        with pytest.raises(ValueError, match="gain: x has NaN or infinite samples"):
            F.gain(bad, 44100)
        with pytest.raises(ValueError, match=r"compressor: ratio has values outside \[1, inf\] or NaN"):
            F.compressor(torch.zeros(1, 10), 44100, ratio=0.5)
        with pytest.raises(ValueError, match="attack_ms has values outside"):
            F.compressor(torch.zeros(1, 10), 44100, attack_ms=torch.tensor(math.nan))
        F.compressor(torch.zeros(1, 10), 44100, ratio=math.inf, attack_ms=0.0)
    F.gain(bad, 44100)
