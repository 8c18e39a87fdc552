"""The parametric equaliser against a cascade of filters by scipy.signal, designed by the Audio EQ Cookbook."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal
import torch

import dasp.functional as F
from dasp.functional.filters import KINDS
from tests.oracles import array, cookbook, decibels, noise, relative_error

SAMPLE_RATES = (8000, 22050, 44100, 48000, 96000, 192000)
SIX_BANDS = ("low_shelf", "peaking", "peaking", "peaking", "peaking", "high_shelf")
# Frequency, gain and Q of each band as one would set them by ear.
MUSICAL = (80.0, 300.0, 900.0, 2500.0, 6000.0, 12000.0), (3, -4, 5, -6, 7, -8), (0.7, 1, 2, 3, 4, 0.7)


def settings(seed: int, bands: int, sample_rate: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frequency, gain and Q of each band over everything that an equaliser is used for."""
    rng = np.random.default_rng(seed)
    frequency_hz = np.exp(rng.uniform(math.log(10), math.log(0.49 * sample_rate), bands))
    return frequency_hz, rng.uniform(-24, 24, bands), np.exp(rng.uniform(math.log(0.1), math.log(40), bands))


def oracle(x, sample_rate, kinds, frequency_hz, gain_db, q):
    rows = zip(kinds, frequency_hz, gain_db, q, strict=True)
    return scipy.signal.sosfilt(np.array([cookbook(kind, sample_rate, f, gain, w) for kind, f, gain, w in rows]), x)


def test_float32_audio_is_equalised_to_minus_140_db():
    # One rounding of the output is -144.5 dB of its peak; coefficients and state are in float64.
    worst = -math.inf
    for seed in range(60):
        sample_rate = SAMPLE_RATES[seed % len(SAMPLE_RATES)]
        controls = settings(seed, 6, sample_rate)
        x = torch.from_numpy(noise(seed, 1, 48000)).float()
        y = F.parametric_eq(x, sample_rate, *(torch.from_numpy(value) for value in controls))
        worst = max(worst, float(decibels(relative_error(y, oracle(array(x), sample_rate, SIX_BANDS, *controls)))))
    assert worst <= -140


def test_float64_audio_is_equalised_to_12_digits():
    # From 1 kHz at 44.1 kHz, w^2 = 0.02: rounding of coefficients and state costs few digits there (see test_filters).
    for seed in range(20):
        frequency_hz, gain_db, q = settings(seed, 6, 44100)
        frequency_hz, q = np.maximum(frequency_hz, 1000), np.minimum(q, 4)
        x = noise(seed, 1, 4800)
        y = F.parametric_eq(torch.from_numpy(x), 44100, *map(torch.from_numpy, (frequency_hz, gain_db, q)))
        assert relative_error(y, oracle(x, 44100, SIX_BANDS, frequency_hz, gain_db, q)) <= 1e-12


@pytest.mark.parametrize("bands", [1, 2, 3, 8, 31])
def test_any_number_of_bands_of_any_kind(bands):
    kinds = [KINDS[index % len(KINDS)] for index in range(bands)]
    controls = settings(bands, bands, 44100)
    x = torch.from_numpy(noise(0, 2, 2000)).float()
    y = F.parametric_eq(x, 44100, *map(torch.from_numpy, controls), kinds=kinds)
    want = oracle(array(x), 44100, kinds, *controls)
    assert decibels(relative_error(y, want)) <= -140


def test_one_band_is_that_filter():
    x = torch.from_numpy(noise(0, 2, 500))
    y = F.parametric_eq(x, 44100, [700.0], [5.0], [1.2], kinds=("peaking",))
    assert torch.equal(y, F.peaking(x, 44100, 700.0, 5.0, 1.2))


def test_equaliser_is_a_cascade_of_its_bands():
    x = torch.from_numpy(noise(0, 2, 500))
    y = x
    for kind, *controls in zip(SIX_BANDS, *MUSICAL, strict=True):
        y = getattr(F, kind)(y, 44100, *controls)
    assert relative_error(F.parametric_eq(x, 44100, *MUSICAL), array(y)) <= 1e-13


