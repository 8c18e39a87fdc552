"""What changes for those who come from another library: `python -m benchmarks.migration`.

Each pair is a processor of theirs and the one of dasp that takes its place, at the same settings in their own units.
What is measured is how far apart the outputs are, and, where the two are defined differently, the gains and times of
each.  A library that cannot be imported is named with the reason, and so is a pair that fails.

The wheel of torchaudio that PyPI has cannot be imported beside a torch without CUDA, and GRAFX needs torchaudio.
Without its compiled library torchaudio filters in Python, slowly and with the same equations.  In a folder of its own:

    pip install --no-deps --target peers GRAFX==0.6.0 einops torch-geometric xxhash psutil torchaudio==2.11.0
    rm peers/torchaudio/lib/*.so
    PYTHONPATH=peers python -m benchmarks.migration
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import scipy.signal
import torch
from torch import Tensor

import dasp.functional as F
from benchmarks import peers, report
from benchmarks.measure import errors_db
from benchmarks.tables import Record, Table

SCHEMA = 1
"""Changes with the meaning of the JSON's fields."""

SAMPLE_RATE = 44100.0
# The module that each library's pairs take.
MODULES = {"pedalboard": "pedalboard", "torchaudio": "torchaudio.functional", "GRAFX": "grafx.processors"}

# Steps of a constant, from quiet to loud and back, show what dynamics do without a detector's ripple.
_QUIET_DB, _LOUD_DB, _STEP = -60.0, -6.0, 44100


@dataclass(frozen=True)
class Finding:
    """A figure of a pair: one of the two together in `theirs`, or one of each.

    Attributes:
        quantity: What it is of.
        theirs: The figure, or in words what happens.
        dasp: That of dasp; None for a figure of both.
        unit: Its unit.
    """

    quantity: str
    theirs: float | str
    dasp: float | None
    unit: str


Measure: TypeAlias = Callable[[ModuleType], list[Finding]]


@dataclass(frozen=True)
class Pair:
    """A processor of a library and its counterpart.

    Attributes:
        library: The distribution.
        theirs: Its call.
        ours: The call of dasp that takes its place.
        settings: At which it is measured.
        measure: Measures it, given the library's module.
    """

    library: str
    theirs: str
    ours: str
    settings: str
    measure: Measure


PAIRS: list[Pair] = []


def _pair(library: str, theirs: str, ours: str, settings: str = "") -> Callable[[Measure], Measure]:
    def register(measure: Measure) -> Measure:
        PAIRS.append(Pair(library, theirs, ours, settings, measure))
        return measure

    return register


def noise(samples: int = 44100, level: float = 0.05, channels: int = 2) -> Tensor:
    """White noise (1, channels, samples), quiet enough that no filter here brings it to full scale."""
    generator = torch.Generator().manual_seed(0)
    return level * torch.randn(1, channels, samples, generator=generator)


def _difference(quantity: str, theirs: Tensor | np.ndarray[Any, Any], ours: Tensor) -> Finding:
    """The largest difference over the largest value of dasp's output."""
    y, exact = (np.asarray(value, np.float64).reshape(1, -1) for value in (theirs, ours.detach()))
    return Finding(quantity, float(errors_db(y, exact).max()), None, "dB")


def _raised(quantity: str, call: Callable[[], object]) -> Finding:
    """What a call raises."""
    try:
        call()
    except Exception as error:  # Whatever it raises is what is asked for.
        return Finding(quantity, f"raises {type(error).__name__}", None, "")
    return Finding(quantity, "works", None, "")


def _decibels(y: Tensor, x: Tensor) -> Tensor:
    return 20 * (y.double().abs() / x.double().abs()).log10().flatten()


def _response(call: Callable[[Tensor], Tensor], frequency_hz: Sequence[float]) -> list[float]:
    """Gains in dB, from the response to an impulse."""
    impulse = torch.zeros(1, 1, 1 << 16)
    impulse[..., 0] = 1
    response = call(impulse).double().flatten().numpy()
    _, gains = scipy.signal.freqz(response, worN=list(frequency_hz), fs=SAMPLE_RATE)
    return [20 * math.log10(abs(gain)) for gain in gains]


