"""The noise of reverberation: the same for the same arguments, and sound as an operator."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dasp.kernels import band_noise
from tests.cases import assert_close

BANDS_HZ = (125.0, 500.0, 2000.0, 8000.0)


def noise(seed: int = 0, length: int = 5000, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return band_noise(seed, 44100.0, BANDS_HZ, length, torch.zeros((), dtype=dtype))


def test_longer_noise_begins_with_shorter() -> None:
    # Across the block to which lengths are rounded, and by more than one.
    for shorter, longer in ((100, 101), (16000, 17000), (16384, 40000)):
        assert_close(noise(length=longer)[..., :shorter], noise(length=shorter), 1e-12)


def test_bands_sum_to_white_noise_of_unit_variance() -> None:
    total = noise(length=100000).sum(0)
    # Five standard deviations of the variance of 200000 normal numbers.
    assert float(total.square().mean()) == pytest.approx(1, abs=5 * (2 / 200000) ** 0.5)
    correlation = float((total[0] * total[1]).mean())
    assert abs(correlation) < 5 / 100000**0.5


@pytest.mark.parametrize("band", range(4))
def test_each_band_has_its_octaves(band: int) -> None:
    spectrum = np.abs(np.fft.rfft(noise(length=65536)[band, 0].numpy() * np.hanning(65536))) ** 2
    frequency = np.fft.rfftfreq(65536, 1 / 44100)
    centre = BANDS_HZ[band]
    inside = spectrum[(frequency > centre / 1.1) & (frequency < centre * 1.1)].mean()
    # Two octaves away another band has it all, but for the slopes of a window of a quarter of a second.
    away = frequency < centre / 4.2 if band else frequency > centre * 4.2
    assert spectrum[away & (frequency > 5)].mean() < 1e-6 * inside


def test_another_seed_gives_other_noise() -> None:
    correlation = float((noise(0, 50000) * noise(1, 50000)).sum(0).mean())
    assert abs(correlation) < 5 / 100000**0.5


def test_type_and_device_are_those_asked_for() -> None:
    assert noise(dtype=torch.float32).dtype == torch.float32
    assert torch.equal(noise(dtype=torch.float32), noise().float())


def test_what_is_kept_serves_gradients_after_an_inference_pass() -> None:
    with torch.inference_mode():
        first = noise(seed=123)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    (scale * noise(seed=123)).sum().backward()
    assert float(scale.grad) == pytest.approx(float(first.sum()), rel=1e-12)


def test_registration_is_sound() -> None:
    torch.library.opcheck(
        torch.ops.dasp.band_noise.default, (0, 44100.0, list(BANDS_HZ), 100, torch.float32, torch.device("cpu"))
    )


def test_compiled_code_may_write_into_its_copy() -> None:
    operator = torch.ops.dasp.band_noise.default
    before = noise(seed=7).clone()
    operator(7, 44100.0, list(BANDS_HZ), 5000, torch.float64, torch.device("cpu")).fill_(torch.nan)
    assert torch.equal(noise(seed=7), before)
