"""The functions of dasp-pytorch on those of `dasp.functional`.

Audio is `(batch, channels, samples)`.  A parameter is a number, or a tensor with one value in all or one for each item,
of whatever shape: `(batch,)`, `(batch, 1)` and `(batch, 1, 1)` mean the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional
from torch import Tensor

import dasp.functional as F
from dasp._checks import check_audio, check_sample_rate, shape_text, working

__all__ = [
    "compressor",
    "distortion",
    "expander",
    "gain",
    "noise_shaped_reverberation",
    "parametric_eq",
    "stereo_bus",
    "stereo_panner",
    "stereo_widener",
]

# Times are from 10 % to 90 % of a step, which takes a one-pole smoother log(9) time constants.
_RISE = math.log(9)
# 10^(-3) in natural-logarithm units of amplitude.
_SIXTY_DB = math.log(1000)
_SIX_BANDS = ("low_shelf", "peaking", "peaking", "peaking", "peaking", "high_shelf")
# The level below which the detector of `dasp.functional.compressor` hears nothing.
_EPS = 1e-8
# Ten octaves, and a band on either side with which they cross over at 22 Hz and at 18 kHz.
_BANDS_HZ = (16.0, 31.5, 63.0, 125.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0, 16000.0, 20250.0)
# A band at -120 dB stands for one of gain 0, whose level in dB would be infinite.
_SILENT = 1e-6


def _per(name: str, argument: str, value: float | Tensor, shape: Sequence[int]) -> float | Tensor:
    """A number as it is, a tensor with one value in all or one for each of `shape` in that shape."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: {argument} is a {type(value).__name__}, expected a number or a tensor")
    if value.numel() == math.prod(shape):
        return value.reshape(tuple(shape))
    if value.numel() == 1:
        return value.reshape(())
    raise ValueError(
        f"{name}: {argument} has shape {shape_text(value.shape)}, expected one value or {math.prod(shape)} "
        f"of them, for {shape_text(shape)}"
    )


def _tensor(value: float | Tensor, x: Tensor, shape: Sequence[int]) -> Tensor:
    """What `_per` returns, as a tensor of a shape; in float64 as it is, else in the type that processors compute in."""
    dtype = working(x).dtype
    if not isinstance(value, Tensor):
        return torch.full(tuple(shape), value, dtype=dtype, device=x.device)
    return value.to(torch.promote_types(value.dtype, dtype)).expand(tuple(shape))


def _columns(name: str, values: Mapping[str, float | Tensor], x: Tensor, items: int) -> Tensor:
    """One value of each parameter for each item, `(items, parameters)`."""
    return torch.stack([_tensor(_per(name, n, v, (items,)), x, (items,)) for n, v in values.items()], -1)


def _check(name: str, x: Tensor, channels: Sequence[int] = ()) -> int:
    """Checks audio `(batch, channels, samples)`; returns the number of items."""
    check_audio(name, x, channels)
    if x.ndim != 3:
        raise ValueError(f"{name}: x has shape {shape_text(x.shape)}, expected (batch, channels, samples)")
    return x.shape[0]


def gain(x: Tensor, sample_rate: float, gain_db: float | Tensor) -> Tensor:
    """Scales audio, as :func:`dasp.functional.gain`.

    Args:
        x: Audio `(batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        gain_db: Gain in dB.

    Returns:
        Audio as x.

    Raises:
        TypeError: If x is not floating-point audio, or a parameter is neither number nor tensor.
        ValueError: If x does not have three dimensions, or a parameter has another number of values.
    """
    items = _check("gain", x)
    return F.gain(x, sample_rate, _per("gain", "gain_db", gain_db, (items,)))