def _steps(odd: bool = False) -> Tensor:
    """A constant that is quiet, loud and quiet again, (1, 1, samples)."""
    parts = [10 ** (level_db / 20) * torch.ones(_STEP) for level_db in (_QUIET_DB, _LOUD_DB, _QUIET_DB)]
    x = torch.cat(parts)[None, None]
    return torch.cat([x, x[..., -1:]], -1) if odd else x


def _dynamics(call: Callable[[Tensor], Tensor], odd: bool = False) -> dict[str, float]:
    """The gains in both steady states, and how long 63 % of the way from one to the other takes."""
    x = _steps(odd)
    gain = _decibels(call(x), x)
    quiet, loud, after = gain[_STEP - 1], gain[2 * _STEP - 1], gain[-1]

    def until(part: Tensor, start: Tensor, end: Tensor) -> float:
        way = (part - start) / (end - start)
        return 1000 * float((way >= 1 - math.exp(-1)).nonzero()[0]) / SAMPLE_RATE

    return {
        "gain at -60 dB": float(quiet),
        "gain at -6 dB": float(loud),
        "63 % of the way up": until(gain[_STEP : 2 * _STEP], quiet, loud),
        "63 % of the way down": until(gain[2 * _STEP :], loud, after),
    }


def _compared(theirs: dict[str, float], ours: dict[str, float]) -> list[Finding]:
    return [Finding(name, value, ours[name], "ms" if name.startswith("63") else "dB") for name, value in theirs.items()]


# pedalboard: numpy arrays (channels, samples), float32, one setting.


def _played(plugin: Any, x: Tensor) -> Tensor:
    """What a plug-in of pedalboard makes of one item."""
    return torch.from_numpy(plugin(x[0].numpy(), SAMPLE_RATE))[None]


@_pair("pedalboard", "Gain(gain_db)", "gain(gain_db)", "-6 dB")
def _pedalboard_gain(module: ModuleType) -> list[Finding]:
    x = noise()
    return [_difference("", _played(module.Gain(-6.0), x), F.gain(x, SAMPLE_RATE, -6.0))]


@_pair("pedalboard", "Invert()", "polarity(invert=1)")
def _pedalboard_invert(module: ModuleType) -> list[Finding]:
    x = noise()
    return [_difference("", _played(module.Invert(), x), F.polarity(x, SAMPLE_RATE, 1.0))]


def _pedalboard_filter(theirs: str, ours: str) -> None:
    @_pair("pedalboard", f"{theirs}(cutoff_frequency_hz, gain_db, q)", f"{ours}(frequency_hz, gain_db, q)", "6 dB, q 2")
    def measure(module: ModuleType) -> list[Finding]:
        x, function = noise(), getattr(F, ours)
        return [
            _difference(
                f"at {f:g} Hz",
                _played(getattr(module, theirs)(f, 6.0, 2.0), x),
                function(x, SAMPLE_RATE, f, 6.0, 2.0),
            )
            for f in (1000.0, 30.0)
        ]


for _theirs, _ours in (("PeakFilter", "peaking"), ("LowShelfFilter", "low_shelf"), ("HighShelfFilter", "high_shelf")):
    _pedalboard_filter(_theirs, _ours)


def _pedalboard_first_order(theirs: str, ours: str) -> None:
    def first_order(x: Tensor) -> Tensor:
        sos = scipy.signal.butter(1, 1000.0, ours.removesuffix("pass"), fs=SAMPLE_RATE, output="sos")
        return F.sosfilt(x, torch.from_numpy(sos))

    @_pair("pedalboard", f"{theirs}(cutoff_frequency_hz)", f"{ours}(frequency_hz)", "1 kHz")
    def second(module: ModuleType) -> list[Finding]:
        frequency_hz = (100.0, 1000.0, 10000.0)
        found = _response(lambda x: _played(getattr(module, theirs)(1000.0), x), frequency_hz)
        wanted = _response(lambda x: getattr(F, ours)(x, SAMPLE_RATE, 1000.0), frequency_hz)
        return [Finding(f"gain at {f:g} Hz", a, b, "dB") for f, a, b in zip(frequency_hz, found, wanted, strict=True)]

    @_pair("pedalboard", f"{theirs}(cutoff_frequency_hz)", "sosfilt(sos) of scipy.signal.butter(1, ...)", "1 kHz")
    def first(module: ModuleType) -> list[Finding]:
        x = noise()
        return [_difference("", _played(getattr(module, theirs)(1000.0), x), first_order(x))]


