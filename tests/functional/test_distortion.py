"""Waveshapers against their closed forms and the spectra that follow from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dasp.functional as F
from dasp.functional.distortion import CURVES
from tests.oracles import ROUNDING_64, array, noise, relative_error, tone

PERIOD = 64


def closed_form(curve: str, u: np.ndarray) -> np.ndarray:
    if curve == "tanh":
        return 1 - 2 / (np.exp(np.minimum(2 * u, 100)) + 1)
    if curve == "hard":
        return np.sign(u) * np.minimum(np.abs(u), 1)
    return np.where(np.abs(u) < 1.5, u - 4 * u**3 / 27, np.sign(u))


def harmonics(curve: str, drive_db: float, amplitude: float) -> np.ndarray:
    """Amplitudes of the harmonics of a sine, from the constant on."""
    x = tone(1, PERIOD, PERIOD, amplitude)
    y = array(F.distortion(torch.from_numpy(x)[None], 44100, drive_db, curve))[0]
    return np.abs(np.fft.rfft(y)) * 2 / PERIOD


@pytest.mark.parametrize("curve", CURVES)
def test_curve_is_its_closed_form(curve):
    x = torch.linspace(-3, 3, 1001, dtype=torch.float64)[None]
    for drive_db in (-12.0, 0.0, 9.0, 48.0):
        want = closed_form(curve, array(x) * 10 ** (drive_db / 20))
        # The closed form of tanh subtracts from 1, and the argument of up to 750 carries a rounding or two.
        assert np.abs(array(F.distortion(x, 44100, drive_db, curve)) - want).max() <= 16 * ROUNDING_64


@pytest.mark.parametrize("curve", CURVES)
def test_curve_is_odd_to_the_bit(curve):
    x = torch.from_numpy(noise(0, 2, 1000)).float()
    assert torch.equal(F.distortion(-x, 44100, 20.0, curve), -F.distortion(x, 44100, 20.0, curve))


@given(
    x=st.floats(width=32, allow_nan=False), drive_db=st.floats(-60, 60), curve=st.sampled_from(CURVES),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)  # fmt: skip
def test_output_is_within_1(x, drive_db, curve, dtype):
    y = F.distortion(torch.tensor([[x]], dtype=dtype), 44100, drive_db, curve).abs().item()
    assert y <= 1 + 1e-7


@pytest.mark.parametrize("curve", CURVES)
def test_louder_in_is_never_quieter_out(curve):
    y = F.distortion(torch.linspace(-4, 4, 4001)[None], 44100, 6.0, curve)
    assert bool((y.diff() >= -1e-7).all())


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("drive_db", [0.0, 12.0, 48.0])
def test_gain_of_quiet_audio_is_the_drive(curve, drive_db):
    x = torch.from_numpy(noise(0, 1, 100)) * 1e-8
    drive = 10 ** (drive_db / 20)
    # The cubic term is u^2 / 3 of the linear one, with u up to 3e-8 times the drive.
    bound = (3e-8 * drive) ** 2 / 3 + 16 * ROUNDING_64
    assert relative_error(F.distortion(x, 44100, drive_db, curve), drive * array(x)) <= bound


@pytest.mark.parametrize("curve", CURVES)
def test_slope_at_the_origin_is_the_drive(curve):
    x = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(F.distortion(x, 44100, 20.0, curve).sum(), x)
    assert slope.item() == pytest.approx(10, rel=1e-14)


@pytest.mark.parametrize("curve", CURVES)
def test_a_sine_gets_odd_harmonics_only(curve):
    spectrum = harmonics(curve, 12.0, 0.7)
    assert spectrum[::2].max() <= 4 * ROUNDING_64 * PERIOD
    assert spectrum[3] > 0.01


def test_soft_cubic_adds_a_third_harmonic_of_a_cubed_over_27():
    # sin^3 = (3 sin - sin 3) / 4, so that 4 / 27 of the cube of an amplitude a gives a^3 / 27.
    spectrum = harmonics("soft_cubic", 0.0, 1.2)
    assert spectrum[3] == pytest.approx(1.2**3 / 27, abs=1e-14)
    assert spectrum[1] == pytest.approx(1.2 - 1.2**3 / 9, abs=1e-14)
    assert np.delete(spectrum, [1, 3]).max() <= 4 * ROUNDING_64 * PERIOD


def test_hard_clipping_at_high_drive_is_a_square_wave():
    # At 200 dB the zero crossings, 1e-16 in a computed sine, stay below 2e-6, and all else is clipped.
    spectrum = harmonics("hard", 200.0, 1.0)
    square = np.sign(np.round(tone(1, PERIOD, PERIOD), 12))
    assert np.abs(spectrum - np.abs(np.fft.rfft(square)) * 2 / PERIOD).max() <= 2e-6
    assert spectrum[1] == pytest.approx(4 / math.pi, rel=0.01)


def test_soft_cubic_meets_its_ceiling_with_slope_0():
    x = torch.tensor([[1.5 - 1e-7, 1.5, 1.5 + 1e-7]], dtype=torch.float64, requires_grad=True)
    y = F.distortion(x, 44100, 0.0, "soft_cubic")
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert y.tolist() == [pytest.approx([1, 1, 1], abs=1e-13)]
    assert slope.abs().max() <= 2e-7


@pytest.mark.parametrize("curve", CURVES)
def test_gradients_are_finite_at_every_extreme(curve):
    x = torch.tensor([[0.0, 1.0, -1.0, 1.5, 1e-30, 1e30, -1e30]], requires_grad=True)
    drive_db = torch.tensor(48.0, requires_grad=True)
    slopes = torch.autograd.grad(F.distortion(x, 44100, drive_db, curve).sum(), (x, drive_db))
    assert all(bool(slope.isfinite().all()) for slope in slopes)


def test_drive_follows_automation():
    x, drive_db = torch.from_numpy(noise(0, 2, 50)), torch.linspace(0, 24, 50, dtype=torch.float64)
    want = np.tanh(array(x) * 10 ** (array(drive_db) / 20))
    assert relative_error(F.distortion(x, 44100, drive_db.expand(2, 50)), want) <= 16 * ROUNDING_64


def test_unknown_curve_is_named():
    with pytest.raises(ValueError, match=r"distortion: curve is 'fuzz', expected one of 'tanh', 'hard', 'soft_cubic'"):
        F.distortion(torch.zeros(1, 4), 44100, curve="fuzz")
