"""The noise of reverberation: the same for the same arguments, and sound as an operator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from dasp.kernels import _noise, band_noise, decaying_noise
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


# ---- decaying_noise

LENGTH = 20011
SETTINGS = (0, 44100.0, BANDS_HZ, LENGTH)


def decays(rows: int = 2, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    level = torch.rand(rows, len(BANDS_HZ), generator=generator, dtype=torch.float64)
    rate = 10 ** (-4 + 2 * torch.rand(rows, len(BANDS_HZ), generator=generator, dtype=torch.float64))
    end = torch.linspace(15000, LENGTH, rows, dtype=torch.float64)
    return level.to(dtype), rate.to(dtype), end.to(dtype)


def summed(level: torch.Tensor, rate: torch.Tensor, end: torch.Tensor, length: int = LENGTH) -> torch.Tensor:
    """Level, envelope and noise of every band at every sample."""
    time = torch.arange(length, dtype=level.dtype)
    envelope = level[..., None] * torch.exp(-rate[..., None] * time)
    response = (envelope[:, :, None] * band_noise(0, 44100.0, BANDS_HZ, length, level)).sum(1)
    return torch.where(time <= end[:, None, None], response, 0.0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_decaying_noise_is_the_sum_of_its_bands(dtype, tolerance):
    # Exponents up to 7 before the noise is down by 60 dB, rounded once; ten bands.
    values = decays(dtype=dtype)
    want = summed(*(value.double() for value in values))
    assert float((decaying_noise(*values, *SETTINGS) - want).abs().max()) <= tolerance * float(want.abs().max())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_gradients_of_decaying_noise_are_those_of_the_sum(dtype, tolerance):
    # Sums of 20011 values of either sign, rounded relative to the largest.
    weights = torch.randn(2, 2, LENGTH, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    results = []
    for run, kind in ((lambda *v: decaying_noise(*v, *SETTINGS), dtype), (summed, torch.float64)):
        level, rate, end = (value.to(kind) for value in decays(dtype=dtype))
        points = level.requires_grad_(), rate.requires_grad_()
        results.append(torch.autograd.grad(run(*points, end), points, weights.to(dtype).to(kind)))
    for got, want in zip(*results, strict=True):
        assert float((got - want).abs().max()) <= tolerance * float(want.abs().max())


def test_decaying_noise_has_derivatives_of_any_order_and_mode():
    level, rate, _ = decays()
    points = [value.clone().requires_grad_() for value in (level, rate)]
    end = torch.tensor([20.0, 40.0], dtype=torch.float64)

    def run(level: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
        return decaying_noise(level, rate, end, 0, 44100.0, BANDS_HZ, 41)

    assert gradcheck(run, points, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True)
    assert gradgradcheck(run, points, check_fwd_over_rev=True)


def test_registration_of_decaying_noise_is_sound():
    values = decays(dtype=torch.float32)
    settings = [0, 44100.0, list(BANDS_HZ), 50]
    torch.library.opcheck(torch.ops.dasp.decaying_noise.default, (*values, *settings))
    needs = [True, True, False]
    torch.library.opcheck(
        torch.ops.dasp.decaying_noise_backward.default, (*values, torch.ones(2, 2, 50), *settings, needs)
    )


@pytest.mark.parametrize("number", range(5))
def test_kept_noise_outlives_the_transform_that_asked_for_it_first(number: int) -> None:
    def loss(end: Tensor) -> Tensor:
        x = torch.ones(1, 4, dtype=torch.float64)
        noise = band_noise(1000 + number, 8000.0, (500.0, 2000.0), 4, x)
        return (noise * end).square().sum()

    transforms = (
        torch.func.grad(loss),
        torch.func.jacrev(torch.func.grad(loss)),
        torch.func.jacfwd(loss),
        torch.func.hessian(loss),
        torch.func.vmap(torch.func.grad(loss)),
    )
    point = torch.ones((), dtype=torch.float64)
    transforms[number](point.expand(2) if number == 4 else point)
    # A tensor that a transform has wrapped has no memory of its own.
    kept = _noise._kept(1000 + number, 8000.0, (500.0, 2000.0), _noise._BLOCK, point.dtype, point.device)
    assert kept.untyped_storage().nbytes() > 0
