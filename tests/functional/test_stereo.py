"""Panner and widener against their closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dasp.functional as F
from dasp.functional.stereo import LAWS, centre_gain
from tests.oracles import ROUNDING_32, ROUNDING_64, array, decibels, noise, relative_error

GRID = torch.linspace(-1, 1, 1001, dtype=torch.float64)


def gains(pan: torch.Tensor, law: str) -> torch.Tensor:
    """`(settings, 2)`: what a constant 1 becomes."""
    return F.stereo_panner(torch.ones(len(pan), 1, 1, dtype=pan.dtype), 44100, pan, law)[..., 0]


def closed_form(pan: np.ndarray, law: str) -> np.ndarray:
    theta = (pan + 1) * math.pi / 4
    power = np.stack([np.cos(theta), np.sin(theta)], -1)
    linear = np.stack([(1 - pan) / 2, (1 + pan) / 2], -1)
    if law == "-4.5dB":
        return np.sqrt(np.maximum(power, 0) * linear)
    return {"constant_power": power, "linear": linear}[law]


@pytest.mark.parametrize("law", LAWS)
def test_gains_are_the_closed_form(law):
    assert np.abs(array(gains(GRID, law)) - closed_form(array(GRID), law)).max() <= 8 * ROUNDING_64


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-7), (torch.float64, 1e-15)])
def test_constant_power_keeps_the_power(dtype, bound):
    # Each gain is rounded once and its argument once, squares add: at most 4 roundings.
    power = array(gains(GRID.to(dtype), "constant_power")) ** 2
    assert np.abs(power.sum(-1) - 1).max() <= max(bound, 4 * (ROUNDING_32 if dtype == torch.float32 else ROUNDING_64))


def test_linear_keeps_the_sum():
    assert np.abs(array(gains(GRID, "linear")).sum(-1) - 1).max() <= 2 * ROUNDING_64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("law", LAWS)
def test_gains_at_the_ends_are_exactly_1_and_0(law, dtype):
    assert gains(torch.tensor([-1.0, 1.0], dtype=dtype), law).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("law", "level_db"),
    [("constant_power", 10 * math.log10(0.5)), ("linear", 20 * math.log10(0.5)), ("-4.5dB", 15 * math.log10(0.5))],
)
def test_level_at_the_centre(law, level_db):
    # -3.01, -6.02 and -4.52 dB.
    centre = decibels(array(gains(torch.zeros(1, dtype=torch.float64), law)))
    assert centre == pytest.approx(np.full((1, 2), level_db), abs=1e-12)


@pytest.mark.parametrize("law", LAWS)
def test_left_and_right_mirror(law):
    assert torch.equal(gains(-GRID, law), gains(GRID, law).flip(-1))


@pytest.mark.parametrize("law", LAWS)
def test_gradients_are_finite_at_the_ends_and_of_the_right_size(law):
    pan = torch.tensor([-1.0, -0.3, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    for side in (0, 1):
        (slope,) = torch.autograd.grad(gains(pan, law)[:, side].sum(), pan)
        assert bool(slope.isfinite().all())
        h = 1e-6
        inside = [-1 + h, -0.3, 0.0, 1 - h]
        ends = [closed_form(np.clip(np.array(inside) + sign * h, -1, 1), law)[:, side] for sign in (1, -1)]
        # Central differences of step 1e-6 round to 1e-10; one step away from the ends the slope has bent by some 4e-6.
        assert np.abs(array(slope) - (ends[0] - ends[1]) / (2 * h)).max() <= 1e-5


@pytest.mark.parametrize("law", LAWS)
def test_a_stereo_signal_is_balanced_with_the_gains_of_a_mono_one(law):
    x = torch.from_numpy(noise(0, 5, 1, 64))
    pan = torch.linspace(-1, 1, 5, dtype=torch.float64)
    mono = F.stereo_panner(x, 44100, pan, law)
    assert torch.equal(F.stereo_panner(x.expand(-1, 2, -1), 44100, pan, law), mono)


def test_pan_follows_automation():
    x, pan = torch.from_numpy(noise(0, 1, 1001)), GRID.expand(1, 1001)
    want = array(x) * closed_form(array(GRID), "constant_power").T
    assert relative_error(F.stereo_panner(x, 44100, pan), want) <= 8 * ROUNDING_64


def test_pan_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"stereo_panner: law is '-3dB', expected one of 'constant_power', 'linear'"):
        F.stereo_panner(torch.zeros(1, 4), 44100, law="-3dB")
    with pytest.raises(ValueError, match=r"stereo_panner: x has shape \(3, 4\), expected 1 or 2 channel\(s\)"):
        F.stereo_panner(torch.zeros(3, 4), 44100)


def stereo(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.from_numpy(noise(0, 3, 2, 200)).to(dtype)


def test_width_1_leaves_audio_alone():
    # The halves of sum and difference are exact; their sum is rounded at most twice.
    for dtype, rounding in [(torch.float32, ROUNDING_32), (torch.float64, ROUNDING_64)]:
        x = stereo(dtype)
        assert relative_error(F.stereo_widener(x, 44100, 1.0), array(x)) <= 2 * rounding


def test_width_0_is_mono():
    x = stereo()
    y = F.stereo_widener(x, 44100, 0.0)
    assert torch.equal(y[:, 0], y[:, 1])
    assert torch.equal(y[:, 0], (x[:, 0] + x[:, 1]) / 2)


def test_width_2_doubles_the_side():
    x = stereo()
    y = F.stereo_widener(x, 44100, 2.0)
    assert relative_error(y[:, 0] - y[:, 1], 2 * array(x[:, 0] - x[:, 1])) <= 8 * ROUNDING_64


@given(width=st.floats(-4, 4))
def test_widener_is_the_side_scaled_between_two_matrices(width):
    # Mid and side as an orthogonal pair, which is another way to write the same.
    x, matrix = array(stereo()), np.array([[1, 1], [1, -1]]) / math.sqrt(2)
    want = np.einsum("ij,j,jk,bkt->bit", matrix, [1, width], matrix, x)
    bound = 8 * ROUNDING_64 * (1 + abs(width))
    assert np.abs(array(F.stereo_widener(stereo(), 44100, width)) - want).max() <= bound * np.abs(x).max()


@pytest.mark.parametrize("width", [0.0, 0.5, 1.0, 2.0, 7.0])
def test_mono_sum_is_unchanged(width):
    x = stereo()
    y = F.stereo_widener(x, 44100, width)
    bound = 8 * ROUNDING_64 * (1 + width) * float(x.abs().max())
    assert np.abs(array(y.sum(-2)) - array(x.sum(-2))).max() <= bound


def test_widths_multiply():
    x = stereo()
    twice = F.stereo_widener(F.stereo_widener(x, 44100, 0.5), 44100, 2.0)
    assert relative_error(twice, array(x)) <= 8 * ROUNDING_64


def test_mono_has_no_width():
    x = stereo()[:, :1].expand(-1, 2, -1)
    assert torch.equal(F.stereo_widener(x, 44100, 2.0), x)


def test_widener_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"stereo_widener: x has shape \(1, 4\), expected 2 channel\(s\)"):
        F.stereo_widener(torch.zeros(1, 4), 44100)
    with pytest.raises(ValueError, match=r"stereo_widener: width has shape .*expected one value for both channels"):
        F.stereo_widener(torch.zeros(3, 2, 4), 44100, torch.ones(3, 2))


def test_the_gain_at_the_centre_is_that_of_the_law():
    for law in LAWS:
        y = F.stereo_panner(torch.ones(1, 1, dtype=torch.float64), 44100, law=law)
        assert abs(float(y[0, 0]) - centre_gain(law)) <= 1e-15
