"""`band_noise`: seeded noise split into frequency bands, made once and kept."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.signal
import torch
from torch import Tensor

from dasp.kernels._registration import define_source

# Lengths are rounded up to this, so that lengths that change by little from call to call find the same noise.
_BLOCK = 16384


def _band_windows(bands_hz: tuple[float, ...], frequency_hz: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Amplitude response of each band: raised cosines over log frequency that sum to 1, open at both ends."""
    octaves = np.log2(np.maximum(frequency_hz, 1e-3))
    centres = np.log2(bands_hz)
    # Lower edges of the bands as steps that rise from one centre to the next; the first band has none.
    steps = [np.ones_like(octaves)]
    for low, high in itertools.pairwise(centres):
        steps.append(0.5 - 0.5 * np.cos(np.pi * np.clip((octaves - low) / (high - low), 0, 1)))
    steps.append(np.zeros_like(octaves))
    return np.stack([lower - upper for lower, upper in itertools.pairwise(steps)])


@functools.lru_cache(maxsize=8)
def _noise_samples(seed: int, sample_rate: float, bands_hz: tuple[float, ...], length: int) -> npt.NDArray[np.float64]:
    """White noise of unit variance split into bands, `(bands, 2, length)`; longer noise begins with shorter.

    The bands' linear-phase filters last a quarter of a second, which resolves the lowest octave.
    """
    size = 1 << math.ceil(math.log2(sample_rate / 4))
    response = _band_windows(bands_hz, np.fft.rfftfreq(size, 1 / sample_rate))
    taps = np.roll(np.fft.irfft(response, size), size // 2, axis=-1) * np.hanning(size + 1)[:-1]
    white = np.random.default_rng(seed).standard_normal((length + size - 1, 2)).T
    return np.stack([scipy.signal.oaconvolve(white, band[None], mode="valid", axes=-1) for band in taps])


@functools.lru_cache(maxsize=8)
def _kept(
    seed: int, sample_rate: float, bands_hz: tuple[float, ...], length: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    with torch.inference_mode(False):
        return torch.from_numpy(_noise_samples(seed, sample_rate, bands_hz, length)).to(device=device, dtype=dtype)


def _kernel(
    seed: int, sample_rate: float, bands_hz: Sequence[float], length: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    rounded = max(1, math.ceil(length / _BLOCK)) * _BLOCK
    return _kept(seed, sample_rate, tuple(bands_hz), rounded, dtype, device)[..., :length]


def _fake(
    seed: int, sample_rate: float, bands_hz: Sequence[float], length: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    return torch.empty(len(bands_hz), 2, length, dtype=dtype, device=device)


# Compiled code may write into what an operator returns, so it gets a copy of what is kept.
_operator = define_source(
    "band_noise",
    "(int seed, float sample_rate, float[] bands_hz, SymInt length, ScalarType dtype, Device device) -> Tensor",
    lambda *arguments: _kernel(*arguments).clone(),
    _fake,
)


def band_noise(seed: int, sample_rate: float, bands_hz: tuple[float, ...], length: int, like: Tensor) -> Tensor:
    """White noise of unit variance split into bands that sum to it, the same for the same arguments.

    Args:
        seed: Seed of the noise.
        sample_rate: Sample rate in Hz.
        bands_hz: Centres of the bands, rising.
        length: Number of samples; longer noise begins with shorter.
        like: Gives type and device.

    Returns:
        `(bands, 2, length)`, not to be changed.
    """
    arguments = (seed, sample_rate, bands_hz, length, like.dtype, like.device)
    if torch.compiler.is_compiling():
        noise: Tensor = _operator(*arguments)
        return noise
    return _kernel(*arguments)