_pedalboard_first_order("LowpassFilter", "lowpass")
_pedalboard_first_order("HighpassFilter", "highpass")


@_pair("pedalboard", "Distortion(drive_db)", 'distortion(drive_db, curve="tanh")', "24 dB")
def _pedalboard_distortion(module: ModuleType) -> list[Finding]:
    x = noise()
    return [_difference("", _played(module.Distortion(24.0), x), F.distortion(x, SAMPLE_RATE, 24.0))]


@_pair("pedalboard", "Clipping(threshold_db)", 'gain of distortion(curve="hard")', "-26 dB")
def _pedalboard_clipping(module: ModuleType) -> list[Finding]:
    x = noise()
    ours = F.gain(F.distortion(x, SAMPLE_RATE, 26.0, curve="hard"), SAMPLE_RATE, -26.0)
    return [_difference("", _played(module.Clipping(-26.0), x), ours)]


@_pair(
    "pedalboard",
    "Compressor(threshold_db, ratio, attack_ms, release_ms)",
    "compressor(threshold_db, ratio, attack_ms, release_ms, knee_db=0)",
    "-30 dB, 4, 10 ms, 100 ms",
)
def _pedalboard_compressor(module: ModuleType) -> list[Finding]:
    theirs = _dynamics(lambda x: _played(module.Compressor(-30.0, 4.0, 10.0, 100.0), x))
    ours = _dynamics(lambda x: F.compressor(x, SAMPLE_RATE, -30.0, 4.0, 10.0, 100.0, 0.0))
    found = _compared(theirs, ours)
    # With so high a ratio and so low a threshold the gain is the threshold over the level that it hears.
    x = _steps()
    level = 1 / (_played(module.Compressor(-100.0, 1e6, 10.0, 100.0), x) / x).double().flatten()
    loud, after = level[2 * _STEP - 1], level[-1]
    rising = (level[_STEP:] >= loud * (1 - math.exp(-1))).nonzero()[0]
    falling = (level[2 * _STEP :] - after <= (loud - after) * math.exp(-1)).nonzero()[0]
    return [
        *found,
        Finding("time constant of its level, rising", 1000 * float(rising) / SAMPLE_RATE, None, "ms"),
        Finding("time constant of its level, falling", 1000 * float(falling) / SAMPLE_RATE, None, "ms"),
    ]


@_pair(
    "pedalboard",
    "Compressor(threshold_db, ratio, attack_ms, release_ms)",
    'compressor(..., knee_db=0, link="none")',
    "-30 dB, 4, 10 ms, 100 ms; left loud (-6 dB), right quiet (-40 dB)",
)
def _pedalboard_linking(module: ModuleType) -> list[Finding]:
    x = torch.tensor([-6.0, -40.0]).div(20).mul(math.log(10)).exp()[None, :, None].expand(1, 2, 44100).contiguous()
    theirs = _played(module.Compressor(-30.0, 4.0, 10.0, 100.0), x)
    linked, alone = (F.compressor(x, SAMPLE_RATE, -30.0, 4.0, 10.0, 100.0, 0.0, link=link) for link in ("max", "none"))

    def right(y: Tensor) -> float:
        return float(_decibels(y, x).reshape(2, -1)[1, -1])

    return [
        Finding('gain of the quiet channel, link="max"', right(theirs), right(linked), "dB"),
        Finding('gain of the quiet channel, link="none"', right(theirs), right(alone), "dB"),
    ]


