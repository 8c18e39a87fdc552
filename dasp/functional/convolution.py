"""Convolution of audio with impulse responses, whole or in blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dasp.kernels import convolve


def fft_convolve(x: Tensor, h: Tensor, zi: Tensor | None = None) -> Tensor:
    """Causal convolution: y[n] = sum over k of h[k] x[n - k], by partitioned FFT in bounded memory.

    Transforms are in the type of x: in float32 the error is about -130 dB of the largest output, in float64 -300 dB.

    Args:
        x: Audio `(*batch, channels, samples)`, float32 or float64.
        h: Impulse responses `(*lead, channels, taps)` as x, with at least one tap; lead broadcasts to batch, and either
            h or x may be mono.
        zi: Samples before x, `(*batch, channels, past)` as x, any number of them; silence before those.

    Returns:
        Audio `(*batch, channels, samples)`, with as many channels as the wider of the two.
    """
    *batch, channels, samples = x.shape
    lead = (*(1 for _ in range(len(batch) - h.ndim + 2)), *h.shape[:-2])
    past = x[..., :0] if zi is None else zi
    wide = h.shape[-2] if channels == 1 else channels
    taps = h.shape[-1]
    # Channels that a filter has for itself, or that share one, are rows like any other.
    if wide == channels and _filters((*lead, h.shape[-2]), (*batch, channels)):
        lead, own, channels = (*lead, h.shape[-2]), 1, 1
        rows = math.prod(batch) * wide
    else:
        own, rows = h.shape[-2], math.prod(batch)
        if not _filters(lead, batch):
            lead = tuple(batch)
            h = h.expand(*lead, own, taps)
    filters = math.prod(lead)
    # By way of one dimension: for others torch 2.13 compares strides, which it cannot where taps are the lesser of two.
    flat = h.reshape(filters * own * taps).reshape(filters * own, taps)
    y = convolve(
        x.reshape(rows, channels, samples),
        flat.unflatten(0, (filters, own)),
        past.reshape(rows, channels, past.shape[-1]),
    )
    return y.reshape(*batch, wide, samples)


def _filters(lead: Sequence[int], batch: Sequence[int]) -> bool:
    """Whether each filter is for consecutive rows: lead begins as batch does and goes on with ones."""
    same = True
    for have, want in zip(lead, batch, strict=True):
        same = same and have == want
        if not same and have != 1:
            return False
    return True


def last_samples(x: Tensor, zi: Tensor, count: int) -> Tensor:
    """The last samples of what zi and x are together, after silence.

    Args:
        x: Audio `(..., samples)`.
        zi: What came before it, `(..., past)`.
        count: Number of samples.

    Returns:
        `(..., count)`.
    """
    samples = x.shape[-1]
    if torch.compiler.is_compiling():
        # Without branches, so that an exported program takes any length; torch 2.13 proves no more of it than this.
        silence = x.new_zeros(*x.shape[:-1], count)
        return torch.cat([silence, zi, x], -1)[..., zi.shape[-1] + samples :]
    if samples >= count:
        return x[..., samples - count :].clone()
    missing = count - samples
    past = zi[..., max(0, zi.shape[-1] - missing) :]
    return torch.cat([torch.nn.functional.pad(past, (missing - past.shape[-1], 0)), x], -1)
