"""Filters whose controls change with time: against trapezoidal integration, and that no change makes them unstable."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor

import dasp.functional as F
from dasp.kernels import KINDS, prototypes, svf
from tests.oracles import Array, array, cookbook, decibels, noise, relative_error

RATE = 44100.0


def analog(kind: str, gain_db: float, q: float) -> tuple[Array, Array]:
    """Numerator and denominator of the cookbook's analog prototype in powers s^2, s, 1."""
    a = 10 ** (gain_db / 40)
    return {
        "lowpass": ([0, 0, 1], [1, 1 / q, 1]),
        "highpass": ([1, 0, 0], [1, 1 / q, 1]),
        "bandpass": ([0, 1 / q, 0], [1, 1 / q, 1]),
        "notch": ([1, 0, 1], [1, 1 / q, 1]),
        "allpass": ([1, -1 / q, 1], [1, 1 / q, 1]),
        "peaking": ([1, a / q, 1], [1, 1 / (a * q), 1]),
        "low_shelf": ([a, a * a**0.5 / q, a * a], [a, a**0.5 / q, 1]),
        "high_shelf": ([a * a, a * a**0.5 / q, a], [1, a**0.5 / q, a]),
    }[kind]


def integrated(x: Array, kind: str, frequency_hz: Array, gain_db: Array, q: Array) -> Array:
    """The prototype as two integrators in a loop, each the trapezoidal rule, solved as a linear system at each sample.

    With the denominator scaled to s^2 + k s + 1 by another unit of time, the integrators hold s / D and 1 / D.
    """
    memory, y = np.zeros(2), np.empty_like(x)
    for n, u in enumerate(x):
        numerator, denominator = (np.array(p, float) for p in analog(kind, gain_db[n], q[n]))
        unit = np.sqrt(denominator[0] / denominator[2])  # of time: s = sigma / unit
        powers = np.array([unit**-2, 1 / unit, 1.0])
        n2, n1, n0 = numerator * powers / denominator[2]
        k = (denominator * powers / denominator[2])[1]
        step = np.tan(np.pi * frequency_hz[n] / RATE) / unit
        loop, drive = np.array([[-k, -1.0], [1.0, 0.0]]), np.array([1.0, 0.0])
        v = np.linalg.solve(np.eye(2) - step * loop, memory + step * drive * u)
        memory = memory + 2 * step * (loop @ v + drive * u)
        y[n] = n2 * u + (n1 - n2 * k) * v[0] + (n0 - n2) * v[1]
    return y


def curves(samples: int, seed: int = 0) -> tuple[Array, Array, Array]:
    """Frequency, gain and q of every sample, of no relation to those of the one before."""
    f, g, q = np.random.default_rng(seed).random((3, samples))
    return 30 * (18000 / 30) ** f, 36 * g - 18, 0.2 * 50**q