def test_order_of_bands_does_not_matter():
    x, order = torch.from_numpy(noise(0, 2, 500)), [4, 0, 5, 2, 3, 1]
    controls = [np.maximum(value, 0.2) if index != 1 else value for index, value in enumerate(settings(3, 6, 44100))]
    controls[0] = np.maximum(controls[0], 1000)
    y = F.parametric_eq(x, 44100, *map(torch.from_numpy, controls))
    permuted = (torch.from_numpy(value[order]) for value in controls)
    z = F.parametric_eq(x, 44100, *permuted, kinds=[SIX_BANDS[band] for band in order])
    assert relative_error(z, array(y)) <= 1e-11


def test_gain_at_the_centre_of_a_band_is_the_product_of_all_responses():
    impulse = torch.zeros(1, 1 << 16, dtype=torch.float64)
    impulse[0, 0] = 1
    spectrum = np.fft.rfft(array(F.parametric_eq(impulse, 44100, *MUSICAL))[0])
    points = torch.fft.rfftfreq(1 << 16, 1 / 44100, dtype=torch.float64)
    sos = torch.stack([F.biquad(*row) for row in zip(SIX_BANDS, [44100] * 6, *MUSICAL, strict=True)])
    # The response of the lowest band, of time constant 3 ms, has died away after 1.5 s.
    assert np.abs(decibels(np.abs(spectrum)) - decibels(array(F.sosfreqz(sos, points, 44100).abs()))).max() <= 1e-9


def test_flat_at_its_defaults():
    x = torch.from_numpy(noise(0, 2, 2000)).float()
    assert torch.equal(F.parametric_eq(x, 44100), x)


def test_bands_without_a_gain_ignore_it():
    x = torch.from_numpy(noise(0, 1, 500))
    gain_db = torch.tensor([9.0, -3.0, 5.0], dtype=torch.float64, requires_grad=True)
    kinds = ("highpass", "peaking", "notch")
    y = F.parametric_eq(x, 44100, [50.0, 900.0, 4000.0], gain_db, 1.0, kinds=kinds)
    assert torch.equal(y, F.parametric_eq(x, 44100, [50.0, 900.0, 4000.0], [0.0, -3.0, 0.0], 1.0, kinds=kinds))
    (slope,) = torch.autograd.grad(y.square().sum(), gain_db)
    assert slope[0] == 0
    assert slope[1] != 0
    assert slope[2] == 0


def test_settings_per_item_and_per_channel():
    x = torch.from_numpy(noise(0, 3, 2, 400))
    frequency_hz = torch.from_numpy(np.stack([settings(seed, 6, 44100)[0] for seed in range(6)])).clamp_min(500)
    gain_db = torch.from_numpy(np.stack([settings(seed, 6, 44100)[1] for seed in range(3)]))
    per_channel = frequency_hz.reshape(3, 2, 6)
    y = F.parametric_eq(x, 44100, per_channel, gain_db, 1.0)
    for item in range(3):
        for channel in range(2):
            row = x[item, channel : channel + 1]
            want = F.parametric_eq(row, 44100, per_channel[item, channel], gain_db[item], 1.0)
            assert relative_error(y[item, channel : channel + 1], array(want)) <= 1e-13


def test_errors_name_the_argument_and_its_shapes():
    x = torch.zeros(4, 2, 100)
    with pytest.raises(ValueError, match=r"gain_db has shape \(5,\), expected \(6,\) or \(4, 6\) or \(4, 2, 6\)"):
        F.parametric_eq(x, 44100, gain_db=torch.zeros(5))
    with pytest.raises(ValueError, match=r"parametric_eq: frequency_hz has shape \(6,\), expected \(2,\)"):
        F.parametric_eq(x, 44100, kinds=("peaking", "peaking"))
    with pytest.raises(ValueError, match=r"parametric_eq: kinds is 'bell', expected one of 'lowpass'"):
        F.parametric_eq(x, 44100, kinds=("bell",))
    with pytest.raises(ValueError, match=r"parametric_eq: kinds is empty, expected at least one band"):
        F.parametric_eq(x, 44100, 100.0, 0.0, 1.0, kinds=())
    with pytest.raises(ValueError, match=r"gain_db has shape \(4, 2, 99, 6\), expected .* or \(4, 2, 100, 6\) "):
        F.parametric_eq(x, 44100, gain_db=torch.zeros(4, 2, 99, 6))