def stereo_bus(x: Tensor, sample_rate: float, send_db: float | Tensor) -> Tensor:
    """Sums stereo tracks, as :func:`dasp.functional.stereo_bus`.

    Args:
        x: Tracks `(batch, 2, tracks, samples)`.
        sample_rate: Sample rate in Hz.
        send_db: Level of each track in dB, `(batch, tracks, 1)`.

    Returns:
        The bus `(batch, 2, samples)`.

    Raises:
        TypeError: If x is not floating-point audio, or send_db is neither number nor tensor.
        ValueError: If x has another shape, or send_db another number of values.
    """
    check_audio("stereo_bus", x)
    if x.ndim != 4 or x.shape[1] != 2:
        raise ValueError(f"stereo_bus: x has shape {shape_text(x.shape)}, expected (batch, 2, tracks, samples)")
    sends = _per("stereo_bus", "send_db", send_db, (x.shape[0], x.shape[2]))
    return F.stereo_bus(x.transpose(1, 2), sample_rate, sends)


def distortion(x: Tensor, sample_rate: float | Tensor, drive_db: float | Tensor | None = None) -> Tensor:
    """The hyperbolic tangent of amplified audio, as :func:`dasp.functional.distortion`.

    Args:
        x: Audio `(batch, channels, samples)`.
        sample_rate: Sample rate in Hz; without drive_db, the drive, as the first example of dasp-pytorch has it.
        drive_db: Drive in dB; it may also have a value for each channel, or for each sample.

    Returns:
        Audio as x.

    Raises:
        TypeError: If x is not floating-point audio, or drive_db is neither number nor tensor.
        ValueError: If x does not have three dimensions, or drive_db has another number of values.
    """
    name = "distortion"
    items = _check(name, x)
    if drive_db is None:
        # The rate has no part in the effect.
        sample_rate, drive_db = 44100.0, sample_rate
    given = drive_db.numel() if isinstance(drive_db, Tensor) else 1
    wider = [shape for shape in (x.shape[:2], x.shape) if given == math.prod(shape) != items]
    drive = _per(name, "drive_db", drive_db, wider[0] if wider else (items,))
    # A rate that is a tensor is refused there.
    return F.distortion(x, sample_rate, drive)  # type: ignore[arg-type]


def parametric_eq(
    x: Tensor,
    sample_rate: float,
    low_shelf_gain_db: float | Tensor,
    low_shelf_cutoff_freq: float | Tensor,
    low_shelf_q_factor: float | Tensor,
    band0_gain_db: float | Tensor,
    band0_cutoff_freq: float | Tensor,
    band0_q_factor: float | Tensor,
    band1_gain_db: float | Tensor,
    band1_cutoff_freq: float | Tensor,
    band1_q_factor: float | Tensor,
    band2_gain_db: float | Tensor,
    band2_cutoff_freq: float | Tensor,
    band2_q_factor: float | Tensor,
    band3_gain_db: float | Tensor,
    band3_cutoff_freq: float | Tensor,
    band3_q_factor: float | Tensor,
    high_shelf_gain_db: float | Tensor,
    high_shelf_cutoff_freq: float | Tensor,
    high_shelf_q_factor: float | Tensor,
) -> Tensor:
    """Low shelf, four peaks and high shelf, as :func:`dasp.functional.parametric_eq`.

    Args:
        x: Audio `(batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        low_shelf_gain_db: Gain in dB.
        low_shelf_cutoff_freq: Frequency in Hz.
        low_shelf_q_factor: Quality factor.
        band0_gain_db: Gain in dB.
        band0_cutoff_freq: Frequency in Hz.
        band0_q_factor: Quality factor.
        band1_gain_db: Gain in dB.
        band1_cutoff_freq: Frequency in Hz.
        band1_q_factor: Quality factor.
        band2_gain_db: Gain in dB.
        band2_cutoff_freq: Frequency in Hz.
        band2_q_factor: Quality factor.
        band3_gain_db: Gain in dB.
        band3_cutoff_freq: Frequency in Hz.
        band3_q_factor: Quality factor.
        high_shelf_gain_db: Gain in dB.
        high_shelf_cutoff_freq: Frequency in Hz.
        high_shelf_q_factor: Quality factor.

    Returns:
        Audio as x.

    Raises:
        TypeError: If x is not floating-point audio, or a parameter is neither number nor tensor.
        ValueError: If x does not have three dimensions, or a parameter has another number of values.
    """
    items = _check("parametric_eq", x)
    bands = {
        "low_shelf": (low_shelf_gain_db, low_shelf_cutoff_freq, low_shelf_q_factor),
        "band0": (band0_gain_db, band0_cutoff_freq, band0_q_factor),
        "band1": (band1_gain_db, band1_cutoff_freq, band1_q_factor),
        "band2": (band2_gain_db, band2_cutoff_freq, band2_q_factor),
        "band3": (band3_gain_db, band3_cutoff_freq, band3_q_factor),
        "high_shelf": (high_shelf_gain_db, high_shelf_cutoff_freq, high_shelf_q_factor),
    }
    gain_db, frequency_hz, q = (
        _columns("parametric_eq", {f"{band}_{kind}": values[place] for band, values in bands.items()}, x, items)
        for place, kind in enumerate(("gain_db", "cutoff_freq", "q_factor"))
    )
    return F.parametric_eq(x, sample_rate, frequency_hz, gain_db, q, _SIX_BANDS)