@_pair(
    "pedalboard",
    "NoiseGate(threshold_db, ratio, attack_ms, release_ms)",
    "expander(threshold_db, ratio, attack_ms, release_ms, knee_db=0, range_db=200)",
    "-40 dB, 4, 10 ms, 100 ms",
)
def _pedalboard_gate(module: ModuleType) -> list[Finding]:
    theirs = _dynamics(lambda x: _played(module.NoiseGate(-40.0, 4.0, 10.0, 100.0), x))
    ours = _dynamics(lambda x: F.expander(x, SAMPLE_RATE, -40.0, 4.0, 10.0, 100.0, 0.0, 200.0))
    return _compared(theirs, ours)


@_pair(
    "pedalboard",
    "Convolution(impulse_response, mix)",
    "convolution_reverb(impulse_response, mix)",
    "decaying noise of 0.1 s, mix 0.5; a single 1, mix 1",
)
def _pedalboard_convolution(module: ModuleType) -> list[Finding]:
    x, taps = noise(), torch.arange(4410) / SAMPLE_RATE
    response = noise(4410, channels=1)[0] * (-taps / 0.02).exp()
    theirs = _played(module.Convolution(response.numpy(), 0.5, SAMPLE_RATE), x)
    # It brings every response to one energy.
    scaled = 0.125 * response / response.square().sum().sqrt()
    one = torch.ones(1, 1)
    gains = (
        float(_decibels(y, x)[0])
        for y in (
            _played(module.Convolution(one.numpy(), 1.0, SAMPLE_RATE), x),
            F.convolution_reverb(x, SAMPLE_RATE, one, 1.0),
        )
    )
    return [
        _difference("as it is", theirs, F.convolution_reverb(x, SAMPLE_RATE, response, 0.5)),
        _difference("scaled to an energy of 1/64", theirs, F.convolution_reverb(x, SAMPLE_RATE, scaled, 0.5)),
        Finding("gain of a single 1", *gains, "dB"),
    ]


# torchaudio: tensors (..., samples), one setting for all.


@_pair("torchaudio", "gain(waveform, gain_db)", "gain(gain_db)", "-6 dB")
def _torchaudio_gain(module: ModuleType) -> list[Finding]:
    x = noise()
    return [_difference("", module.gain(x, -6.0), F.gain(x, SAMPLE_RATE, -6.0))]


def _torchaudio_filter(theirs: str, ours: str, call: str, order: Callable[[float], tuple[float, ...]]) -> None:
    with_gain = "gain" in call
    settings = "6 dB, q 2" if with_gain else "q 2"

    @_pair("torchaudio", f"{theirs}({call})", f"{ours}(frequency_hz{', gain_db' if with_gain else ''}, q)", settings)
    def measure(module: ModuleType) -> list[Finding]:
        x, function = noise(channels=1), getattr(F, ours)
        return [
            _difference(
                f"at {f:g} Hz",
                getattr(module, theirs)(x, SAMPLE_RATE, *order(f)),
                function(x, SAMPLE_RATE, f, *((6.0,) if with_gain else ()), 2.0),
            )
            for f in (1000.0, 30.0)
        ]


for _theirs, _ours, _call in (
    ("lowpass_biquad", "lowpass", "cutoff_freq, Q"),
    ("highpass_biquad", "highpass", "cutoff_freq, Q"),
    ("bandpass_biquad", "bandpass", "central_freq, Q"),
    ("bandreject_biquad", "notch", "central_freq, Q"),
    ("allpass_biquad", "allpass", "central_freq, Q"),
):
    _torchaudio_filter(_theirs, _ours, _call, lambda f: (f, 2.0))
_torchaudio_filter("equalizer_biquad", "peaking", "center_freq, gain, Q", lambda f: (f, 6.0, 2.0))
for _theirs, _ours in (("bass_biquad", "low_shelf"), ("treble_biquad", "high_shelf")):
    _torchaudio_filter(_theirs, _ours, "gain, central_freq, Q", lambda f: (6.0, f, 2.0))


