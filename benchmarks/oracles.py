"""What each processor must give, in float64 and independent of `dasp`: numpy, scipy and plain loops.

An oracle takes `(x, sample_rate, controls, options)` with audio `(*batch, channels, samples)` and controls `(*batch)`
or `(*batch, bands)`, and follows the definition in the processor's docstring.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.signal

Array: TypeAlias = npt.NDArray[np.float64]
Controls: TypeAlias = Mapping[str, Array]
Oracle: TypeAlias = Callable[[Array, float, Controls, Mapping[str, Any]], Array]


def per_item(control: Array) -> Array:
    """A control `(*batch)` beside audio `(*batch, channels, samples)`."""
    return control[..., None, None]


def factor(level_db: Array) -> Array:
    """dB to a factor, beside audio."""
    return np.asarray(10 ** (per_item(level_db) / 20))


def biquad(kind: str, sample_rate: float, frequency_hz: Array, gain_db: Array | float, q: Array | float) -> Array:
    """One section of the Audio EQ Cookbook, `(*shape, 6)` with a0 = 1."""
    w = 2 * np.pi * frequency_hz / sample_rate
    cos, alpha, amplitude = np.cos(w), np.sin(w) / (2 * np.asarray(q)), 10 ** (np.asarray(gain_db) / 40)
    slope = 2 * np.sqrt(amplitude) * alpha
    a = (1 + alpha, -2 * cos, 1 - alpha)
    if kind == "lowpass":
        b = ((1 - cos) / 2, 1 - cos, (1 - cos) / 2)
    elif kind == "highpass":
        b = ((1 + cos) / 2, -(1 + cos), (1 + cos) / 2)
    elif kind == "bandpass":
        b = (alpha, 0 * alpha, -alpha)
    elif kind == "notch":
        b = (1 + 0 * cos, -2 * cos, 1 + 0 * cos)
    elif kind == "allpass":
        b = (1 - alpha, -2 * cos, 1 + alpha)
    elif kind == "peaking":
        b = (1 + alpha * amplitude, -2 * cos, 1 - alpha * amplitude)
        a = (1 + alpha / amplitude, -2 * cos, 1 - alpha / amplitude)
    elif kind in ("low_shelf", "high_shelf"):
        sign = 1 if kind == "low_shelf" else -1
        up, down = amplitude + 1, amplitude - 1
        b = (
            amplitude * (up - sign * down * cos + slope),
            sign * 2 * amplitude * (down - sign * up * cos),
            amplitude * (up - sign * down * cos - slope),
        )
        a = (
            up + sign * down * cos + slope,
            sign * -2 * (down + sign * up * cos),
            up + sign * down * cos - slope,
        )
    else:
        raise ValueError(f"kind is {kind!r}, expected one of the Audio EQ Cookbook")
    return np.asarray(np.stack(np.broadcast_arrays(*b, *a), -1) / a[0][..., None])


def cascade(x: Array, sos: Array) -> Array:
    """Filters each item `(channels, samples)` by its `(sections, 6)`."""
    rows = x.reshape(-1, *x.shape[-2:])
    filters = np.array(np.broadcast_to(sos, (*x.shape[:-2], *sos.shape[-2:]))).reshape(-1, *sos.shape[-2:])
    filtered = [scipy.signal.sosfilt(item, row, axis=-1) for row, item in zip(rows, filters, strict=True)]
    return np.stack(filtered).reshape(x.shape)


def equalizer_sos(sample_rate: float, controls: Controls, kinds: Sequence[str]) -> Array:
    """The sections of an equaliser, `(*batch, bands, 6)`."""
    f, g, q = (controls[name] for name in ("frequency_hz", "gain_db", "q"))
    return np.stack(
        [biquad(kind, sample_rate, f[..., band], g[..., band], q[..., band]) for band, kind in enumerate(kinds)], -2
    )


def _filter(kind: str) -> Oracle:
    def oracle(x: Array, sample_rate: float, controls: Controls, options: Mapping[str, Any]) -> Array:
        gain_db = controls.get("gain_db", np.zeros(()))
        return cascade(x, biquad(kind, sample_rate, controls["frequency_hz"], gain_db, controls["q"])[..., None, :])

    return oracle


def _parametric_eq(x: Array, sample_rate: float, controls: Controls, options: Mapping[str, Any]) -> Array:
    return cascade(x, equalizer_sos(sample_rate, controls, options["kinds"]))


def branching_one_pole(g: Array, falling: Array, rising: Array, start: float = 0.0) -> Array:
    """y[n] = p y[n-1] + (1 - p) g[n] along rows, p = falling where g[n] < y[n-1], else rising."""
    out = np.empty_like(g)
    for row, down, up, target in zip(g, falling.tolist(), rising.tolist(), out, strict=True):
        last, smoothed = start, []
        for value in row.tolist():
            p = down if value < last else up
            last = p * last + (1 - p) * value
            smoothed.append(last)
        target[:] = smoothed
    return out


def first_order(a: Array, x: Array) -> Array:
    """y[n] = a[n] y[n-1] + x[n] along rows."""
    out = np.empty_like(x)
    for row, values, target in zip(a.tolist(), x.tolist(), out, strict=True):
        last, y = 0.0, []
        for coefficient, value in zip(row, values, strict=True):
            last = coefficient * last + value
            y.append(last)
        target[:] = y
    return out


def soft_knee(over: Array, width: Array) -> Array:
    """max(over, 0) with a quadratic knee."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = (over + width / 2) ** 2 / (2 * width)
    return np.where(2 * np.abs(over) < width, inside, np.maximum(over, 0))