def compressor(
    x: Tensor,
    sample_rate: float,
    threshold_db: float | Tensor,
    ratio: float | Tensor,
    attack_ms: float | Tensor,
    release_ms: float | Tensor,
    knee_db: float | Tensor,
    makeup_gain_db: float | Tensor,
    eps: float = 1e-8,
    lookahead_samples: int = 0,
) -> Tensor:
    """Feed-forward compressor, as :func:`dasp.functional.compressor`, which hears the loudest channel.

    Args:
        x: Audio `(batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        threshold_db: Threshold in dB.
        ratio: Ratio.
        attack_ms: Time in which a step of the gain gets from 10 % to 90 % while it falls.
        release_ms: The same while it rises.
        knee_db: Width of the knee in dB.
        makeup_gain_db: Gain after compression in dB.
        eps: Amplitude below which the level does not fall; less than 1e-8 acts as that.
        lookahead_samples: Samples by which the audio is late against its gain; silence comes before it.

    Returns:
        Audio as x.

    Raises:
        TypeError: If x is not floating-point audio, or a parameter is neither number nor tensor.
        ValueError: If x does not have three dimensions, a parameter has another number of values, or
            lookahead_samples is less than 0.
    """
    name = "compressor"
    items = _check(name, x)
    if lookahead_samples < 0:
        raise ValueError(f"{name}: lookahead_samples is {lookahead_samples}, expected 0 or more")
    values = {
        "threshold_db": threshold_db,
        "ratio": ratio,
        "attack_ms": attack_ms,
        "release_ms": release_ms,
        "knee_db": knee_db,
        "makeup_gain_db": makeup_gain_db,
    }
    threshold, slope, attack, release, knee, makeup = (
        _per(name, argument, value, (items,)) for argument, value in values.items()
    )
    attack, release = attack / _RISE, release / _RISE
    if lookahead_samples == 0 and eps <= _EPS:
        return F.compressor(x, sample_rate, threshold, slope, attack, release, knee, makeup)
    heard = x if eps <= _EPS else x.abs().clamp_min(eps)
    curve_db = F.compressor_gain(heard, sample_rate, threshold, slope, attack, release, knee)
    late = torch.nn.functional.pad(x, (lookahead_samples, 0))[..., : x.shape[-1]]
    return F.gain(F.gain(late, sample_rate, curve_db), sample_rate, makeup)


def expander(
    x: Tensor,
    sample_rate: float,
    threshold_db: float | Tensor,
    ratio: float | Tensor,
    attack_ms: float | Tensor,
    release_ms: float | Tensor,
    knee_db: float | Tensor,
    range_db: float | Tensor = 40.0,
) -> Tensor:
    """Downward expander, as :func:`dasp.functional.expander`; dasp-pytorch names it and has none.

    Args:
        x: Audio `(batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        threshold_db: Threshold in dB.
        ratio: Ratio.
        attack_ms: Time in which a step of the gain gets from 10 % to 90 % while it rises.
        release_ms: The same while it falls.
        knee_db: Width of the knee in dB.
        range_db: Most attenuation in dB.

    Returns:
        Audio as x.

    Raises:
        TypeError: If x is not floating-point audio, or a parameter is neither number nor tensor.
        ValueError: If x does not have three dimensions, or a parameter has another number of values.
    """
    items = _check("expander", x)
    values = {
        "threshold_db": threshold_db,
        "ratio": ratio,
        "attack_ms": attack_ms,
        "release_ms": release_ms,
        "knee_db": knee_db,
        "range_db": range_db,
    }
    threshold, slope, attack, release, knee, depth = (
        _per("expander", argument, value, (items,)) for argument, value in values.items()
    )
    return F.expander(x, sample_rate, threshold, slope, attack / _RISE, release / _RISE, knee, depth)