@_pair("torchaudio", "lowpass_biquad(cutoff_freq, Q)", "lowpass(frequency_hz, q)", "noise with peaks of 4; 10 kHz")
def _torchaudio_clamps(module: ModuleType) -> list[Finding]:
    x = noise(channels=1, level=1.0)
    theirs, ours = module.lowpass_biquad(x, SAMPLE_RATE, 10000.0), F.lowpass(x, SAMPLE_RATE, 10000.0)
    return [Finding("largest value", float(theirs.abs().max()), float(ours.abs().max()), "")]


@_pair("torchaudio", "lowpass_biquad(cutoff_freq, Q)", "lowpass(frequency_hz, q)", "a batch of two, a frequency each")
def _torchaudio_batch(module: ModuleType) -> list[Finding]:
    x, frequency_hz = noise(64).expand(2, 2, 64), torch.tensor([500.0, 1000.0])
    F.lowpass(x, SAMPLE_RATE, frequency_hz)
    return [_raised("", lambda: module.lowpass_biquad(x, SAMPLE_RATE, frequency_hz))]


@_pair("torchaudio", "lfilter(waveform, a_coeffs, b_coeffs, clamp=False)", "sosfilt(sos)", "peak of 6 dB, q 2")
def _torchaudio_lfilter(module: ModuleType) -> list[Finding]:
    x = noise(channels=1)
    found = []
    for f in (1000.0, 30.0):
        sos = F.biquad("peaking", SAMPLE_RATE, f, 6.0, 2.0)[None]
        b, a = sos[0].float().split(3)
        found.append(_difference(f"at {f:g} Hz", module.lfilter(x, a, b, clamp=False), F.sosfilt(x, sos)))
    return found


@_pair("torchaudio", 'fftconvolve(x, y, mode="full")', "convolution_reverb(impulse_response, mix=1)", "0.1 s")
def _torchaudio_convolution(module: ModuleType) -> list[Finding]:
    x, response = noise(), noise(4410)
    theirs = module.fftconvolve(x, response)[..., : x.shape[-1]]
    return [_difference("first part", theirs, F.convolution_reverb(x, SAMPLE_RATE, response[0], 1.0))]


@_pair("torchaudio", "loudness(waveform, sample_rate)", "integrated_loudness(x, sample_rate)", "stereo tones, -23 dBFS")
def _torchaudio_loudness(module: ModuleType) -> list[Finding]:
    seconds = torch.arange(5 * 44100, dtype=torch.float64) / SAMPLE_RATE
    found = []
    # The filters of its K-weighting run sample by sample in Python where it has no library.
    for f in (50.0, 997.0, 2000.0, 10000.0):
        tone = (10 ** (-23 / 20) * torch.sin(2 * math.pi * f * seconds)).float().expand(2, -1)
        theirs, ours = module.loudness(tone, SAMPLE_RATE), F.integrated_loudness(tone, SAMPLE_RATE)
        found.append(Finding(f"at {f:g} Hz", float(theirs), float(ours), "LUFS"))
    return found


# GRAFX: modules of tensors (batch, channels, samples), controls as they come from a network.


def _logit(frequency_hz: float) -> Tensor:
    share = 2 * frequency_hz / SAMPLE_RATE
    return torch.tensor([[math.log(share / (1 - share))]])


def _of_log(value: float) -> Tensor:
    return torch.tensor([[math.log(value)]])


def _grafx_filter(theirs: str, ours: str, with_gain: bool) -> None:
    call = "w0, q_inv, log_gain" if with_gain else "w0, q_inv"
    settings = "6 dB, q 2" if with_gain else "q 2"

    @_pair("GRAFX", f"{theirs}({call})", f"{ours}(frequency_hz{', gain_db' if with_gain else ''}, q)", settings)
    def measure(module: ModuleType) -> list[Finding]:
        gain = [torch.tensor([[6.0 * math.log(10) / 40]])] if with_gain else []
        found = []
        # The default backend, at both lengths: it transforms audio and response together.
        for backend, samples, f in (
            ("ssm", 44100, 1000.0),
            ("fsm", 44101, 1000.0),
            ("fsm", 44101, 40.0),
            ("fsm", 44100, 1000.0),
        ):
            x = noise(samples, channels=1)
            filtered = getattr(module, theirs)(backend=backend, flashfftconv=False)(x, _logit(f), -_of_log(2.0), *gain)
            wanted = getattr(F, ours)(x, SAMPLE_RATE, f, *((6.0,) if with_gain else ()), 2.0)
            name = f"{backend} at {f:g} Hz" + (f", {samples} samples" if backend == "fsm" else "")
            found.append(_difference(name, filtered, wanted))
            if theirs == "LowPassFilter" and backend == "ssm":
                found.append(_difference(f"{name}, with its polarity inverted", -filtered, wanted))
        return found