def pole(time_ms: Array, sample_rate: float) -> Array:
    """exp(-1 / (t sample_rate))."""
    return np.asarray(np.exp(-1 / (time_ms / 1000 * sample_rate)))


def level_db(amplitude: Array) -> Array:
    """Level with the floor of -160 dB."""
    return np.asarray(20 * np.log10(np.maximum(amplitude, 1e-8)))


def _dynamics(kind: str) -> Oracle:
    def oracle(x: Array, sample_rate: float, controls: Controls, options: Mapping[str, Any]) -> Array:
        if options["link"] != "max":
            raise ValueError(f"link is {options['link']!r}, expected 'max'")
        level = level_db(np.abs(x).max(-2, keepdims=True))
        threshold, ratio, knee = (per_item(controls[name]) for name in ("threshold_db", "ratio", "knee_db"))
        attack, release = (pole(controls[name], sample_rate).reshape(-1) for name in ("attack_ms", "release_ms"))
        if kind == "compressor":
            g = (1 / ratio - 1) * soft_knee(level - threshold, knee)
            falling, rising, makeup_db = attack, release, per_item(controls["makeup_gain_db"])
        else:
            g = np.maximum((1 - ratio) * soft_knee(threshold - level, knee), -per_item(controls["range_db"]))
            falling, rising, makeup_db = release, attack, np.zeros(())
        smoothed = branching_one_pole(g.reshape(-1, g.shape[-1]), falling, rising).reshape(g.shape)
        return np.asarray(x * 10 ** ((smoothed + makeup_db) / 20))

    return oracle


def _distortion(x: Array, sample_rate: float, controls: Controls, options: Mapping[str, Any]) -> Array:
    if options["curve"] != "tanh":
        raise ValueError(f"curve is {options['curve']!r}, expected 'tanh'")
    return np.asarray(np.tanh(x * factor(controls["drive_db"])))


def _convolve(x: Array, response: Array) -> Array:
    return np.asarray(scipy.signal.fftconvolve(x, response, axes=-1)[..., : x.shape[-1]])


def _convolution_reverb(x: Array, sample_rate: float, controls: Controls, options: Mapping[str, Any]) -> Array:
    response, mix = controls["impulse_response"], per_item(controls["mix"])
    wet = _convolve(x, np.broadcast_to(response, (*x.shape[:-1], response.shape[-1])))
    return np.asarray((1 - mix) * x + mix * wet)