def noise_shaped_reverberation(
    x: Tensor,
    sample_rate: float,
    band0_gain: float | Tensor,
    band1_gain: float | Tensor,
    band2_gain: float | Tensor,
    band3_gain: float | Tensor,
    band4_gain: float | Tensor,
    band5_gain: float | Tensor,
    band6_gain: float | Tensor,
    band7_gain: float | Tensor,
    band8_gain: float | Tensor,
    band9_gain: float | Tensor,
    band10_gain: float | Tensor,
    band11_gain: float | Tensor,
    band0_decay: float | Tensor,
    band1_decay: float | Tensor,
    band2_decay: float | Tensor,
    band3_decay: float | Tensor,
    band4_decay: float | Tensor,
    band5_decay: float | Tensor,
    band6_decay: float | Tensor,
    band7_decay: float | Tensor,
    band8_decay: float | Tensor,
    band9_decay: float | Tensor,
    band10_decay: float | Tensor,
    band11_decay: float | Tensor,
    mix: float | Tensor,
    num_samples: int = 65536,
    num_bandpass_taps: int = 1023,
) -> Tensor:
    """Reverberation by an impulse response of decaying noise, that of :func:`dasp.functional.noise_shaped_reverb`.

    The response is the mean over twelve bands of gain exp(-(1 + 10 decay) n / num_samples) times noise of unit
    variance, where n runs over num_samples samples.  Bands 1 to 10 are the octaves around 31.5 Hz to 16 kHz, band 0 is
    what lies below and band 11 what lies above 18 kHz; bands centred above half the sample rate are silent.

    Args:
        x: Audio `(batch, 1 or 2, samples)`.
        sample_rate: Sample rate in Hz.
        band0_gain: Gain of a band, 0 to 1.
        band1_gain: Gain of a band, 0 to 1.
        band2_gain: Gain of a band, 0 to 1.
        band3_gain: Gain of a band, 0 to 1.
        band4_gain: Gain of a band, 0 to 1.
        band5_gain: Gain of a band, 0 to 1.
        band6_gain: Gain of a band, 0 to 1.
        band7_gain: Gain of a band, 0 to 1.
        band8_gain: Gain of a band, 0 to 1.
        band9_gain: Gain of a band, 0 to 1.
        band10_gain: Gain of a band, 0 to 1.
        band11_gain: Gain of a band, 0 to 1.
        band0_decay: Decay of a band, 0 for the slowest to 1.
        band1_decay: Decay of a band, 0 for the slowest to 1.
        band2_decay: Decay of a band, 0 for the slowest to 1.
        band3_decay: Decay of a band, 0 for the slowest to 1.
        band4_decay: Decay of a band, 0 for the slowest to 1.
        band5_decay: Decay of a band, 0 for the slowest to 1.
        band6_decay: Decay of a band, 0 for the slowest to 1.
        band7_decay: Decay of a band, 0 for the slowest to 1.
        band8_decay: Decay of a band, 0 for the slowest to 1.
        band9_decay: Decay of a band, 0 for the slowest to 1.
        band10_decay: Decay of a band, 0 for the slowest to 1.
        band11_decay: Decay of a band, 0 for the slowest to 1.
        mix: Share of the reverberation, 0 to 1.
        num_samples: Length of the impulse response.
        num_bandpass_taps: Not used: bands are split by filters of a quarter of a second.

    Returns:
        Audio `(batch, 2, samples)`, the same in every call.

    Raises:
        TypeError: If x is not floating-point audio, or a parameter is neither number nor tensor.
        ValueError: If x does not have three dimensions or has more than two channels, a parameter has another number
            of values, or num_samples is less than 1.
    """
    name = "noise_shaped_reverberation"
    items = _check(name, x, (1, 2))
    check_sample_rate(name, sample_rate)
    if num_samples < 1:
        raise ValueError(f"{name}: num_samples is {num_samples}, expected 1 or more")
    # fmt: off
    bands = {
        "gain": [
            band0_gain, band1_gain, band2_gain, band3_gain, band4_gain, band5_gain,
            band6_gain, band7_gain, band8_gain, band9_gain, band10_gain, band11_gain,
        ],
        "decay": [
            band0_decay, band1_decay, band2_decay, band3_decay, band4_decay, band5_decay,
            band6_decay, band7_decay, band8_decay, band9_decay, band10_decay, band11_decay,
        ],
    }
    # fmt: on
    gains, decays = (
        _columns(name, {f"band{band}_{kind}": value for band, value in enumerate(values)}, x, items)
        for kind, values in bands.items()
    )
    # Decay per sample in natural-logarithm units of amplitude.
    rate = (1 + 10 * decays) / num_samples
    # Bands are averaged; the other function makes up for the power that a decay costs.
    level = gains / (len(_BANDS_HZ) * torch.sqrt(-torch.expm1(-2 * rate)))
    # The value is bounded, its gradient passes: with respect to a gain of 0 it is that of any other.
    level = level + (level.clamp_min(_SILENT) - level).detach()
    impulse = torch.nn.functional.pad(working(x).new_ones(1, 1, 1), (0, num_samples - 1)).expand(items, 1, num_samples)
    response = F.noise_shaped_reverb(
        impulse,
        sample_rate,
        band_gain_db=20 * torch.log10(level),
        decay_s=_SIXTY_DB / (rate * sample_rate),
        mix=1.0,
        bands_hz=_BANDS_HZ,
    )
    return F.convolution_reverb(x, sample_rate, response, _per(name, "mix", mix, (items,)))