for _theirs, _ours in (
    ("LowPassFilter", "lowpass"),
    ("HighPassFilter", "highpass"),
    ("BandPassFilter", "bandpass"),
    ("BandRejectFilter", "notch"),
    ("AllPassFilter", "allpass"),
):
    _grafx_filter(_theirs, _ours, with_gain=False)
for _theirs, _ours in (("PeakingFilter", "peaking"), ("LowShelf", "low_shelf"), ("HighShelf", "high_shelf")):
    _grafx_filter(_theirs, _ours, with_gain=True)


@_pair(
    "GRAFX",
    "ParametricEqualizer(num_filters=6)(w0, q_inv, log_gain)",
    "parametric_eq(frequency_hz, gain_db, q)",
    "six bands, 3 dB, q 1; 44101 samples",
)
def _grafx_equalizer(module: ModuleType) -> list[Finding]:
    x = noise(44101, channels=1)
    frequency_hz = (80.0, 200.0, 600.0, 2000.0, 5000.0, 10000.0)
    w0 = torch.cat([_logit(f) for f in frequency_hz], -1)[None]
    ours = F.parametric_eq(x, SAMPLE_RATE, frequency_hz, 3.0, 1.0)
    found = []
    for backend in ("lfilter", "ssm", "fsm"):
        equalizer = module.ParametricEqualizer(num_filters=6, backend=backend, flashfftconv=False)
        theirs = equalizer(x, w0, torch.zeros(1, 1, 6), torch.full((1, 1, 6), 3.0 * math.log(10) / 40))
        found.append(_difference(backend, theirs, ours))
    return found


def _log_threshold(threshold_db: float) -> Tensor:
    """Its threshold is a natural logarithm of power, 6 above the one that it compares with."""
    return torch.tensor([[threshold_db * math.log(10) / 10 + 6]])


@_pair(
    "GRAFX",
    'Compressor(energy_smoother=None, knee="hard")(log_threshold, log_ratio)',
    "compressor(threshold_db, ratio, attack_ms=0, release_ms=0, knee_db=0)",
    "-30 dB; a constant of -6 dB",
)
def _grafx_ratio(module: ModuleType) -> list[Finding]:
    x = torch.full((1, 1, 64), 10 ** (-6 / 20))
    compressor = module.Compressor(energy_smoother=None, knee="hard", flashfftconv=False)
    found = []
    for ratio in (1.5, 2.0, 4.0):
        theirs = compressor(x, _log_threshold(-30.0), _of_log(ratio - 1))
        ours = F.compressor(x, SAMPLE_RATE, -30.0, ratio, 0.0, 0.0, 0.0)
        found.append(Finding(f"gain, ratio {ratio:g}", *(float(_decibels(y, x)[-1]) for y in (theirs, ours)), "dB"))
    return found


@_pair(
    "GRAFX",
    'NoiseGate(energy_smoother=None, knee="hard")(log_threshold, log_ratio)',
    "expander(threshold_db, ratio, attack_ms=0, release_ms=0, knee_db=0, range_db=200)",
    "-30 dB; a constant of -40 dB",
)
def _grafx_gate(module: ModuleType) -> list[Finding]:
    x = torch.full((1, 1, 64), 10 ** (-40 / 20))
    gate = module.NoiseGate(energy_smoother=None, knee="hard", flashfftconv=False)
    found = []
    for ratio in (1.5, 2.0):
        theirs = gate(x, _log_threshold(-30.0), _of_log(ratio - 1))
        ours = F.expander(x, SAMPLE_RATE, -30.0, ratio, 0.0, 0.0, 0.0, 200.0)
        found.append(Finding(f"gain, ratio {ratio:g}", *(float(_decibels(y, x)[-1]) for y in (theirs, ours)), "dB"))
    return found


