"""Gain, polarity and the stereo bus against their closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import dasp.functional as F
from tests.oracles import ROUNDING_32, ROUNDING_64, array, noise, relative_error

LEVELS_DB = np.linspace(-60, 24, 85)


def audio(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.from_numpy(noise(0, *shape)).to(dtype)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, ROUNDING_32), (torch.float64, ROUNDING_64)])
def test_gain_is_10_to_the_twentieth(dtype, rounding):
    x = audio(len(LEVELS_DB), 1, 64, dtype=dtype)
    y = F.gain(x, 44100, torch.from_numpy(LEVELS_DB).to(dtype))
    want = array(x) * (10 ** (LEVELS_DB / 20))[:, None, None]
    # The exponent 60 / 20 ln 10 = 6.9 carries two roundings, the power and the product one each, and one to spare.
    bound = (2 * 6.9 + 3) * rounding
    assert (np.abs(array(y) - want) <= bound * np.abs(want)).all()


def test_gain_of_0_db_is_bit_equal():
    x = audio(2, 100, dtype=torch.float32)
    assert torch.equal(F.gain(x, 44100, 0.0), x)


def test_gain_of_minus_infinity_silences_and_has_a_finite_gradient():
    x = audio(2, 100).requires_grad_()
    level = torch.tensor(-math.inf, dtype=torch.float64, requires_grad=True)
    y = F.gain(x, 44100, level)
    y.sum().backward()
    assert torch.equal(y, torch.zeros_like(y))
    assert torch.equal(level.grad, torch.zeros_like(level))


def test_gains_in_db_add():
    x = audio(2, 100)
    twice = F.gain(F.gain(x, 44100, 3.7), 44100, -9.1)
    assert relative_error(twice, array(F.gain(x, 44100, 3.7 - 9.1))) <= 8 * ROUNDING_64


def test_gain_follows_automation():
    x, curve = audio(3, 2, 50), torch.from_numpy(noise(1, 3, 1, 50)) * 6
    want = array(x) * 10 ** (array(curve) / 20)
    assert relative_error(F.gain(x, 44100, curve), want) <= 8 * ROUNDING_64


def test_gain_gradient_is_ln_10_over_20_times_the_output():
    x = audio(2, 100)
    level = torch.tensor(-4.2, dtype=torch.float64, requires_grad=True)
    y = F.gain(x, 44100, level)
    (slope,) = torch.autograd.grad(y.sum(), level)
    assert slope.item() == pytest.approx(math.log(10) / 20 * y.sum().item(), rel=1e-14)


def test_polarity_at_its_ends_is_exact():
    x = audio(2, 100, dtype=torch.float32)
    assert torch.equal(F.polarity(x, 44100, 0.0), x)
    assert torch.equal(F.polarity(x, 44100, 1.0), -x)
    assert torch.equal(F.polarity(F.polarity(x, 44100, 1.0), 44100, 1.0), x)


def test_polarity_blends_linearly():
    x, share = audio(11, 1, 100), torch.linspace(0, 1, 11, dtype=torch.float64)
    want = array(x) * (1 - 2 * array(share))[:, None, None]
    assert relative_error(F.polarity(x, 44100, share), want) <= 2 * ROUNDING_64
    assert torch.equal(F.polarity(x, 44100, 0.5), torch.zeros_like(x))


@pytest.mark.parametrize("tracks", [1, 2, 7])
def test_bus_is_the_weighted_sum_of_tracks(tracks):
    x, send = audio(3, tracks, 2, 50), torch.from_numpy(noise(1, 3, tracks)) * 12
    want = np.zeros((3, 2, 50))
    for item in range(3):
        for track in range(tracks):
            want[item] += array(x)[item, track] * 10 ** (array(send)[item, track] / 20)
    # Each product carries 4 roundings, each of the sums one more.
    assert relative_error(F.stereo_bus(x, 44100, send), want) <= (4 + tracks) * 4 * ROUNDING_64


def test_bus_leaves_out_tracks_sent_at_minus_infinity():
    x = audio(3, 2, 50)
    send = torch.tensor([0.0, -math.inf, 0.0], dtype=torch.float64, requires_grad=True)
    y = F.stereo_bus(x, 44100, send)
    assert torch.equal(y, x[0] + x[2])
    y.sum().backward()
    assert torch.isfinite(send.grad).all()


def test_bus_of_permuted_tracks_is_the_same():
    x, send = audio(5, 2, 50), torch.from_numpy(noise(1, 5)) * 12
    order = [3, 0, 4, 1, 2]
    want = array(F.stereo_bus(x, 44100, send))
    assert relative_error(F.stereo_bus(x[order], 44100, send[order]), want) <= 16 * ROUNDING_64


def test_bus_of_one_track_at_0_db_is_that_track():
    x = audio(4, 1, 2, 50, dtype=torch.float32)
    assert torch.equal(F.stereo_bus(x, 44100), x[:, 0])


def test_bus_without_a_dimension_of_tracks_names_the_cure():
    with pytest.raises(ValueError, match=r"stereo_bus: x has shape \(2, 50\), expected \(\*batch, tracks, .*x\[None\]"):
        F.stereo_bus(audio(2, 50), 44100)


def test_gain_per_channel_needs_a_dimension_of_channels():
    y = F.gain(torch.ones(4, 2, 3), 44100, torch.tensor([[0.0, 20.0]]))
    assert torch.equal(y[:, 0], torch.ones(4, 3))
    assert torch.allclose(y[:, 1], torch.full((4, 3), 10.0), rtol=4 * ROUNDING_32)
    with pytest.raises(ValueError, match=r"gain: gain_db has shape \(2,\), expected \(\) or \(4,\) or \(4, 2\)"):
        F.gain(torch.ones(4, 2, 3), 44100, torch.tensor([0.0, 20.0]))