def stereo_widener(x: Tensor, sample_rate: float, width: float | Tensor) -> Tensor:
    """Scales mid by 2 (1 - width) and side by 2 width, from what :func:`dasp.functional.stereo_widener` splits.

    Args:
        x: Audio `(batch, 2, samples)`.
        sample_rate: Sample rate in Hz.
        width: 0 for mono, 0.5 to leave it as it is, 1 for the side alone.

    Returns:
        Audio as x.

    Raises:
        TypeError: If x is not floating-point audio, or width is neither number nor tensor.
        ValueError: If x does not have three dimensions and two channels, or width has another number of values.
    """
    items = _check("stereo_widener", x, (2,))
    amount = _tensor(_per("stereo_widener", "width", width, (items,)), x, (items,)).reshape(items, 1, 1)
    mid = F.stereo_widener(x, sample_rate, 0.0)
    return (2 * ((1 - amount) * mid + amount * (x - mid))).to(x.dtype)


def stereo_panner(x: Tensor, sample_rate: float, pan: float | Tensor) -> Tensor:
    """Places tracks, as :func:`dasp.functional.stereo_panner` with its law of -4.5 dB.

    Args:
        x: Tracks `(batch, tracks, samples)`.
        sample_rate: Sample rate in Hz.
        pan: Position of each track, `(batch, tracks)`, from 0, left, to 1, right.

    Returns:
        Tracks `(batch, 2, tracks, samples)`, as `stereo_bus` takes them.

    Raises:
        TypeError: If x is not floating-point audio, or pan is neither number nor tensor.
        ValueError: If x does not have three dimensions, or pan has another number of values.
    """
    items = _check("stereo_panner", x)
    position = _per("stereo_panner", "pan", pan, (items, x.shape[1]))
    y = F.stereo_panner(x.unsqueeze(-2), sample_rate, 2 * position - 1, law="-4.5dB")
    return y.transpose(1, 2).contiguous()