def _coefficient(time_ms: float) -> float:
    """The logit of 1 - exp(-1 / t)."""
    alpha = -math.expm1(-1000 / (time_ms * SAMPLE_RATE))
    return math.log(alpha / (1 - alpha))


@_pair(
    "GRAFX",
    'Compressor(energy_smoother="ballistics", knee="hard")',
    "compressor(attack_ms=10, release_ms=100, knee_db=0)",
    "z_alpha_pre of 10 ms and 100 ms; -30 dB, ratio 1.5",
)
def _grafx_ballistics(module: ModuleType) -> list[Finding]:
    compressor = module.Compressor(energy_smoother="ballistics", knee="hard", flashfftconv=False)
    times = torch.tensor([[_coefficient(10.0), _coefficient(100.0)]])

    def theirs(x: Tensor) -> Tensor:
        y: Tensor = compressor(x, _log_threshold(-30.0), _of_log(0.5), z_alpha_pre=times)
        return y

    found = _compared(
        _dynamics(theirs), _dynamics(lambda x: F.compressor(x, SAMPLE_RATE, -30.0, 1.5, 10.0, 100.0, 0.0))
    )
    # Its smoother alone, which starts from 1: a fall to 0, and a rise from there.
    part = torch.ones(1, 5 * _STEP)
    falling = module.core.envelope.Ballistics()(0 * part, times)[0]
    rising = module.core.envelope.Ballistics()(torch.cat([0 * part, part], -1), times)[0, part.shape[-1] :]
    samples = ((falling <= math.exp(-1)).nonzero()[0], (rising >= 1 - math.exp(-1)).nonzero()[0])
    found += [
        Finding(f"time constant of its level, {way}", 1000 * float(n) / SAMPLE_RATE, None, "ms")
        for way, n in zip(("falling", "rising"), samples, strict=True)
    ]
    x = _steps()
    start = [float(_decibels(y, x)[0]) for y in (theirs(x), F.compressor(x, SAMPLE_RATE, -30.0, 1.5, 10.0, 100.0, 0.0))]
    return [*found, Finding("gain of the first sample, at -60 dB", *start, "dB")]


@_pair("GRAFX", "StereoGain(log_gain)", "gain(gain_db)", "-6 dB left, 3 dB right")
def _grafx_gain(module: ModuleType) -> list[Finding]:
    x, gain_db = noise(), torch.tensor([[-6.0, 3.0]])
    return [_difference("", module.StereoGain()(x, gain_db * math.log(10) / 20), F.gain(x, SAMPLE_RATE, gain_db))]


@_pair("GRAFX", "SideGainImager(log_gain)", "stereo_widener(width=exp(log_gain))", "width 1.5")
def _grafx_widener(module: ModuleType) -> list[Finding]:
    x = noise()
    return [_difference("", module.SideGainImager()(x, _of_log(1.5)), F.stereo_widener(x, SAMPLE_RATE, 1.5))]


@_pair("GRAFX", "TanhDistortion()(log_pre_gain)", "gain of distortion(drive_db)", "24 dB, and 24 dB less after it")
def _grafx_distortion(module: ModuleType) -> list[Finding]:
    x = noise()
    theirs = module.TanhDistortion()(x, torch.tensor([[24.0 * math.log(10) / 20]]))
    return [_difference("", theirs, F.gain(F.distortion(x, SAMPLE_RATE, 24.0), SAMPLE_RATE, -24.0))]


@_pair(
    "GRAFX",
    "FilteredNoiseShapingReverb()(log_decay, log_gain)",
    "noise_shaped_reverb(band_gain_db, decay_s, mix=1)",
    "two calls with the same settings",
)
def _grafx_reverb(module: ModuleType) -> list[Finding]:
    x = noise(8192)
    reverb = module.FilteredNoiseShapingReverb(flashfftconv=False)
    control = torch.ones(1, 2, 12)
    first, again = (reverb(x, control, control) for _ in range(2))
    first_of_ours, again_of_ours = (F.noise_shaped_reverb(x, SAMPLE_RATE, mix=1.0) for _ in range(2))
    change = [_difference("", a, b).theirs for a, b in ((again, first), (again_of_ours, first_of_ours))]
    return [Finding("difference between the calls", change[0], float(change[1]), "dB")]


