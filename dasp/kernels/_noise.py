"""`band_noise`: seeded noise split into frequency bands, made once and kept; `decaying_noise`: the decaying bands' sum.

A band's envelope is never as long as the response: exp(-rate (start + n)) = exp(-rate start) exp(-rate n), where n runs
over a chunk.  Nothing but the settings of the bands is kept for gradients.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy
import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

from dasp.kernels._registration import Operator, Tensors, define_source, register

# Lengths are rounded up to this, so that lengths that change by little from call to call find the same noise.
_BLOCK = 16384
# Samples of envelopes and noise that are worked on at once: on the CPU ten bands of them stay in the cache of a core.
_CHUNK_ON_CPU, _CHUNK_ELSEWHERE = 8192, 131072


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
    # Made outside of the transforms of torch.func, which else would leave their mark on what outlives them.
    with temporarily_clear_interpreter_stack(), torch.inference_mode(False):
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


def _chunks(length: int, like: Tensor) -> Iterator[slice]:
    size = _CHUNK_ON_CPU if like.device.type == "cpu" else _CHUNK_ELSEWHERE
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def _times(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, dtype=like.dtype, device=like.device)


def _sound(samples: slice, end: Tensor) -> Tensor:
    """Whether an item still sounds at these samples, `(rows, 1, samples)`."""
    time = torch.arange(samples.start, samples.stop, dtype=end.dtype, device=end.device)
    return (time <= end.unsqueeze(-1)).unsqueeze(-2)


def _decay(
    seed: int, sample_rate: float, bands_hz: Sequence[float], length: int, level: Tensor, rate: Tensor, end: Tensor
) -> Tensors:
    noise = _kernel(seed, sample_rate, bands_hz, length, rate.dtype, rate.device)
    response = rate.new_empty(rate.shape[0], 2, length)
    envelope: Tensor | None = None
    for samples in _chunks(length, rate):
        if envelope is None:
            envelope = torch.exp(-rate.unsqueeze(-1) * _times(samples.stop, rate))
        weight = (level * torch.exp(-rate * samples.start)).unsqueeze(-1)
        shape = weight * envelope[..., : samples.stop - samples.start]
        for channel in range(2):
            response[:, channel, samples] = (shape * noise[:, channel, samples]).sum(-2)
        response[..., samples].masked_fill_(~_sound(samples, end), 0.0)
    return (response,)


def _decay_fake(
    seed: int, sample_rate: float, bands_hz: Sequence[float], length: int, level: Tensor, rate: Tensor, end: Tensor
) -> Tensors:
    return (rate.new_empty(rate.shape[0], 2, length),)


def _decay_backward(
    seed: int,
    sample_rate: float,
    bands_hz: Sequence[float],
    length: int,
    inputs: Tensors,
    outputs: Tensors,
    grads: Tensors,
    needs: Sequence[bool],
) -> Tensors:
    """With q the product of gradient and noise, sums of q exp(-rate t) and of q t exp(-rate t) in each band."""
    level, rate, end = inputs
    noise = _kernel(seed, sample_rate, bands_hz, length, rate.dtype, rate.device)
    sums = rate.new_zeros(2, *rate.shape, dtype=torch.float64)
    time: Tensor | None = None
    for samples in _chunks(length, rate):
        if time is None:
            time = _times(samples.stop, rate)
            envelope = torch.exp(-rate.unsqueeze(-1) * time)
        count = samples.stop - samples.start
        grad = grads[0][..., samples].masked_fill(~_sound(samples, end), 0.0).unsqueeze(-2)
        q = grad[:, 0] * noise[:, 0, samples]
        q.addcmul_(grad[:, 1], noise[:, 1, samples]).mul_(envelope[..., :count])
        still = q.sum(-1).double()
        moved = q.mul_(time[:count]).sum(-1).double()
        sums += torch.exp(-rate.double() * samples.start) * torch.stack([still, samples.start * still + moved])
    glevel, moment = sums.to(rate.dtype)
    return glevel, -level * moment, torch.zeros_like(end)


def _decay_vjp(
    seed: int,
    sample_rate: float,
    bands_hz: Sequence[float],
    length: int,
    inputs: Tensors,
    outputs: Tensors,
    grads: Tensors,
) -> Tensors:
    level, rate, end = inputs
    noise = band_noise(seed, sample_rate, tuple(bands_hz), length, rate)
    time, grad = _times(length, rate), torch.where(_sound(slice(0, length), end), grads[0], 0.0)
    shaped = (grad.unsqueeze(1) * noise).sum(2) * torch.exp(-rate.unsqueeze(-1) * time)
    return shaped.sum(-1), -level * (time * shaped).sum(-1), torch.zeros_like(end)


def _decay_jvp(
    seed: int,
    sample_rate: float,
    bands_hz: Sequence[float],
    length: int,
    inputs: Tensors,
    outputs: Tensors,
    tangents: Tensors,
) -> Tensors:
    level, rate, end = inputs
    dlevel, drate, _ = tangents
    noise = band_noise(seed, sample_rate, tuple(bands_hz), length, rate)
    time = _times(length, rate)
    weight = dlevel.unsqueeze(-1) - (level * drate).unsqueeze(-1) * time
    envelope = weight * torch.exp(-rate.unsqueeze(-1) * time)
    tangent = (envelope.unsqueeze(2) * noise).sum(1)
    return (torch.where(_sound(slice(0, length), end), tangent, 0.0),)


_decay_call = register(
    Operator(
        "decaying_noise",
        ("level", "rate", "end"),
        ("response",),
        _decay,
        _decay_fake,
        _decay_backward,
        _decay_vjp,
        _decay_jvp,
        settings="int seed, float sample_rate, float[] bands_hz, SymInt length",
        any_device=True,
    )
)


def decaying_noise(
    level: Tensor, rate: Tensor, end: Tensor, seed: int, sample_rate: float, bands_hz: tuple[float, ...], length: int
) -> Tensor:
    """The sum over bands of level exp(-rate n) times the band's noise.

    Second derivatives and forward mode take memory for as many samples as bands times length.

    Args:
        level: `(rows, bands)`, float32 or float64.
        rate: `(rows, bands)` as level, decay per sample.
        end: `(rows,)`, the last sample that is not silent; not differentiable.
        seed: Seed of the noise, which is `band_noise`.
        sample_rate: Sample rate in Hz.
        bands_hz: Centres of the bands, rising.
        length: Number of samples.

    Returns:
        `(rows, 2, length)`.
    """
    (response,) = _decay_call(level, rate, end, seed, sample_rate, list(bands_hz), length)
    return response
