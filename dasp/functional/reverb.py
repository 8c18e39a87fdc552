"""Reverberation: decaying noise in octave bands, and convolution with any impulse response."""

from __future__ import annotations

import math
from typing import Annotated

import scipy.fft
import torch
from torch import Tensor

from dasp._checks import broadcasts, check_audio, check_call, control
from dasp._spec import PROCESSORS, Control, Param, Signal, processor
from dasp.functional.level import amplitude
from dasp.kernels import band_noise

OCTAVES_HZ = (31.25, 62.5, 125.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0, 16000.0)
"""Centres of the default bands."""

# Shorter decays are impulses at any sample rate in use.
_SHORTEST_DECAY_S = 1e-3
# Decay over T60 in natural-logarithm units of amplitude.
_SIXTY_DB = math.log(1000)


def _longest(argument: str, value: Tensor) -> float:
    """The largest value of a control, or the top of its usual range where values cannot be read."""
    top = PROCESSORS["noise_shaped_reverb"].controls[argument].high
    if torch.compiler.is_compiling() or value.numel() == 0:
        return top
    try:
        largest = float(value.detach().amax())
    except RuntimeError:  # Under vmap a value has no number.
        return top
    # One bad item must not decide the length for the others: NaN and infinity count as the top of the range.
    if not math.isfinite(largest):
        finite = value.detach()[torch.isfinite(value.detach())]
        largest = max(top, float(finite.amax())) if finite.numel() else top
    return largest


def _impulse_response(
    decay: Tensor, band_gain: Tensor, sample_rate: float, seed: int, bands_hz: tuple[float, ...], samples: int
) -> Tensor:
    """`(*batch, 2, length)` from controls `(*batch, bands)`; never longer than the audio."""
    decay = decay.clamp_min(_SHORTEST_DECAY_S)
    length = max(1, min(math.ceil(_longest("decay_s", decay) * sample_rate) + 1, samples))
    noise = band_noise(seed, sample_rate, bands_hz, length, decay)
    rate = _SIXTY_DB / (decay * sample_rate)
    # The sum of exp(-2 rate n) over all n is 1 / (1 - exp(-2 rate)): at 0 dB white noise keeps its power.
    level = amplitude(band_gain) * torch.sqrt(-torch.expm1(-2 * rate))
    time = torch.arange(length, dtype=decay.dtype, device=decay.device)
    response = torch.zeros((*decay.shape[:-1], 2, length), dtype=decay.dtype, device=decay.device)
    for band in range(decay.shape[-1]):
        envelope = level[..., band, None] * torch.exp(-rate[..., band, None] * time)
        response = response + envelope.unsqueeze(-2) * noise[band]
    # Each item ends where its own longest decay has reached -60 dB, however long the noise is.
    end = decay.detach().amax(-1, keepdim=True) * sample_rate
    return torch.where((time <= end).unsqueeze(-2), response, 0.0)


