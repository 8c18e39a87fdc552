"""Features of a mix: level, crest factor, stereo width and balance, and the Bark spectrum, for losses and evaluation.

All are batched, differentiable, and finite with finite gradients for any audio, silence included: a level is never less
than -120 dB, where its gradient ends.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dasp._checks import check_audio, check_sample_rate, shape_text, working

__all__ = ["bark_spectrum_db", "crest_factor_db", "rms_db", "stereo_imbalance", "stereo_width"]

# -120 dB: less is silence.
_SILENCE = 1e-6
# The side's power over the mid's reads no more than this, 20 dB.
_WIDEST = 100.0
_BANDS, _LOWEST_HZ, _HIGHEST_HZ = 24, 20.0, 20000.0
# 32768 samples at 44.1 kHz (Vanka et al. 2024); at other rates the power of two that is nearest to as long a time.
_FRAME_S = 32768 / 44100


def _checked(name: str, x: Tensor, sample_rate: float, channels: tuple[int, ...] = ()) -> Tensor:
    check_audio(name, x, channels)
    check_sample_rate(name, sample_rate)
    if x.shape[-1] == 0:
        raise ValueError(f"{name}: x has shape {shape_text(x.shape)}, expected at least one sample")
    return working(x)


def _decibels(power: Tensor) -> Tensor:
    return 10 * torch.log10(power.clamp_min(_SILENCE**2))


def rms_db(x: Tensor, sample_rate: float) -> Tensor:
    """Level of each channel: 20 log10 of the root of the mean square.

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz; without effect.

    Returns:
        Level `(*batch, channels)` in dB, at least -120.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If it has no samples.

    Example:
        >>> rms_db(torch.ones(2, 8), 44100)
        tensor([0., 0.])
    """
    return _decibels(_checked("rms_db", x, sample_rate).square().mean(-1))


def crest_factor_db(x: Tensor, sample_rate: float) -> Tensor:
    """Crest factor of each channel: how far its highest sample lies above its root mean square.

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz; without effect.

    Returns:
        Crest factor `(*batch, channels)` in dB; 0 for silence.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If it has no samples.

    Example:
        >>> crest_factor_db(torch.sin(torch.arange(44100))[None], 44100)
        tensor([3.01...])
    """
    audio = _checked("crest_factor_db", x, sample_rate)
    return _decibels(audio.abs().amax(-1).square()) - _decibels(audio.square().mean(-1))


def stereo_width(x: Tensor, sample_rate: float) -> Tensor:
    """Width: power of the difference L - R over that of the sum L + R (Vanka et al. 2024).

    Args:
        x: Audio `(*batch, 2, samples)`.
        sample_rate: Sample rate in Hz; without effect.

    Returns:
        Width `(*batch,)`: 0 for mono and for silence, 1 for channels that have nothing in common, and at most 100, at
        which the gradient ends.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If it has not two channels, or no samples.

    Example:
        >>> stereo_width(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), 44100)
        tensor(1.)
    """
    left, right = _checked("stereo_width", x, sample_rate, (2,)).unbind(-2)
    mid, side = (left + right).square().mean(-1), (left - right).square().mean(-1)
    return side / torch.maximum(mid, side / _WIDEST).clamp_min(_SILENCE**2)


def stereo_imbalance(x: Tensor, sample_rate: float) -> Tensor:
    """Imbalance: power of the right less that of the left channel, over the sum of both (Vanka et al. 2024).

    Args:
        x: Audio `(*batch, 2, samples)`.
        sample_rate: Sample rate in Hz; without effect.

    Returns:
        Imbalance `(*batch,)` from -1, left, to 1, right; 0 for silence.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If it has not two channels, or no samples.

    Example:
        >>> stereo_imbalance(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), 44100)
        tensor(1.)
    """
    left, right = _checked("stereo_imbalance", x, sample_rate, (2,)).square().mean(-1).unbind(-1)
    return (right - left) / (right + left).clamp_min(_SILENCE**2)


def bark_spectrum_db(x: Tensor, sample_rate: float) -> Tensor:
    """Spectrum in 24 Bark bands of the mid (L + R) / 2 and the side (L - R) / 2, averaged over time.

    The magnitudes of Hann-windowed frames of 32768 samples at 44.1 kHz, a quarter of their length apart, are averaged
    over time and summed over each band with a triangle as weight; the corners of the triangles lie at equal distances
    on the Bark scale (Traunmueller 1990) between 20 Hz and 20 kHz.

    Args:
        x: Audio `(*batch, 2, samples)`.
        sample_rate: Sample rate in Hz; bands above its half are empty.

    Returns:
        Level `(*batch, 2, 24)` in dB, at least -120: mid and side, from the lowest band to the highest.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If it has not two channels, or no samples.

    Example:
        >>> tone = torch.sin(2 * math.pi * 1000 / 44100 * torch.arange(44100)).expand(2, -1)
        >>> level_db = bark_spectrum_db(tone, 44100)
        >>> level_db[0].argmax(), level_db[1].amax()
        (tensor(8), tensor(-120.))
    """
    return _decibels(bark_magnitudes("bark_spectrum_db", x, sample_rate).square())


def bark_magnitudes(name: str, x: Tensor, sample_rate: float) -> Tensor:
    """What `bark_spectrum_db` is the level of, `(*batch, 2, 24)`."""
    left, right = _checked(name, x, sample_rate, (2,)).unbind(-2)
    signals = torch.stack([(left + right) / 2, (left - right) / 2], -2)
    samples, size = x.shape[-1], _frame_size(sample_rate)
    hop = size // 4
    padded = torch.nn.functional.pad(signals, (size - hop, -samples % hop + size - hop))
    window = torch.hann_window(size, dtype=torch.float64, device=x.device)
    frames = padded.unfold(-1, size, hop) * (window * (2 / window.sum())).to(signals.dtype)
    # With the padding every sample is in four frames, those at the ends too.
    mean = torch.fft.rfft(frames).abs().sum(-2) * (hop / samples)
    levels: Tensor = mean @ _bark_bank(size, sample_rate, x.device).to(mean.dtype)
    return levels


def _frame_size(sample_rate: float) -> int:
    return 1 << max(6, round(math.log2(_FRAME_S * sample_rate)))


def _bark(frequency_hz: Tensor) -> Tensor:
    """Critical-band rate (Traunmueller 1990, with its corrections of the ends)."""
    bark = 26.81 * frequency_hz / (1960 + frequency_hz) - 0.53
    return bark + 0.15 * (2 - bark).clamp_min(0) + 0.22 * (bark - 20.1).clamp_min(0)


def _bark_bank(size: int, sample_rate: float, device: torch.device) -> Tensor:
    """Weight of each bin in each band, `(bins, bands)` in float64."""

    def count(end: int) -> Tensor:
        return torch.arange(end, dtype=torch.float64, device=device)

    ends = _bark(_LOWEST_HZ + (_HIGHEST_HZ - _LOWEST_HZ) * count(2))
    corners = ends[0] + (ends[1] - ends[0]) / (_BANDS + 1) * count(_BANDS + 2)
    bins = _bark(count(size // 2 + 1) * (sample_rate / size))[:, None]
    rising = (bins - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - bins) / (corners[2:] - corners[1:-1])
    return torch.minimum(rising, falling).clamp_min(0)