@_pair("GRAFX", "FIRFilter()", "convolution_reverb(impulse_response, mix=1)")
def _grafx_fir(module: ModuleType) -> list[Finding]:
    return [_raised("making one", lambda: module.FIRFilter(flashfftconv=False))]


def load() -> list[peers.Peer]:
    """The libraries; those that are not installed or cannot be imported say so."""
    return [peers.find(name, module) for name, module in MODULES.items()]


def measure(libraries: Sequence[peers.Peer], pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """What was found of each pair, or why nothing was."""
    modules = {library.name: library for library in libraries}
    return [{**_named(pair), **_found(pair, modules[pair.library])} for pair in pairs]


def _named(pair: Pair) -> dict[str, str]:
    return {"library": pair.library, "theirs": pair.theirs, "dasp": pair.ours, "settings": pair.settings}


def _found(pair: Pair, library: peers.Peer) -> dict[str, Any]:
    if library.module is None:
        return {"why": library.status}
    # Some draw from the generators of the process, GRAFX from the old one of numpy.
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            found = pair.measure(library.module)
    except Exception as error:  # Whatever another library raises is the reason.
        return {"why": f"{type(error).__name__}: {error}".splitlines()[0]}
    return {"found": [{name: _rounded(value) for name, value in asdict(finding).items()} for finding in found]}


def _rounded(value: float | str | None) -> float | str | None:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def tables(document: Record, library: str | None = None) -> list[Table]:
    """For each library its pairs, a line for each figure: how far apart the outputs are, or what each of them gives."""
    made = []
    for name, rows in groupby(document["rows"], lambda row: row["library"]):
        if library not in (None, name):
            continue
        lines = [line for row in rows for line in _lines(row)]
        made.append(Table(name, ("theirs", "dasp", "settings", "measured", "difference", "theirs", "dasp"), lines))
    return made


def _lines(row: Record) -> list[Sequence[str]]:
    head = (row["theirs"], row["dasp"], row["settings"])
    if "why" in row:
        return [(*head, "not measured: " + row["why"], "", "", "")]
    return [
        (*(head if index == 0 else ("", "", "")), finding["quantity"], *_figures(finding))
        for index, finding in enumerate(row["found"])
    ]


def _figures(finding: Record) -> tuple[str, str, str]:
    """The columns of figures: a difference, or theirs and that of dasp."""
    theirs, ours, unit = finding["theirs"], finding["dasp"], finding["unit"]
    if isinstance(theirs, str):
        return "", theirs, ""
    if ours is None and unit == "dB":
        return f"{theirs:.0f} dB", "", ""
    return "", _figure(theirs, unit), "" if ours is None else _figure(ours, unit)


def _figure(value: float, unit: str) -> str:
    """Two digits behind the point, none of a hundred or more, and no negative zero."""
    digits = 0 if abs(value) >= 100 else 2
    return f"{round(value, digits) + 0.0:.{digits}f} {unit}".rstrip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the pairs and prints their tables; returns the exit status."""
    parser = argparse.ArgumentParser("python -m benchmarks.migration", description=__doc__)
    parser.add_argument("--library", nargs="+", choices=MODULES, default=list(MODULES))
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args(arguments)
    environment = report.environment()
    libraries = load()
    rows = measure(libraries, [pair for pair in PAIRS if pair.library in options.library])
    versions = [{"name": p.name, "version": p.version, "status": p.status} for p in libraries]
    document = {"schema": SCHEMA, "environment": environment, "peers": versions, "rows": rows}
    print("\n\n".join(table.markdown() for table in tables(document)))
    for library in versions:
        print(f"{library['name']} {library['version']} {library['status']}".strip())
    if options.json is not None:
        report.write_json(options.json, document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