def _delay_spectrum(delay: Tensor, size: int) -> Tensor:
    """Spectrum of a delay in samples, third-order Lagrange interpolation between whole ones; exact for those."""
    whole = (torch.floor(delay.detach()) - 1).clamp_min(0)
    part = delay - whole
    weights = [
        (part - 1) * (part - 2) * (part - 3) / -6,
        part * (part - 2) * (part - 3) / 2,
        part * (part - 1) * (part - 3) / -2,
        part * (part - 1) * (part - 2) / 6,
    ]
    index = torch.arange(size // 2 + 1, dtype=torch.float64, device=delay.device)
    # Whole delays times indices are exact in float64, where their phases are reduced before they lose precision.
    phase = torch.remainder(whole.double() * index, size).to(delay.dtype) * (-2 * math.pi / size)
    angle = (index * (-2 * math.pi / size)).to(delay.dtype)
    step = torch.polar(torch.ones_like(angle), angle)
    first, second, third, fourth = weights
    return torch.polar(torch.ones_like(phase), phase) * (first + step * (second + step * (third + step * fourth)))


def _transform_length(samples: int) -> int:
    """An even length of at least `samples` that transforms fast; under compile it may be symbolic."""
    if torch.compiler.is_compiling():
        return (samples + 4095) // 4096 * 4096
    return 2 * int(scipy.fft.next_fast_len((samples + 1) // 2))


def _convolve(x: Tensor, response: Tensor, delay: Tensor | None, longest_delay: int) -> Tensor:
    """The first samples of x * response, as many as x has; channels broadcast."""
    samples = x.shape[-1]
    if x.numel() == 0:
        return x * response[..., :1]
    size = _transform_length(samples + response.shape[-1] - 1 + longest_delay)
    spectrum = torch.fft.rfft(response, size)
    if delay is not None:
        spectrum = spectrum * _delay_spectrum(delay, size)
    y: Tensor = torch.fft.irfft(torch.fft.rfft(x, size) * spectrum, size)
    return y[..., :samples]


@processor(channels=(1, 2), channels_out=2, linear=True, fft=True)
def noise_shaped_reverb(
    x: Tensor,
    sample_rate: float,
    band_gain_db: Annotated[Control, Param("dB", -48, 12, meaning="Level of each band.", size="bands_hz")] = 0.0,
    decay_s: Annotated[
        Control,
        Param("s", 0.05, 5, "log", "T60 of each band, the time to decay by 60 dB.", size="bands_hz", domain=(0, 60)),
    ] = 1.0,
    mix: Annotated[Control, Param("", 0, 1, meaning="Share of the reverberation.", domain=(0, 1))] = 0.3,
    pre_delay_ms: Annotated[Control, Param("ms", 0, 100, meaning="Delay of the reverberation.", domain=(0, 500))] = 0.0,
    seed: int = 0,
    bands_hz: tuple[float, ...] = OCTAVES_HZ,
) -> Tensor:
    """Reverberation by noise that decays in each band with its own T60.

    h(t) = sum over bands of 10^(band_gain_db / 20) c 10^(-3 t / decay_s) n(t), with band-filtered noise n that depends
    on `seed` alone, other noise in each channel, and c such that white noise keeps its power at 0 dB, whatever the
    decay.
    y = (1 - mix) x + mix h * x, delayed by pre_delay_ms.

    Args:
        x: Audio `(*batch, 1 or 2, samples)`.
        sample_rate: Sample rate in Hz.
        seed: Seed of the noise.
        bands_hz: Centres of the bands, rising; they cross over on a logarithmic scale, and the outer ones reach to 0 Hz
            and to half the sample rate.  Bands centred above that are silent.

    Returns:
        Audio `(*batch, 2, samples)`; the tail beyond the last sample is cut.  The impulse response ends where the
        longest decay of an item has reached -60 dB.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If x has more than two channels, or a control does not have one value per band, does not match x,
            differs between channels or changes with time.

    Domain:
        decay_s acts as clamped to at least 1 ms.  Under torch.compile and vmap, where values cannot be read, an impulse
        response ends at the top of the usual range, 5 s, and a pre-delay must stay within its usual range.

    Example:
        >>> F.noise_shaped_reverb(torch.zeros(1, 4410), 44100, decay_s=0.5).shape
        torch.Size([2, 4410])
    """
    name = "noise_shaped_reverb"
    audio = check_call(name, x, sample_rate)
    gains, decays = (
        _one_setting(name, argument, control(name, argument, value, audio, size=len(bands_hz))).squeeze(-2)
        for argument, value in (("band_gain_db", band_gain_db), ("decay_s", decay_s))
    )
    amount, delay_ms = (
        _one_setting(name, argument, control(name, argument, value, audio).unsqueeze(-1)).squeeze(-1)
        for argument, value in (("mix", mix), ("pre_delay_ms", pre_delay_ms))
    )
    gains, decays = torch.broadcast_tensors(gains, decays)
    delay = None if isinstance(pre_delay_ms, (int, float)) and pre_delay_ms == 0 else delay_ms * (sample_rate / 1000)
    longest = 0 if delay is None else math.ceil(_longest("pre_delay_ms", delay_ms) * sample_rate / 1000) + 3
    response = _impulse_response(
        decays.squeeze(-2), gains.squeeze(-2), sample_rate, seed, tuple(bands_hz), audio.shape[-1]
    )
    wet = _convolve(audio, response, delay, longest)
    return ((1 - amount) * audio + amount * wet).to(x.dtype)


def _one_setting(name: str, argument: str, value: Tensor) -> Tensor:
    if value.shape[-3] != 1:
        raise ValueError(f"{name}: {argument} differs between channels, expected one value for both")
    return value


@processor(linear=True, fft=True)
def convolution_reverb(
    x: Tensor,
    sample_rate: float,
    impulse_response: Annotated[
        Tensor, Signal("Impulse response `(*batch, channels, taps)`; either channels or x may be mono.")
    ],
    mix: Annotated[Control, Param("", 0, 1, meaning="Share of the reverberation.", domain=(0, 1))] = 1.0,
) -> Tensor:
    """Reverberation by convolution with an impulse response: y = (1 - mix) x + mix (h * x).

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.

    Returns:
        Audio `(*batch, channels, samples)`, with as many channels as the wider of the two; the tail beyond the last
        sample is cut.

    Raises:
        TypeError: If x or impulse_response is not floating-point audio.
        ValueError: If impulse_response has no taps, or it or mix does not match x.

    Domain:
        Any real mix.

    Example:
        >>> h = torch.tensor([[0.0, 1.0]])
        >>> F.convolution_reverb(torch.tensor([[1.0, 2.0, 3.0]]), 44100, h).round()
        tensor([[0., 1., 2.]])
    """
    name = "convolution_reverb"
    audio = check_call(name, x, sample_rate)
    check_audio(name, impulse_response, argument="impulse_response")
    shape, channels = impulse_response.shape, audio.shape[-2]
    lead = shape[:-2]
    targets = audio.shape[: audio.ndim - 2][audio.ndim - 2 - len(lead) :] if len(lead) <= audio.ndim - 2 else None
    fits = targets is not None and broadcasts(lead, targets)
    if not fits or shape[-1] == 0 or (shape[-2] != channels and 1 not in (shape[-2], channels)):
        raise ValueError(
            f"{name}: impulse_response has shape {tuple(shape)}, expected ({channels}, taps) or "
            f"{(*audio.shape[:-1],)} + (taps,) to match x of shape {tuple(x.shape)}"
        )
    amount = control(name, "mix", mix, audio)
    response = impulse_response.to(audio.dtype)[..., : max(1, audio.shape[-1])]
    wet = _convolve(audio, response, None, 0)
    return ((1 - amount) * audio + amount * wet).to(x.dtype)
