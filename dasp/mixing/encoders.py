"""Networks that describe a piece of audio by one vector: of log-mel spectra, or of the waveform."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from dasp._checks import check_sample_rate, working
from dasp.functional.meters import integrated_loudness
from dasp.gradients.layers import empty
from dasp.io import resample

__all__ = ["LogMelEncoder", "SpectrogramEncoder", "WaveformEncoder"]

# 2048 samples at 44.1 kHz; at other rates the power of two that is nearest to as long a time.
_FRAME_S = 2048 / 44100
_LOWEST_HZ, _HIGHEST_HZ = 30.0, 16000.0
# Power below -100 dB is silence.
_SILENCE = 1e-10
# Loudness is read between this and 0 LUFS: a quieter track is not amplified beyond reason.
_QUIETEST = -70.0
_WAVEFORM_RATE = 44100
# The left and right, mid and side signals that an encoder reads, made from the two channels.
_SIGNALS = {
    2: ((0.5, 0.5), (0.5, -0.5)),
    4: ((1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.5, -0.5)),
}


def level_lufs(x: Tensor, sample_rate: float) -> Tensor:
    """Gated loudness `(*batch,)` of audio `(*batch, channels, samples)`, the mean over channels, at least -70 LUFS.

    That of two equal channels is that of one.  Audio shorter than a gating block is measured without gates.
    """
    if x.shape[-1] == 0:
        return working(x).sum((-2, -1)) + _QUIETEST
    gated = x.shape[-1] >= 0.4 * sample_rate
    loudness = integrated_loudness(x, sample_rate, [1 / x.shape[-2]] * x.shape[-2], gated)
    return loudness.clamp_min(_QUIETEST)


def stereo_image(x: Tensor) -> Tensor:
    """Level of right over left, and of side over mid, `(*batch, 2)` in tens of dB, within -20 to 20 and -40 to 10 dB.

    Of mono audio they are 0 and -40 dB, of silence too.
    """
    if x.shape[-2] == 1 or x.shape[-1] == 0:
        return torch.cat([x.new_zeros(*x.shape[:-2], 1), x.new_full((*x.shape[:-2], 1), -4.0)], -1)
    left, right, mid, side = signals_of(x, 4).square().mean(-1).unbind(-1)
    # Less than the highest limit asks for means silence of both.
    balance = torch.log10((right + _SILENCE) / (left + _SILENCE)).clamp(-2, 2)
    return torch.stack([balance, torch.log10((side + 1e-4 * _SILENCE) / (mid + _SILENCE)).clamp(-4, 1)], -1)


def signals_of(x: Tensor, count: int) -> Tensor:
    """Mid and side, or left, right, mid and side `(*batch, signals, samples)` of mono or stereo audio."""
    stereo = x.expand(*x.shape[:-2], 2, -1)
    return x.new_tensor(_SIGNALS[count]) @ stereo


class _Frontend(nn.Module):
    """Log-mel power in tens of dB above -50 dBFS, `(batch, signals, bands, frames)`.

    Bands lie at frequencies in Hz and read the mean square in them, so that a noise or a tone gives the same at any
    sample rate; a band above half of it is silent.
    """

    def __init__(self, sample_rate: float, bands: int) -> None:
        super().__init__()
        check_sample_rate("LogMelEncoder", sample_rate)
        self.size = 1 << max(6, round(math.log2(_FRAME_S * sample_rate)))
        self.bands = bands
        window, bank = torch.empty(self.size), torch.empty(self.size // 2 + 1, bands)
        # On the meta device torch 2.13 would import its compiler to make a window of no numbers, which takes a second.
        if not window.is_meta:
            window = torch.hann_window(self.size, dtype=torch.float64)
            # The mean square of a frame is this sum over its spectrum (Parseval), the window's power taken out.
            bank = mel_bank(sample_rate, self.size, bands) * (2 / (self.size * window.square().sum()))
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("bank", bank.float(), persistent=False)

    window: Tensor
    bank: Tensor

    def forward(self, x: Tensor) -> Tensor:
        hop = self.size // 2
        count = max(1, math.ceil((x.shape[-1] - hop) / hop))
        frames = nn.functional.pad(x, (0, (count + 1) * hop - x.shape[-1])).unfold(-1, self.size, hop)
        spectra = torch.fft.rfft(frames * self.window.to(x.dtype))
        power = spectra.real.square() + spectra.imag.square()
        levels = torch.log10((power @ self.bank.to(x.dtype)).clamp_min(_SILENCE)) + 5
        return levels.transpose(-1, -2)


def mel_bank(sample_rate: float, size: int, bands: int) -> Tensor:
    """Triangles at equal distances on the mel scale, `(bins, bands)` in float64, whose height is 1."""
    low, high = (2595 * math.log10(1 + f / 700) for f in (_LOWEST_HZ, _HIGHEST_HZ))
    corners = torch.linspace(low, high, bands + 2, dtype=torch.float64)
    corners = 700 * (10 ** (corners / 2595) - 1)
    # No triangle is narrower than a bin on either side.
    step = sample_rate / size
    bins = torch.arange(size // 2 + 1, dtype=torch.float64)[:, None] * step
    centre = corners[1:-1]
    rising = (bins - centre) / torch.maximum(centre - corners[:-2], torch.tensor(step)) + 1
    falling = (centre - bins) / torch.maximum(corners[2:] - centre, torch.tensor(step)) + 1
    return torch.minimum(rising, falling).clamp_min(0)


class _Encoder(nn.Module):
    """What all encoders share: loudness-normalised signals in, a vector of `features` out."""

    def __init__(self, sample_rate: float, signals: int, features: int) -> None:
        super().__init__()
        check_sample_rate(type(self).__name__, sample_rate)
        if signals not in _SIGNALS:
            raise ValueError(f"{type(self).__name__}: signals is {signals}, expected 2 or 4")
        self.sample_rate = sample_rate
        self.signals = signals
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        """Describes audio `(batch, channels, samples)`, mono or stereo, by `(batch, features)`."""
        # A side that is silent need not be transformed to be known.
        if x.shape[-2] == 1 and self.signals == 2:
            return self._describe(x)
        return self._describe(signals_of(x, self.signals))

    def _describe(self, signals: Tensor) -> Tensor:
        raise NotImplementedError


class LogMelEncoder(_Encoder):
    """A vector for a piece of audio, from convolutions over time of its log-mel spectrum: small and quick.

    The mid and side signals (of a reference: left, right, mid and side) are brought to log-mel spectra, whose bands lie
    at the same frequencies at any sample rate.  Convolutions over time with group normalisation of one item, residual,
    find what happens; its mean, deviation and highest value over time, and those of the spectra themselves, are mapped
    to the vector.

    Args:
        sample_rate: Sample rate in Hz of the audio.
        signals: 2 for mid and side, 4 for left, right, mid and side.
        features: Length of the vector.
        bands: Mel bands between 30 Hz and 16 kHz.
        channels: Channels of the convolutions.
        blocks: Convolutions, each of which halves the rate of frames.

    Example:
        >>> encoder = dasp.mixing.LogMelEncoder(44100, features=16)
        >>> encoder(torch.zeros(3, 1, 44100)).shape
        torch.Size([3, 16])
    """

    def __init__(
        self,
        sample_rate: float,
        signals: int = 2,
        features: int = 128,
        bands: int = 64,
        channels: int = 96,
        blocks: int = 3,
    ) -> None:
        super().__init__(sample_rate, signals, features)
        self.frontend = _Frontend(sample_rate, bands)
        rows = signals * bands
        self.first = empty(nn.Conv1d, rows, channels, 3, padding=1)
        self.convolutions = nn.ModuleList(empty(nn.Conv1d, channels, channels, 3, padding=1) for _ in range(blocks))
        self.norms = nn.ModuleList(nn.GroupNorm(1, channels) for _ in range(blocks))
        self.output = empty(nn.Linear, 3 * rows + 3 * channels, features)

    def _describe(self, signals: Tensor) -> Tensor:
        levels = self.frontend(signals)
        if levels.shape[-3] < self.signals:
            silent = torch.full_like(levels, math.log10(_SILENCE) + 5)
            levels = torch.cat([levels, silent], -3)
        # Long-term spectra say most of what a fader and an equaliser need: they reach the output directly.
        power = torch.log10((10**levels).mean(-1))
        rows = levels.flatten(-3, -2)
        x = nn.functional.gelu(self.first(rows))
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = x + nn.functional.gelu(norm(convolution(x)))
            x = nn.functional.avg_pool1d(x, 2, ceil_mode=True)
        parts = [power.flatten(-2), rows.mean(-1), rows.amax(-1), x.mean(-1), _deviation(x), x.amax(-1)]
        return cast(Tensor, self.output(torch.cat(parts, -1)))


class SpectrogramEncoder(_Encoder):
    """A vector for a piece of audio, from two-dimensional convolutions of its log-mel spectrum, as published ones.

    Stages of two 3 x 3 convolutions, halved in time and frequency by averages, then the mean over frequency, and the
    sum of the mean and the highest value over time.  Group normalisation, of one item, stands in the place of batch
    normalisation, so that an item comes out the same whatever is beside it.

    Args:
        sample_rate: Sample rate in Hz of the audio.
        signals: 2 for mid and side, 4 for left, right, mid and side.
        features: Length of the vector.
        bands: Mel bands between 30 Hz and 16 kHz.
        stages: Channels of each stage.
        residual: Add a convolution of its input to the output of each stage.

    Example:
        >>> encoder = dasp.mixing.SpectrogramEncoder(44100, features=16, stages=(8, 8))
        >>> encoder(torch.zeros(3, 2, 44100)).shape
        torch.Size([3, 16])
    """

    def __init__(
        self,
        sample_rate: float,
        signals: int = 2,
        features: int = 512,
        bands: int = 128,
        stages: Sequence[int] = (128, 128, 256, 256, 256, 256, 512),
        residual: bool = True,
    ) -> None:
        super().__init__(sample_rate, signals, features)
        self.frontend = _Frontend(sample_rate, bands)
        self.stages = nn.ModuleList()
        inputs = signals
        for channels in stages:
            stage = nn.ModuleDict(
                {
                    "first": empty(nn.Conv2d, inputs, channels, 3, padding=1, bias=False),
                    "first_norm": nn.GroupNorm(math.gcd(8, channels), channels),
                    "second": empty(nn.Conv2d, channels, channels, 3, padding=1, bias=False),
                    "second_norm": nn.GroupNorm(math.gcd(8, channels), channels),
                }
            )
            if residual:
                stage["direct"] = empty(nn.Conv2d, inputs, channels, 3, padding=1, bias=False)
            self.stages.append(stage)
            inputs = channels
        self.output = empty(nn.Linear, inputs, features)

    def _describe(self, signals: Tensor) -> Tensor:
        x = self.frontend(signals)
        if x.shape[-3] < self.signals:
            x = torch.cat([x, torch.full_like(x, math.log10(_SILENCE) + 5)], -3)
        for module in self.stages:
            stage = cast(nn.ModuleDict, module)
            y = torch.relu(stage["first_norm"](stage["first"](x)))
            y = stage["second_norm"](stage["second"](y))
            if "direct" in stage:
                y = y + stage["direct"](x)
            x = nn.functional.avg_pool2d(torch.relu(y), 2, ceil_mode=True)
        x = x.mean(-2)
        return torch.relu(self.output(x.mean(-1) + x.amax(-1)))


class WaveformEncoder(_Encoder):
    """A vector for a piece of audio, from strided convolutions of its waveform (in the manner of Koo et al. 2023).

    It reads audio at 44.1 kHz: at another sample rate it resamples, and then no gradient reaches the audio.

    Args:
        sample_rate: Sample rate in Hz of the audio.
        signals: 2 for mid and side, 4 for left, right, mid and side.
        features: Length of the vector.
        channels: Channels of each convolution.
        kernel_size: Taps of the first convolution; the others have 9.
        stride: Samples from one output of the first convolution to the next; it is 4 in the others.

    Example:
        >>> encoder = dasp.mixing.WaveformEncoder(48000, features=16)
        >>> encoder(torch.zeros(3, 1, 48000)).shape
        torch.Size([3, 16])
    """

    def __init__(
        self,
        sample_rate: float,
        signals: int = 2,
        features: int = 128,
        channels: Sequence[int] = (48, 64, 96, 128),
        kernel_size: int = 64,
        stride: int = 16,
    ) -> None:
        super().__init__(sample_rate, signals, features)
        self.kernel_size = kernel_size
        self.first = empty(nn.Conv1d, signals, channels[0], kernel_size, stride=stride)
        pairs = pairwise(channels)
        self.convolutions = nn.ModuleList(empty(nn.Conv1d, a, b, 9, stride=4, padding=4) for a, b in pairs)
        self.norms = nn.ModuleList(nn.GroupNorm(1, count) for count in channels)
        self.output = empty(nn.Linear, 3 * channels[-1], features)

    def _describe(self, signals: Tensor) -> Tensor:
        if signals.shape[-2] < self.signals:
            signals = torch.cat([signals, torch.zeros_like(signals)], -2)
        if self.sample_rate != _WAVEFORM_RATE:
            signals = resample(signals.detach(), int(self.sample_rate), _WAVEFORM_RATE)
        taps = self.kernel_size
        x = self.first(nn.functional.pad(signals, (taps // 2, taps - taps // 2)))
        # A layer norm of the whole item: levels are those of a loudness that is the same for all.
        x = nn.functional.gelu(self.norms[0](x))
        for convolution, norm in zip(self.convolutions, self.norms[1:], strict=True):
            x = nn.functional.gelu(norm(convolution(x)))
        return cast(Tensor, self.output(torch.cat([x.mean(-1), _deviation(x), x.amax(-1)], -1)))


def _deviation(x: Tensor) -> Tensor:
    """Standard deviation over the last dimension, with a finite gradient where it is 0."""
    return (x.var(-1, correction=0) + 1e-5).sqrt()


ENCODERS: dict[str, type[_Encoder]] = {
    "log_mel": LogMelEncoder,
    "spectrogram": SpectrogramEncoder,
    "waveform": WaveformEncoder,
}


def encoder(kind: str, sample_rate: float, signals: int, features: int, **options: Any) -> nn.Module:
    """An encoder by the name that configurations have for it."""
    return ENCODERS[kind](sample_rate, signals=signals, features=features, **options)
