"""Features of a mix against numpy and closed forms, and that each tells of its own effect."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import dasp.functional as F
from dasp.mixing import bark_spectrum_db, crest_factor_db, rms_db, stereo_imbalance, stereo_width

RATE = 16000
STEREO = [stereo_width, stereo_imbalance, bark_spectrum_db]
FEATURES = [rms_db, crest_factor_db, *STEREO]


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(0.1).to(dtype)


def test_levels_match_numpy():
    x = noise(3, 2, 5000)
    rms = np.sqrt((x.numpy() ** 2).mean(-1))
    np.testing.assert_allclose(rms_db(x, RATE), 20 * np.log10(rms), rtol=1e-12)
    np.testing.assert_allclose(crest_factor_db(x, RATE), 20 * np.log10(np.abs(x.numpy()).max(-1) / rms), rtol=1e-12)


def test_stereo_features_match_numpy():
    x = noise(3, 2, 5000) + noise(3, 1, 5000, seed=1) * torch.tensor([[1.0], [0.3]])
    left, right = np.moveaxis(x.numpy(), -2, 0)
    width = ((left - right) ** 2).mean(-1) / ((left + right) ** 2).mean(-1)
    np.testing.assert_allclose(stereo_width(x, RATE), width, rtol=1e-12)
    difference, total = (right**2 - left**2).sum(-1), (right**2 + left**2).sum(-1)
    np.testing.assert_allclose(stereo_imbalance(x, RATE), difference / total, rtol=1e-12)


def test_imbalance_of_a_panned_source():
    pan = torch.linspace(-1, 1, 9, dtype=torch.float64)
    x = F.stereo_panner(noise(9, 1, 1000), RATE, pan)
    # The powers of the constant-power law are cos^2 and sin^2 of (pan + 1) pi / 4.
    torch.testing.assert_close(stereo_imbalance(x, RATE), torch.sin(pan * math.pi / 2), rtol=0, atol=1e-12)


def test_width_follows_the_widener():
    x = noise(2, 1000)
    for amount in (0.0, 0.5, 2.0):
        expected = amount**2 * stereo_width(x, RATE)
        torch.testing.assert_close(stereo_width(F.stereo_widener(x, RATE, amount), RATE), expected, rtol=1e-9, atol=0)


def test_width_ends_where_the_mid_vanishes():
    source = noise(1, 1000)
    x = torch.cat([source, -source]).requires_grad_()
    width = stereo_width(x, RATE)
    width.backward()
    assert width.item() == 100
    assert x.grad.isfinite().all()


def test_crest_factors_of_known_shapes():
    sine = torch.sin(2 * math.pi * torch.arange(16000, dtype=torch.float64) / 16)
    # 16 samples a period, among them the peak: sqrt(2) over the root mean square; a square wave has 0 dB.
    crest = crest_factor_db(torch.stack([sine, sine.sign() + (sine == 0)]), RATE)
    torch.testing.assert_close(crest, torch.tensor([10 * math.log10(2), 0], dtype=torch.float64), rtol=0, atol=1e-9)


def bark(hertz):
    z = 26.81 / (1 + 1960 / hertz) - 0.53
    return z + 0.15 * (2 - z) if z < 2 else z + 0.22 * (z - 20.1) if z > 20.1 else z


def numpy_bark(x, rate, size):
    """The definition in the docstring, frame by frame and bin by bin."""
    hop, samples = size // 4, x.shape[-1]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    corners = np.linspace(bark(20), bark(20000), 26)
    z = np.array([-math.inf, *(bark(k * rate / size) for k in range(1, size // 2 + 1))])
    levels = []
    for signal in ((x[0] + x[1]) / 2, (x[0] - x[1]) / 2):
        padded = np.concatenate([np.zeros(size - hop), signal, np.zeros(2 * size)])
        starts = range(0, math.ceil(samples / hop) * hop + size - hop, hop)
        frames = [np.abs(np.fft.rfft(padded[s : s + size] * window)) * 2 / window.sum() for s in starts]
        mean = np.sum(frames, 0) * hop / samples
        levels.append([20 * np.log10(np.sum(mean * np.interp(z, c, [0, 1, 0]))) for c in windows_of(corners)])
    return np.array(levels)


def windows_of(corners):
    return [corners[i : i + 3] for i in range(24)]


@pytest.mark.parametrize(("rate", "size"), [(44100, 32768), (48000, 32768), (96000, 65536)])
@pytest.mark.parametrize("samples", [5000, 100000])
def test_bark_spectrum_matches_numpy(rate, size, samples):
    x = noise(2, samples)
    np.testing.assert_allclose(bark_spectrum_db(x, rate).numpy(), numpy_bark(x.numpy(), rate, size), rtol=0, atol=1e-9)


def test_bands_above_half_the_rate_are_empty():
    # 4 kHz lie at 17.46 Bark, and the bands begin every 0.986 from 0.08 on.
    level = bark_spectrum_db(noise(2, 30000), 8000)
    assert (level[:, 18:] == -120).all()
    assert (level[:, :18] > -120).all()


@pytest.mark.parametrize("feature", FEATURES)
def test_a_gain_moves_levels_and_nothing_else(feature):
    x = noise(2, 44100) + noise(1, 44100, seed=1)
    before, after = feature(x, 44100), feature(F.gain(x, 44100, -6.0), 44100)
    moved = 6.0 if feature in (rms_db, bark_spectrum_db) else 0.0
    torch.testing.assert_close(after, before - moved, rtol=0, atol=1e-9)
    torch.testing.assert_close(feature(-x, 44100), before, rtol=0, atol=1e-9)


def test_exchange_of_channels_moves_the_imbalance_alone():
    x = noise(2, 44100) * torch.tensor([[1.0], [0.5]])
    torch.testing.assert_close(stereo_imbalance(x.flip(0), RATE), -stereo_imbalance(x, RATE))
    for feature in (stereo_width, bark_spectrum_db):
        torch.testing.assert_close(feature(x.flip(0), RATE), feature(x, RATE))


def test_clipping_lowers_the_crest_factor_and_balance_the_imbalance():
    x = noise(2, 44100)
    assert (crest_factor_db(x.clamp(-0.1, 0.1), RATE) < crest_factor_db(x, RATE) - 6).all()
    softer = F.gain(x, RATE, torch.tensor([-6.0, 0.0]))
    assert stereo_imbalance(softer, RATE) > stereo_imbalance(x, RATE) + 0.5
    torch.testing.assert_close(crest_factor_db(softer, RATE), crest_factor_db(x, RATE))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.0, 1e-30, 1e-12, 1e-6])
@pytest.mark.parametrize("feature", FEATURES)
def test_silence_has_finite_values_and_gradients(feature, level, dtype):
    x = torch.full((2, 2, 3000), level, dtype=dtype)
    x[1, 1] = noise(3000, dtype=dtype)
    x.requires_grad_()
    value = feature(x, RATE)
    assert value.isfinite().all()
    value.sum().backward()
    assert x.grad.isfinite().all()
    if level == 0:
        silent = {rms_db: -120, bark_spectrum_db: -120}.get(feature, 0)
        assert (value[0] == silent).all()
        assert not x.grad[0].any()


@pytest.mark.parametrize("feature", FEATURES)
def test_items_are_independent_and_a_nan_stays_in_its_own(feature):
    x = noise(2, 3, 2, 3000)
    whole = feature(x, RATE)
    torch.testing.assert_close(feature(x[1, 2], RATE), whole[1, 2])
    x[0, 1, 0, 7] = math.nan
    after = feature(x, RATE)
    touched = torch.zeros(2, 3, dtype=torch.bool)
    touched[0, 1] = True
    assert torch.equal(after[~touched], whole[~touched])
    assert after[touched].isnan().any()


@pytest.mark.parametrize("feature", FEATURES)
def test_gradcheck(feature):
    x = noise(2, 2, 200).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: feature(x, 8000), x, fast_mode=True)


@pytest.mark.parametrize("feature", FEATURES)
def test_errors_name_the_argument(feature):
    with pytest.raises(TypeError, match=f"{feature.__name__}: x has type torch.int64"):
        feature(torch.zeros(2, 8, dtype=torch.int64), RATE)
    with pytest.raises(ValueError, match=f"{feature.__name__}: x has shape .* at least one sample"):
        feature(torch.zeros(2, 0), RATE)
    with pytest.raises(ValueError, match=f"{feature.__name__}: sample_rate is 0"):
        feature(torch.zeros(2, 8), 0)
    if feature in STEREO:
        with pytest.raises(ValueError, match="expected 2 channel"):
            feature(torch.zeros(1, 8), RATE)