def _noise_shaped_reverb(x: Array, sample_rate: float, controls: Controls, options: Mapping[str, Any]) -> Array:
    """The noise is that of `dasp`, whose seed defines it; the pre-delay must be a whole number of samples."""
    import torch

    from dasp.kernels import band_noise

    decay, gain_db, mix = controls["decay_s"], controls["band_gain_db"], per_item(controls["mix"])
    delay = controls["pre_delay_ms"] * sample_rate / 1000
    if not np.allclose(delay, np.round(delay), atol=1e-3):
        raise ValueError("pre_delay_ms is not a whole number of samples")
    length = max(1, min(math.ceil(decay.max() * sample_rate) + 1, x.shape[-1]))
    like = torch.zeros((), dtype=torch.float64)
    noise = band_noise(options["seed"], sample_rate, tuple(options["bands_hz"]), length, like).numpy()
    rate = math.log(1000) / (decay * sample_rate)
    level = 10 ** (gain_db / 20) * np.sqrt(-np.expm1(-2 * rate))
    time = np.arange(length)
    envelope = level[..., None] * np.exp(-rate[..., None] * time)
    response = np.einsum("...bn,bcn->...cn", envelope, noise)
    response = np.where((time <= decay.max(-1)[..., None] * sample_rate)[..., None, :], response, 0)
    wet = _convolve(np.broadcast_to(x, (*x.shape[:-2], 2, x.shape[-1])), response)
    for item in np.ndindex(x.shape[:-2]):
        shift = round(float(np.broadcast_to(delay, x.shape[:-2])[item]))
        wet[item] = np.concatenate([np.zeros((2, shift)), wet[item]], -1)[:, : x.shape[-1]]
    return np.asarray((1 - mix) * x + mix * wet)


def _stereo_panner(x: Array, sample_rate: float, controls: Controls, options: Mapping[str, Any]) -> Array:
    if options["law"] != "constant_power":
        raise ValueError(f"law is {options['law']!r}, expected 'constant_power'")
    theta = (per_item(controls["pan"]) + 1) * np.pi / 4
    return np.asarray(x * np.concatenate([np.cos(theta), np.sin(theta)], -2))


def _stereo_widener(x: Array, sample_rate: float, controls: Controls, options: Mapping[str, Any]) -> Array:
    left, right = x[..., :1, :], x[..., 1:, :]
    mid, side = (left + right) / 2, per_item(controls["width"]) * (left - right) / 2
    return np.concatenate([mid + side, mid - side], -2)


def integrated_loudness(x: Array, sample_rate: float) -> Array:
    """ITU-R BS.1770-5, Annex 1, of mono or stereo audio, item by item and block by block."""
    k = math.tan(math.pi * 1681.974450955533 / sample_rate)
    high, q = 10 ** (3.999843853973347 / 20), 0.7071752369554196
    middle, a0 = high**0.4996667741545416 * k / q, 1 + k / q + k * k
    shelf = [high + middle + k * k, 2 * (k * k - high), high - middle + k * k, a0, 2 * (k * k - 1), 1 - k / q + k * k]
    k, q = math.tan(math.pi * 38.13547087602444 / sample_rate), 0.5003270373238773
    a0 = 1 + k / q + k * k
    highpass = [1.0, -2.0, 1.0, 1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0]
    y = scipy.signal.sosfilt([[value / shelf[3] for value in shelf], highpass], x, axis=-1)
    hop = round(0.1 * sample_rate)
    loudness = []
    for item in y:
        starts = range(0, item.shape[-1] - 4 * hop + 1, hop)
        power = np.array([np.square(item[:, start : start + 4 * hop]).mean(-1).sum() for start in starts])
        for relative in (0.0, 0.1):
            power = power[power > max(10 ** ((-70 + 0.691) / 10), relative * power.mean())]
        loudness.append(-0.691 + 10 * math.log10(power.mean()))
    return np.array(loudness)


ORACLES: dict[str, Oracle] = {
    **{kind: _filter(kind) for kind in ("lowpass", "highpass", "bandpass", "notch", "allpass")},
    **{kind: _filter(kind) for kind in ("peaking", "low_shelf", "high_shelf")},
    "compressor": _dynamics("compressor"),
    "convolution_reverb": _convolution_reverb,
    "distortion": _distortion,
    "expander": _dynamics("expander"),
    "gain": lambda x, sample_rate, controls, options: np.asarray(x * factor(controls["gain_db"])),
    "noise_shaped_reverb": _noise_shaped_reverb,
    "parametric_eq": _parametric_eq,
    "polarity": lambda x, sample_rate, controls, options: np.asarray(x * (1 - 2 * per_item(controls["invert"]))),
    "stereo_bus": lambda x, sample_rate, controls, options: np.asarray((x * factor(controls["send_db"])).sum(-3)),
    "stereo_panner": _stereo_panner,
    "stereo_widener": _stereo_widener,
}
"""By name of the processor; one without an oracle here is compared with itself in float64."""