def controls(kind: str, frequency_hz: Array, gain_db: Array, q: Array) -> dict[str, Tensor]:
    names = {"frequency_hz": frequency_hz, "gain_db": gain_db, "q": q}
    if kind not in ("peaking", "low_shelf", "high_shelf"):
        del names["gain_db"]
    return {name: torch.from_numpy(value)[None] for name, value in names.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_equals_trapezoidal_integration(kind):
    x, values = noise(0, 300), curves(300)
    y = getattr(F, kind)(torch.from_numpy(x)[None], RATE, **controls(kind, *values))
    assert relative_error(y[0], integrated(x, kind, *values)) <= 1e-12


def test_an_equaliser_of_frames_equals_its_bands_one_after_another():
    x, kinds = noise(0, 1, 240), ("low_shelf", "peaking", "high_shelf")
    bands = [curves(24, seed) for seed in range(3)]
    stacked = [torch.from_numpy(np.stack(values, -1))[None] for values in zip(*bands, strict=True)]
    y = F.parametric_eq(torch.from_numpy(x), RATE, *stacked, kinds=kinds)
    want = x[0]
    for kind, values in zip(kinds, bands, strict=True):
        want = integrated(want, kind, *(np.repeat(value, 10) for value in values))
    assert relative_error(y[0], want) <= 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_settings_that_stay_are_the_filter_of_the_cookbook(kind):
    x = noise(0, 2000)
    f, g, q = (np.full(4, value) for value in (150.0, 9.0, 2.0))
    y = getattr(F, kind)(torch.from_numpy(x)[None], RATE, **controls(kind, f, g, q))
    full = cookbook(kind, RATE, 150.0, 9.0, 2.0)
    section = np.array([full[:3] + full[3:]])
    assert relative_error(y[0], scipy.signal.sosfilt(section, x)) <= 1e-12


def test_numbers_beside_automation_stay_in_float64():
    x = torch.from_numpy(noise(0, 1, 48000)).float()
    y = F.peaking(x, 48000, 50.3, torch.full((1, 100), 23.0), 9.7)
    full = cookbook("peaking", 48000, 50.3, 23.0, 9.7)
    want = scipy.signal.sosfilt(np.array([full[:3] + full[3:]]), array(x))
    assert decibels(relative_error(y, want)) <= -140


@pytest.mark.parametrize("kind", KINDS)
def test_sections_of_every_sample_are_the_filters_with_these_controls(kind):
    """`sosfilt` finds from b and a what the equaliser designs from controls."""
    x, values = torch.from_numpy(noise(0, 1, 300)), curves(300)
    names = controls(kind, *values)
    sos = F.biquad(kind, RATE, **names).unsqueeze(-2)
    assert relative_error(F.sosfilt(x, sos), array(getattr(F, kind)(x, RATE, **names))) <= 1e-9


def test_sections_that_change_take_and_return_states():
    x = torch.from_numpy(noise(0, 2, 3, 100))
    sos = F.biquad("peaking", RATE, *(torch.from_numpy(v) for v in curves(100)))[None, None, :, None]
    whole, end = F.sosfilt(x, sos, torch.zeros(2, 3, 1, 2))
    first, state = F.sosfilt(x[..., :37], sos[..., :37, :, :], torch.zeros(2, 3, 1, 2))
    second, last = F.sosfilt(x[..., 37:], sos[..., 37:, :, :], state)
    # To the bit with the kernel; the fallback cuts each call into chunks of its own.
    assert relative_error(torch.cat([first, second], -1), array(whole)) <= 1e-14
    assert relative_error(last, array(end)) <= 1e-14


# ---- stability


def switching(samples: int) -> tuple[Tensor, Tensor]:
    """Two resonances that take turns at every sample, by which a direct form pumps itself up."""
    f = torch.tensor([200.0, 15000.0], dtype=torch.float64).repeat(samples // 2)
    return f, torch.full_like(f, 10.0)


def test_a_direct_form_diverges_where_these_filters_do_not():
    """Why changing filters have a structure of their own: the same poles, switched in transposed direct form II."""
    f, q = switching(2000)
    x = torch.zeros(1, 2000, dtype=torch.float64)
    x[0, 0] = 1
    state, direct = torch.zeros(1, 1, 2, dtype=torch.float64), []
    for n in range(2000):
        y, state = F.sosfilt(x[:, n : n + 1], F.biquad("lowpass", RATE, f[n], q=q[n])[None], state)
        direct.append(float(y.abs().max()))
    assert max(direct) > 1e6
    y = F.lowpass(x, RATE, f[None], q[None])
    assert float(y.abs().max()) < 2


@pytest.mark.parametrize("seed", range(5))
def test_no_change_of_settings_raises_the_energy_of_the_states(seed):
    """Without input, for the sharpest filters anywhere in the spectrum, switched at random at every sample."""
    f, g, q = (torch.from_numpy(value) for value in curves(3000, seed))
    kinds = [KINDS[number] for number in np.random.default_rng(seed).integers(0, len(KINDS), 1)]
    coefficients = prototypes(f[:, None], g[:, None], 100 * q[:, None], kinds, RATE)
    state, energy = torch.ones(1, 1, 2, dtype=torch.float64), 2.0
    for frame in coefficients.reshape(1, 3000, 1, 1, 5).unbind(1):
        _, state = svf(torch.zeros(1, 1, dtype=torch.float64), frame.reshape(1, 1, 1, 5), state)
        now = float(state.square().sum())
        assert now <= energy * (1 + 1e-14)
        energy = now


def test_gradients_stay_finite_at_the_ends_of_the_ranges():
    x = torch.from_numpy(noise(0, 1, 400)).float()
    ends = {"frequency_hz": (20.0, 20000.0), "gain_db": (-24.0, 24.0), "q": (0.1, 10.0)}
    for kind in ("low_shelf", "peaking", "high_shelf"):
        values = {n: torch.tensor(v).repeat(200)[None].requires_grad_() for n, v in ends.items()}
        y = getattr(F, kind)(x, RATE, **values)
        assert bool(y.isfinite().all())
        for gradient in torch.autograd.grad(y.square().sum(), list(values.values())):
            assert bool(gradient.isfinite().all())
            assert bool((gradient != 0).any())


def test_a_state_of_the_other_structure_is_refused():
    x = torch.zeros(1, 10)
    _, state = F.peaking(x, RATE, 1000.0, state={})
    with pytest.raises(ValueError, match="peaking: state has 'zi', that of controls that stay"):
        F.peaking(x, RATE, torch.full((1, 10), 1000.0), state=state)


def test_after_automation_a_constant_setting_goes_on():
    x = torch.from_numpy(noise(0, 1, 100))
    f = torch.from_numpy(curves(50)[0])[None]
    _, state = F.lowpass(x[:, :50], RATE, f, state={})
    y, _ = F.lowpass(x[:, 50:], RATE, 500.0, state=state)
    whole = F.lowpass(x, RATE, torch.cat([f, torch.full_like(f, 500.0)], -1))
    assert relative_error(y, array(whole[:, 50:])) <= 1e-14
