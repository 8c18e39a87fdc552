"""Pictures and sounds of the public functions, by their names; a processor that has none here gets default ones.

All that is drawn is computed by the functions themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from figures.media import RATE, Picture, Sound, names_after, panel, picture
from matplotlib.axes import Axes
from torch import Tensor

import dasp.functional as F
from dasp import PROCESSORS, Spec
from dasp.functional.distortion import CURVES
from dasp.functional.stereo import LAWS
from dasp.kernels import KINDS
from dasp.mixing import multitrack

_SAMPLES = 1 << 16
_FREQUENCY = torch.from_numpy(np.geomspace(20, 20000, 400))


def _db(x: Tensor) -> Tensor:
    """Amplitude in dB, no lower than -120."""
    return 20 * x.abs().clamp_min(1e-6).log10()


def _response(process: Callable[[Tensor], Tensor], channels: int = 1) -> Tensor:
    """The frequency response at `_FREQUENCY`: the transform of what becomes of an impulse, by its definition."""
    x = torch.zeros(channels, _SAMPLES, dtype=torch.float64)
    x[:, 0] = 1
    y = process(x)
    spectrum = torch.fft.rfft(y)
    bins = (_FREQUENCY * (_SAMPLES / RATE)).round().long()
    return spectrum[..., bins]


def _frequency_axis(axes: Axes) -> None:
    axes.set(xscale="log", xlim=(20, 20000), xlabel="frequency in Hz")
    axes.set_xticks([20, 100, 1000, 10000], ["20", "100", "1k", "10k"])


def _text(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value:.4g}" for name, value in settings.items())


def _magnitudes(
    name: str,
    settings: Sequence[dict[str, float]],
    low_db: float = -48,
    high_db: float = 12,
    legend: str = "best",
    **fixed: Any,
) -> Axes:
    """A panel of the magnitude response of a filter at several settings."""
    axes = panel(ylabel="gain in dB", ylim=(low_db, high_db), title=_text(fixed))
    for setting in settings:
        gain = _db(_response(lambda x, s=setting: getattr(F, name)(x, RATE, **s, **fixed))[0])
        axes.plot(_FREQUENCY, gain, label=_text(setting))
    _frequency_axis(axes)
    axes.legend(loc=legend)
    return axes


def _phases(name: str, settings: Sequence[dict[str, float]], **fixed: Any) -> Axes:
    axes = panel(ylabel="phase in degrees", title=_text(fixed))
    for setting in settings:
        response = _response(lambda x, s=setting: getattr(F, name)(x, RATE, **s, **fixed))[0]
        axes.plot(_FREQUENCY, np.degrees(np.unwrap(response.angle())), label=_text(setting))
    _frequency_axis(axes)
    axes.set_yticks(range(-360, 1, 90))
    axes.legend()
    return axes


def _each(name: str, *values: float) -> list[dict[str, float]]:
    return [{name: value} for value in values]


def _tone(level_db: Tensor, frequency_hz: float = 1000.0) -> Tensor:
    """A sine `(1, samples)` whose level follows a curve in dB."""
    time = torch.arange(level_db.shape[-1], dtype=torch.float64) / RATE
    return F.gain(torch.sin(2 * torch.pi * frequency_hz * time)[None], RATE, level_db[None])


@cache
def _song(*names: str, seed: int = 1, seconds: float = 7.0, stereo: bool = False) -> Tensor:
    """Tracks of a synthetic song, `(tracks, channels, samples)`, from its third second on."""
    return multitrack(seed, seconds, RATE, stereo=stereo, names=names or None).tracks[..., 2 * RATE :].double()


def _seconds(x: Tensor) -> np.ndarray:
    return np.arange(x.shape[-1]) / RATE


# Level.


@picture(
    "The waveform of a tone whose level rises evenly in dB from -48 to 0 and falls back, over that of the tone itself.",
)
def gain() -> list[Axes]:
    """A fade of a tone: ``gain_db`` changes with every sample, from -48 dB to 0 and back."""
    axes = panel(xlabel="time in s", ylabel="amplitude", ylim=(-1.1, 1.5))
    level_db = torch.cat([torch.linspace(-48, 0, RATE // 4), torch.linspace(0, -48, RATE // 4)])[None]
    x = _tone(torch.zeros(RATE // 2), 50.0)
    axes.plot(_seconds(x), x[0], color="0.7", linewidth=0.8, label="x")
    axes.plot(_seconds(x), F.gain(x, RATE, level_db)[0], linewidth=0.8, label="y")
    axes.legend(loc="upper right", ncols=2)
    return [axes]


@picture(
    "Three periods of a tone for invert 0, 0.5 and 1: as it came, silence, and upside down.",
    "What is left of a sum with a copy that is 0.5 ms late: notches at 1, 3 and 5 kHz and full level at low "
    "frequencies; with the copy inverted, notches at 2, 4 and 6 kHz and little at low frequencies.",
)
def polarity() -> list[Axes]:
    """First, the two ends of the control and its middle.  Then two microphones at different distances: their sum, with
    the polarity of the late one as it is and inverted."""
    wave, comb = (
        panel(xlabel="time in ms", ylabel="amplitude", ylim=(-1.1, 2)),
        panel(ylabel="gain in dB", ylim=(-40, 10)),
    )
    x = _tone(torch.zeros(RATE * 3 // 1000))
    for invert in (0.0, 0.5, 1.0):
        wave.plot(1000 * _seconds(x), F.polarity(x, RATE, invert)[0], label=f"invert={invert:g}")
        if invert != 0.5:
            response = _response(lambda x, i=invert: x + F.polarity(x.roll(22, -1), RATE, i))
            comb.plot(_FREQUENCY, _db(response[0]), color=f"C{2 * invert:.0f}", label=f"invert={invert:g}")
    wave.legend(loc="upper right")
    _frequency_axis(comb)
    comb.legend(loc="lower left")
    return [wave, comb]


@picture(
    "The waveforms of kick, snare and hihat, and below them that of the bus: the kick as it is, the snare at half its "
    "size, and no hihat.",
)
def stereo_bus() -> list[Axes]:
    """Three tracks and the bus to which they are sent at 0 dB, -6 dB and not at all."""
    axes = panel(xlabel="time in s", yticks=(0, -2, -4, -6), ylim=(-7.2, 1.2))
    tracks = _song("kick", "snare", "hihat")[..., : 2 * RATE]
    bus = F.stereo_bus(tracks, RATE, send_db=torch.tensor([0.0, -6.0, -torch.inf], dtype=torch.float64))
    for place, x in enumerate([*tracks, bus]):
        axes.plot(_seconds(x)[::4], x[0, ::4] - 2 * place, linewidth=0.6, color="C1" if place == 3 else "C0")
    axes.set_yticklabels(["kick, 0 dB", "snare, -6 dB", "hihat, off", "bus"])
    return [axes]


# Filters.


@picture(
    "Low-pass responses: flat, then falling by 12 dB per octave above 200 Hz, 1 kHz and 5 kHz.",
    "Low-pass responses at 1 kHz for q 0.5, 0.7, 2 and 8: at the cutoff they are at -6, -3, +6 and +18 dB.",
)
def lowpass() -> list[Axes]:
    """Three cutoffs, and the peak that ``q`` makes at the cutoff."""
    return [
        _magnitudes("lowpass", _each("frequency_hz", 200, 1000, 5000), high_db=20),
        _magnitudes("lowpass", _each("q", 0.5, 0.7071, 2, 8), high_db=20, frequency_hz=1000),
    ]


@picture(
    "High-pass responses: rising by 12 dB per octave up to 50, 200 and 1000 Hz, flat above.",
    "High-pass responses at 200 Hz for q 0.5, 0.7, 2 and 8: at the cutoff they are at -6, -3, +6 and +18 dB.",
)
def highpass() -> list[Axes]:
    """Three cutoffs, and the peak that ``q`` makes at the cutoff."""
    return [
        _magnitudes("highpass", _each("frequency_hz", 50, 200, 1000), high_db=20),
        _magnitudes("highpass", _each("q", 0.5, 0.7071, 2, 8), high_db=20, frequency_hz=200),
    ]


@picture(
    "Band-pass responses with peaks of 0 dB at 200 Hz, 1 kHz and 5 kHz, which fall on both sides.",
    "Band-pass responses at 1 kHz, the narrower the higher q is: 0.5, 2 and 8.",
)
def bandpass() -> list[Axes]:
    """Three centres, and three widths."""
    return [
        _magnitudes("bandpass", _each("frequency_hz", 200, 1000, 5000), high_db=6),
        _magnitudes("bandpass", _each("q", 0.5, 2, 8), high_db=6, frequency_hz=1000),
    ]


@picture(
    "Notch responses: flat but for a deep gap at 200 Hz, 1 kHz and 5 kHz.",
    "Notch responses at 1 kHz, the narrower the higher q is: 0.5, 2 and 8.",
)
def notch() -> list[Axes]:
    """Three centres, and three widths."""
    return [
        _magnitudes("notch", _each("frequency_hz", 200, 1000, 5000), high_db=6, legend="lower left"),
        _magnitudes("notch", _each("q", 0.5, 2, 8), high_db=6, legend="lower left", frequency_hz=1000),
    ]


@picture(
    "All-pass phase: from 0 at low frequencies through -180 degrees at 1 kHz to -360, the steeper the higher q is.",
    "Magnitude of the mean of a signal and its all-pass: a notch at 1 kHz, the narrower the higher q is.",
)
def allpass() -> list[Axes]:
    """The phase, where the magnitude is 1 everywhere, and the magnitude of the mean of dry and filtered signal, whose
    notch a phaser moves."""
    settings = _each("q", 0.3, 1, 4)
    mean = panel(ylabel="gain in dB", ylim=(-48, 12), title="mean of dry and filtered, frequency_hz=1000")
    for setting in settings:
        response = _response(lambda x, s=setting: (x + F.allpass(x, RATE, 1000.0, **s)) / 2)
        mean.plot(_FREQUENCY, _db(response[0]), label=_text(setting))
    _frequency_axis(mean)
    mean.legend()
    return [_phases("allpass", settings, frequency_hz=1000), mean]


@picture(
    "Peaking responses at 1 kHz from -12 to +12 dB in steps of 6 dB, flat far from the centre.",
    "Peaking responses of +12 dB at 1 kHz, the narrower the higher q is: 0.3, 1 and 4.",
)
def peaking() -> list[Axes]:
    """Several gains, and three widths."""
    return [
        _magnitudes("peaking", _each("gain_db", 12, 6, -6, -12), -16, 16, frequency_hz=1000),
        _magnitudes("peaking", _each("q", 0.3, 1, 4), -16, 16, frequency_hz=1000, gain_db=12),
    ]


@picture(
    "Low-shelf responses: -12 to +12 dB below 200 Hz in steps of 6 dB, half of that at 200 Hz, 0 dB above.",
    "Low shelves of +12 dB for q 0.4, 0.7 and 2: the first has a long slope, the last one over- and undershoots.",
)
def low_shelf() -> list[Axes]:
    """Several gains, and the slope that ``q`` makes."""
    return [
        _magnitudes("low_shelf", _each("gain_db", 12, 6, -6, -12), -18, 18, frequency_hz=200),
        _magnitudes("low_shelf", _each("q", 0.4, 0.7071, 2), -18, 18, frequency_hz=200, gain_db=12),
    ]


@picture(
    "High-shelf responses: -12 to +12 dB above 4 kHz in steps of 6 dB, half of that at 4 kHz, 0 dB below.",
    "High shelves of +12 dB for q 0.4, 0.7 and 2: the first has a long slope, the last one over- and undershoots.",
)
def high_shelf() -> list[Axes]:
    """Several gains, and the slope that ``q`` makes."""
    return [
        _magnitudes("high_shelf", _each("gain_db", 12, 6, -6, -12), -18, 18, frequency_hz=4000),
        _magnitudes("high_shelf", _each("q", 0.4, 0.7071, 2), -18, 18, frequency_hz=4000, gain_db=12),
    ]


@picture("Magnitude responses of the eight kinds of filter at 1 kHz; peak and shelves have a gain of 12 dB.")
def biquad() -> list[Axes]:
    """All kinds at 1 kHz, with q = 1 and ``gain_db=12`` where a kind has a gain."""
    axes = panel(ylabel="gain in dB", ylim=(-36, 34))
    for number, kind in enumerate(KINDS):
        sos = F.biquad(kind, RATE, 1000.0, 12.0, 1.0)
        level = _db(F.sosfreqz(sos[None], _FREQUENCY, RATE))
        axes.plot(_FREQUENCY, level, label=kind, color=f"C{number % 5}", linestyle="-" if number < 5 else "--")
    _frequency_axis(axes)
    axes.legend(ncols=3, loc="upper center", fontsize=7)
    return [axes]


def _crossover() -> dict[str, Tensor]:
    """Fourth-order low-pass and high-pass at 1 kHz: two sections each."""
    return {kind: F.biquad(kind, RATE, 1000.0, q=0.7071).expand(2, 6) for kind in ("lowpass", "highpass")}


@picture(
    "Magnitude of a low-pass and a high-pass of two sections each: both at -6 dB at 1 kHz, then falling by 24 dB per "
    "octave.",
    "Their phases: the same curve for both, from 0 through -180 degrees at 1 kHz to -360, so that the bands add up "
    "evenly.",
)
def sosfreqz() -> list[Axes]:
    """Magnitude and phase of the two halves of a crossover at 1 kHz (Linkwitz and Riley), two sections each."""
    level, phase = panel(ylabel="gain in dB", ylim=(-60, 6)), panel(ylabel="phase in degrees")
    for (kind, sos), line in zip(_crossover().items(), ("-", "--"), strict=True):
        response = F.sosfreqz(sos, _FREQUENCY, RATE)
        level.plot(_FREQUENCY, _db(response), line, label=kind)
        phase.plot(_FREQUENCY, np.degrees(np.unwrap(response.angle())), line, label=kind)
    phase.set_yticks(range(-360, 1, 90))
    for axes in (level, phase):
        _frequency_axis(axes)
        axes.legend()
    return [level, phase]


@picture(
    "A square wave of 200 Hz split at 1 kHz into a rounded wave and short pulses at its edges.",
)
def sosfilt() -> list[Axes]:
    """A square wave and its parts below and above 1 kHz, by a crossover of two sections each."""
    axes = panel(xlabel="time in ms", ylabel="amplitude")
    x = _tone(torch.zeros(RATE // 50), 200.0).sign()
    shown = slice(-RATE // 100, None)
    axes.plot(1000 * _seconds(x[:, shown]), x[0, shown], color="0.7", label="x")
    for kind, sos in _crossover().items():
        axes.plot(1000 * _seconds(x[:, shown]), F.sosfilt(x, sos)[0, shown], label=kind)
    axes.set_ylim(-1.6, 2.2)
    axes.legend(ncols=3, loc="upper center")
    return [axes]


_BANDS = {
    "frequency_hz": [80.0, 200.0, 600.0, 2000.0, 5000.0, 10000.0],
    "gain_db": [6.0, -4.0, 0.0, 5.0, -6.0, 8.0],
    "q": [0.7, 1.0, 1.0, 1.0, 2.0, 0.7],
}


@picture(
    "The response of an equaliser with six bands, and in thin lines that of each band: a low shelf of +6 dB at 80 Hz, "
    "peaks of -4 dB at 200 Hz, +5 dB at 2 kHz and -6 dB at 5 kHz, a high shelf of +8 dB at 10 kHz.",
    "The phase of the same equaliser, within 45 degrees of zero.",
)
def parametric_eq() -> list[Axes]:
    """Six bands, one of them at 0 dB, and what they are together; below or beside, the phase."""
    level = panel(ylabel="gain in dB", ylim=(-12, 12))
    for band in range(6):
        gains = [gain if band == other else 0.0 for other, gain in enumerate(_BANDS["gain_db"])]
        alone = _response(lambda x, g=gains: F.parametric_eq(x, RATE, **{**_BANDS, "gain_db": g}))
        level.plot(_FREQUENCY, _db(alone[0]), color="0.6", linewidth=0.9, label="each band" if band == 0 else None)
    response = _response(lambda x: F.parametric_eq(x, RATE, **_BANDS))[0]
    level.plot(_FREQUENCY, _db(response), label="all")
    level.legend()
    phase = panel(ylabel="phase in degrees", ylim=(-60, 60))
    phase.plot(_FREQUENCY, response.angle().rad2deg())
    for axes in (level, phase):
        _frequency_axis(axes)
    return [level, phase]


# Dynamics.

_INSTANT = {"attack_ms": 0.0, "release_ms": 0.0}


def _static(name: str, settings: Sequence[dict[str, float]], **fixed: float) -> Axes:
    """A panel of output over input level, of tones that have lasted long enough."""
    axes = panel(xlabel="input in dB", ylabel="output in dB", aspect="equal", title=_text(fixed))
    level_db = torch.linspace(-60, 0, 121, dtype=torch.float64)
    x = F.gain(torch.ones(121, 1, 8, dtype=torch.float64), RATE, level_db)
    axes.plot(level_db, level_db, color="0.6", linewidth=0.9)
    for setting in settings:
        y = getattr(F, name)(x, RATE, **setting, **fixed, **_INSTANT)
        axes.plot(level_db, _db(y[:, 0, -1]), label=_text(setting))
    axes.set(xlim=(-60, 0), ylim=(-60, 0))
    axes.legend(loc="upper left")
    return axes


def _steps(name: str, settings: Sequence[dict[str, float]], quiet_db: float, loud_db: float, **fixed: float) -> Axes:
    """A panel of the gain over time for a level that steps up after 0.1 s and down after 0.3 s."""
    axes = panel(xlabel="time in s", ylabel="gain in dB", title=_text(fixed))
    level_db = torch.full((RATE * 7 // 10,), quiet_db, dtype=torch.float64)
    level_db[RATE // 10 : RATE * 3 // 10] = loud_db
    x = F.gain(torch.ones(1, level_db.shape[-1], dtype=torch.float64), RATE, level_db[None])
    axes.axvspan(0.1, 0.3, color="0.5", alpha=0.15, linewidth=0, label=f"input at {loud_db:g} dB")
    for setting in settings:
        gain_db = getattr(F, name)(x, RATE, **setting, **fixed)[0]
        axes.plot(_seconds(gain_db)[::20], gain_db[::20], label=_text(setting))
    # Room for the legend.
    axes.set_ylim(1.6 * axes.get_ylim()[0], 1)
    axes.legend(loc="lower right")
    return axes


@picture(
    "Output over input level of a compressor with its threshold at -30 dB for ratios 2, 4 and 20: all follow the "
    "diagonal up to the threshold and then rise by a half, a quarter and a twentieth of a dB per dB.",
    "The gain for a level that steps from -50 to -6 dB and back: it falls to -18 dB, in 20 or 80 ms, while the level"
    " is high, and returns to 0 dB afterwards, faster with the shorter release.",
)
def compressor() -> list[Axes]:
    """The static curve: the level that comes out over the level that goes in.  Then attack and release: the gain
    while the level is at -6 dB, shaded, and at -50 dB before and after."""
    return [
        _static("compressor", _each("ratio", 2, 4, 20), threshold_db=-30, knee_db=6),
        _steps(
            "compressor_gain",
            [{"attack_ms": 5, "release_ms": 50}, {"attack_ms": 20, "release_ms": 150}],
            -50.0,
            -6.0,
            threshold_db=-30,
            ratio=4,
        ),
    ]


@picture(
    "Output over input level of an expander with its threshold at -30 dB for ratios 1.5, 3 and 10: above the threshold "
    "all follow the diagonal, below it they fall the faster the higher the ratio, by 40 dB at most.",
    "The gain for a level that steps from -50 to -6 dB and back: it closes to -20 dB, opens within a few milliseconds, "
    "and closes again at the speed of the release.",
)
def expander() -> list[Axes]:
    """The static curve; then the attack that opens it when the level rises to -6 dB, shaded, and the release that
    closes it when the level is at -50 dB."""
    return [
        _static("expander", _each("ratio", 1.5, 3, 10), threshold_db=-30, range_db=40),
        _steps(
            "expander_gain",
            [{"attack_ms": 2, "release_ms": 20}, {"attack_ms": 20, "release_ms": 100}],
            -50.0,
            -6.0,
            threshold_db=-40,
            ratio=3,
        ),
    ]


def _over_drums(name: str, **settings: float) -> list[Axes]:
    """Waveform of drums, and the gain that a processor gives them."""
    wave, gain = panel(xlabel="time in s", ylabel="amplitude"), panel(xlabel="time in s", ylabel="gain in dB")
    x = _song("kick", "snare", "hihat").sum(0)[..., : 2 * RATE]
    wave.plot(_seconds(x)[::4], x[0, ::4], linewidth=0.6)
    gain.plot(_seconds(x)[::20], getattr(F, name)(x, RATE, **settings)[0, ::20])
    gain.set_title(_text(settings), fontsize=7)
    return [wave, gain]


@picture(
    "The waveform of two seconds of drums.",
    "The gain in dB over the same time: it dips with each hit, by up to 14 dB, and recovers between them.",
)
def compressor_gain() -> list[Axes]:
    """Drums, and the gain with which a compressor answers them."""
    return _over_drums("compressor_gain", threshold_db=-30, ratio=6, attack_ms=10, release_ms=120)


@picture(
    "The waveform of two seconds of drums.",
    "The gain in dB over the same time: near 0 at each hit, falling by up to 30 dB between them.",
)
def expander_gain() -> list[Axes]:
    """Drums, and the gain with which an expander answers them."""
    return _over_drums("expander_gain", threshold_db=-20, ratio=4, attack_ms=1, release_ms=50, range_db=30)


# Distortion.


@picture(
    "Output over input of the three curves at a drive of 0 dB: all have slope 1 at the origin; hard is straight up "
    "to 1, tanh and soft_cubic bend, and soft_cubic reaches 1 at an input of 1.5.",
    "Levels of the harmonics of a tone at 12 dB of drive: odd ones alone, the third at about -11 dB, the fifteenth "
    "below -39 dB.",
)
def distortion() -> list[Axes]:
    """The curves; then the harmonics of a tone of amplitude 1 at ``drive_db=12``, over its fundamental."""
    transfer = panel(xlabel="input", ylabel="output", xlim=(-2, 2), ylim=(-1.15, 1.15))
    harmonics = panel(xlabel="harmonic", ylabel="level in dB", ylim=(-80, 5), xticks=range(1, 16, 2))
    u = torch.linspace(-2, 2, 401, dtype=torch.float64)[None]
    x = _tone(torch.zeros(RATE, dtype=torch.float64), 50.0)
    for number, curve in enumerate(CURVES):
        transfer.plot(u[0], F.distortion(u, RATE, 0.0, curve)[0], label=curve)
        # The tone has fifty periods: its harmonics are bins 50, 100, ...
        level = _db(torch.fft.rfft(F.distortion(x, RATE, 12.0, curve)[0])[50 : 50 * 16 : 50]).numpy()
        harmonics.bar(np.arange(1, 16) + 0.4 * (number - 1), level - level[0] + 80, 0.35, bottom=-80, label=curve)
    transfer.legend()
    harmonics.legend()
    return [transfer, harmonics]


# Reverberation.


def _decay_db(h: Tensor) -> Tensor:
    """What is left of the energy of an impulse response after each sample (Schroeder 1965)."""
    left = h.square().sum(-2).flip(-1).cumsum(-1).flip(-1)
    return 10 * (left / left[0]).clamp_min(1e-12).log10()


@picture(
    "Energy left of impulse responses over time: straight lines in dB that fall to -60 dB, a dotted line, in about "
    "0.5, 1 and 2 s, the T60 that each was given, where they end.",
    "Energy left in three octaves of one impulse response: the one at 125 Hz reaches -60 dB near 2 s, the one at 1 kHz "
    "near 1 s, and the one at 8 kHz near 0.5 s, as they were given.",
)
def noise_shaped_reverb() -> list[Axes]:
    """The energy that is left of the impulse response after each moment: first with one T60 for all bands, then with a
    T60 for each of three bands.  The T60 is the time to the dotted line; the impulse response ends with the longest."""
    alike, bands = (panel(xlabel="time in s", ylabel="energy left in dB", ylim=(-70, 3)) for _ in range(2))
    x = torch.zeros(1, 2 * RATE + 4410, dtype=torch.float64)
    x[:, 0] = 1
    for decay_s in (0.5, 1.0, 2.0):
        level = _decay_db(F.noise_shaped_reverb(x, RATE, decay_s=decay_s, mix=1.0))
        alike.plot(_seconds(level)[::50], level[::50], label=f"decay_s={decay_s:g}")
    octaves, decays = (125.0, 1000.0, 8000.0), [2.0, 1.0, 0.5]
    for band, (octave, decay_s) in enumerate(zip(octaves, decays, strict=True)):
        gains = [0.0 if band == other else -96.0 for other in range(3)]
        h = F.noise_shaped_reverb(x, RATE, band_gain_db=gains, decay_s=decays, mix=1.0, bands_hz=octaves)
        level = _decay_db(h)
        bands.plot(_seconds(level)[::50], level[::50], label=f"{octave:g} Hz, decay_s={decay_s:g}")
    for axes in (alike, bands):
        axes.axhline(-60, color="0.5", linestyle=":")
        axes.legend()
    return [alike, bands]


_ECHOES = "h = torch.zeros(1, 44100)\nh[0, ::11025] = torch.tensor([1.0, 0.6, 0.36, 0.2])"


@picture(
    "An impulse response of four impulses, 0.25 s apart, each lower than the one before.",
    "The waveform of a snare hit, and of the same hit followed by three softer echoes.",
)
def convolution_reverb() -> list[Axes]:
    """An impulse response of four echoes, and one hit of a snare drum before and after it."""
    h = names_after(_ECHOES)["h"]
    response, wave = panel(xlabel="time in s", ylabel="h"), panel(xlabel="time in s", ylabel="amplitude")
    at = torch.nonzero(h[0])[:, 0]
    response.stem(at / RATE, h[0, at], basefmt="C0-")
    response.set_xlim(-0.03, 1)
    snare = _song("snare")[0, :, :RATE]
    onset = int((snare[0].abs() > 0.1).nonzero()[0]) - 500
    hit = torch.nn.functional.pad(snare[:, onset : onset + RATE // 5], (0, RATE * 4 // 5))
    y = F.convolution_reverb(hit, RATE, h.double())
    wave.plot(_seconds(y)[::2], y[0, ::2], linewidth=0.6, label="after")
    wave.plot(_seconds(hit)[: RATE // 5 : 2], hit[0, : RATE // 5 : 2], color="0.6", linewidth=0.6, label="before")
    wave.legend()
    return [response, wave]


# Stereo.


@picture(
    "Gains of the left and right channel over the pan for the three laws: from 1 at their own side to 0 at the "
    "other; at the centre 0.71, 0.5 and 0.59.",
    "The power of both channels together over the pan: constant for constant_power, -3 dB at the centre for linear, "
    "-1.5 dB for -4.5dB.",
)
def stereo_panner() -> list[Axes]:
    """The gains of the left (solid) and right (dashed) channel, and their power, which is how loud a source seems
    in a room."""
    gains, power = panel(xlabel="pan", ylabel="gain"), panel(xlabel="pan", ylabel="power in dB", ylim=(-4, 3))
    pan = torch.linspace(-1, 1, 201, dtype=torch.float64)
    for number, law in enumerate(LAWS):
        left, right = F.stereo_panner(torch.ones(1, 201, dtype=torch.float64), RATE, pan[None], law)
        gains.plot(pan, left, color=f"C{number}", label=law)
        gains.plot(pan, right, color=f"C{number}", linestyle="--")
        power.plot(pan, 10 * (left.square() + right.square()).log10(), label=law)
    for axes, place in ((gains, "lower center"), (power, "upper center")):
        axes.set_xticks([-1, 0, 1], ["left", "centre", "right"])
        axes.legend(loc=place)
    return [gains, power]


@picture(
    "Levels of mid and side of a song over the width: the mid stays, the side is off at width 0 and rises with the "
    "width.",
    "The correlation of left and right of the same song: 1 at width 0, falling as the width grows.",
)
def stereo_widener() -> list[Axes]:
    """A song in stereo at every width: its mid and side signals, and how alike left and right are."""
    level, alike = panel(xlabel="width", ylabel="level in dB"), panel(xlabel="width", ylabel="correlation")
    x = _song("keys", "pad", "strings", stereo=True).sum(0)[..., ::7]
    width = torch.linspace(0, 2, 41, dtype=torch.float64)
    left, right = F.stereo_widener(x.expand(41, *x.shape), RATE, width).unbind(-2)
    for name, signal in (("mid", (left + right) / 2), ("side", (left - right) / 2)):
        level.plot(width, _db(signal.square().mean(-1).sqrt()), label=name)
    level.set_ylim(-60, 0)
    level.legend()
    alike.plot(width, (left * right).mean(-1) / (left.square().mean(-1) * right.square().mean(-1)).sqrt())
    alike.set_ylim(-0.05, 1.05)
    return [level, alike]


# Meters.


@picture(
    "The K-weighting over frequency and its two filters: a high-pass that lowers what is below 100 Hz, and a shelf "
    "that raises what is above 2 kHz by 4 dB.",
)
def k_weighting() -> list[Axes]:
    """What a meter hears: the shelf, the high-pass, and both."""
    axes = panel(ylabel="gain in dB", ylim=(-24, 8))
    sos = F.k_weighting(RATE)
    axes.plot(_FREQUENCY, _db(F.sosfreqz(sos, _FREQUENCY, RATE)), linewidth=4, alpha=0.4, label="K-weighting")
    for name, sections in (("shelf", sos[:1]), ("high-pass", sos[1:])):
        axes.plot(_FREQUENCY, _db(F.sosfreqz(sections, _FREQUENCY, RATE)), "--", label=name)
    _frequency_axis(axes)
    axes.legend(loc="lower right")
    return [axes]


@cache
def _programme() -> Tensor:
    """A song of 20 s at a rate of 22050 Hz whose middle is 16 dB softer."""
    x = multitrack(1, 20.0, 22050).tracks.sum(0).double()
    level_db = torch.zeros(1, x.shape[-1], dtype=torch.float64)
    level_db[:, 7 * 22050 : 13 * 22050] = -16
    return F.gain(x, 22050, level_db)


def _loudness(*shown: str) -> Axes:
    axes = panel(xlabel="time in s", ylabel="loudness in LUFS", ylim=(-45, -5))
    for number, (name, window_s) in enumerate((("momentary", 0.4), ("short_term", 3.0))):
        if name in shown:
            level = getattr(F, f"{name}_loudness")(_programme(), 22050)
            axes.plot(window_s + 0.1 * np.arange(len(level)), level, color=f"C{number}", label=f"{name}_loudness")
    if "integrated" in shown:
        for gated, line in ((True, "-"), (False, ":")):
            level = float(F.integrated_loudness(_programme(), 22050, gated=gated))
            axes.axhline(level, color="C3", linestyle=line, label=f"integrated_loudness, gated={gated}")
    axes.legend(loc="lower left")
    return axes


@picture(
    "Momentary loudness of a song of 20 s whose middle is 16 dB softer, and its integrated loudness: gated, a line "
    "through the loud parts; not gated, about 1 dB lower.",
)
def integrated_loudness() -> list[Axes]:
    """A song whose middle is 16 dB softer.  The gate leaves the soft part out of the loudness of the whole."""
    return [_loudness("momentary", "integrated")]


@picture("Momentary loudness of a song over time, which moves with every beat and falls by 16 dB in the soft middle.")
def momentary_loudness() -> list[Axes]:
    """A song whose middle is 16 dB softer, through windows of 400 ms; a value stands at the end of its window."""
    return [_loudness("momentary")]


@picture(
    "Short-term loudness of the same song, a smooth curve that takes 3 s to follow the soft middle, over the momentary "
    "loudness.",
)
def short_term_loudness() -> list[Axes]:
    """The same song through windows of 3 s, over those of 400 ms; a value stands at the end of its window."""
    return [_loudness("momentary", "short_term")]


@picture(
    "A histogram of the short-term loudness of a song: most windows near -13 LUFS, many near -30, few between, and an "
    "arrow as long as the loudness range, 17 LU.",
)
def loudness_range() -> list[Axes]:
    """How often each short-term loudness occurs in a song whose middle is 16 dB softer; the arrow is as long as its
    loudness range."""
    axes = panel(xlabel="short-term loudness in LUFS", ylabel="windows")
    level, found = F.short_term_loudness(_programme(), 22050), float(F.loudness_range(_programme(), 22050))
    axes.hist(level.numpy(), bins=24)
    high, top = float(level.quantile(0.95)), axes.get_ylim()[1]
    axes.annotate("", (high - found, top), (high, top), arrowprops={"arrowstyle": "<->", "color": "C3"})
    axes.text(high - found / 2, 1.02 * top, f"{found:.1f} LU", ha="center", va="bottom", color="C3")
    axes.set_ylim(0, 1.15 * top)
    return [axes]


@picture(
    "Samples of a tone at a quarter of the sample rate, all at ±0.71, on the tone itself, which reaches ±1; a line "
    "at the true peak that the meter finds, close to 1.",
)
def true_peak_db() -> list[Axes]:
    """A tone whose samples all miss its peaks: they are at -3 dB, and the meter finds what lies between them."""
    axes = panel(xlabel="sample", ylabel="amplitude")
    n = torch.arange(480, dtype=torch.float64)
    x = torch.sin(torch.pi * (n / 2 + 0.25))[None]
    t = torch.linspace(0, 12, 600, dtype=torch.float64)
    axes.plot(t, torch.sin(torch.pi * (t / 2 + 0.25)), color="0.6", linewidth=0.9)
    axes.plot(n[:13], x[0, :13], "o")
    level = float(F.true_peak_db(x, 48000))
    axes.axhline(10 ** (level / 20), color="C3", label=f"true_peak_db: {level:.2f} dBTP")
    axes.set_ylim(-1.1, 1.45)
    axes.legend(loc="upper right")
    return [axes]


# Sounds.

_SOURCES = {
    "drums": 'x = dasp.mixing.multitrack(1, 7.0, names=["kick", "snare", "hihat"]).tracks.sum(0)',
    "groove": 'x = dasp.mixing.multitrack(1, 7.0, names=["kick", "snare", "hihat", "bass"]).tracks.sum(0)',
    "keys": 'x = dasp.mixing.multitrack(2, 7.0, names=["keys"]).tracks[0]',
    "song": "x = dasp.mixing.multitrack(1, 7.0).tracks.sum(0)",
    "ensemble": 'x = dasp.mixing.multitrack(1, 7.0, stereo=True, names=["keys", "pad", "strings"]).tracks.sum(0)',
    "tracks": "x = dasp.mixing.multitrack(1, 7.0).tracks",
    "voice": 'x = dasp.mixing.multitrack(5, 7.0, names=["voice"]).tracks[0]',
}
# An instrument may not play in the first bars of a song.
_EXCERPT = "[..., 88200:]"


def _sound(text: str, source: str, *code: str, before: str = "x", as_loud: bool = True) -> Sound:
    return Sound(text, "\n".join([_SOURCES[source] + _EXCERPT, *code]), before, as_loud=as_loud)


SOUNDS = {
    "gain": _sound(
        "A voice, and the same 12 dB softer.", "voice", "y = F.gain(x, 44100, gain_db=-12.0)", as_loud=False
    ),
    "polarity": _sound(
        "Drums picked up by two microphones, one of them 0.5 ms late; after, the late one with inverted polarity, "
        "which takes the low frequencies away.  Alone, either polarity sounds the same.",
        "drums",
        "late = x.roll(22, -1)",
        "both = x + late",
        "y = x + F.polarity(late, 44100, invert=1.0)",
        before="both",
        as_loud=False,
    ),
    "stereo_bus": _sound(
        "Six tracks sent to a bus at 0 dB; after, kick and bass as they were, the others 18 dB softer.",
        "tracks",
        "level_db = torch.tensor([0.0, -18.0, -18.0, 0.0, -18.0, -18.0])",
        "even = F.stereo_bus(x, 44100)",
        "y = F.stereo_bus(x, 44100, send_db=level_db)",
        before="even",
    ),
    "lowpass": _sound(
        "A song, and the same through a low-pass whose frequency falls from 10 kHz to 200 Hz.",
        "song",
        "falling = torch.logspace(4.0, 2.3, x.shape[-1])",
        "y = F.lowpass(x, 44100, frequency_hz=falling[None], q=1.0)",
        as_loud=False,
    ),
    "highpass": _sound(
        "Drums and bass, and what is above 500 Hz of them.",
        "groove",
        "y = F.highpass(x, 44100, frequency_hz=500.0)",
    ),
    "bandpass": _sound(
        "A voice, and the same as through a telephone, around 1.2 kHz alone.",
        "voice",
        "y = F.bandpass(x, 44100, frequency_hz=1200.0, q=2.0)",
    ),
    "notch": _sound(
        "A voice with a whistle at 2 kHz, and the same without the whistle.",
        "voice",
        "whistle = 0.1 * torch.sin(2 * math.pi * 2000 / 44100 * torch.arange(x.shape[-1]))",
        "disturbed = x + whistle",
        "y = F.notch(disturbed, 44100, frequency_hz=2000.0, q=5.0)",
        before="disturbed",
        as_loud=False,
    ),
    "allpass": _sound(
        "Keys, and the same with a phaser: mixed with what two all-pass filters make of them, whose frequency goes "
        "up and down between 300 Hz and 3 kHz.  An all-pass alone is hardly heard.",
        "keys",
        "moving = 10 ** (2.98 - 0.5 * torch.cos(math.pi / 44100 * torch.arange(x.shape[-1])))[None]",
        "turned = F.allpass(F.allpass(x, 44100, moving, q=0.7), 44100, 2 * moving, q=0.7)",
        "y = (x + turned) / 2",
    ),
    "peaking": _sound(
        "A song, and the same with 15 dB more around 1 kHz.",
        "song",
        "y = F.peaking(x, 44100, frequency_hz=1000.0, gain_db=15.0, q=1.5)",
    ),
    "low_shelf": _sound(
        "Drums and bass, and the same with 9 dB more below 150 Hz.",
        "groove",
        "y = F.low_shelf(x, 44100, frequency_hz=150.0, gain_db=9.0)",
    ),
    "high_shelf": _sound(
        "Drums and bass, and the same with 12 dB less above 3 kHz.",
        "groove",
        "y = F.high_shelf(x, 44100, frequency_hz=3000.0, gain_db=-12.0)",
    ),
    "sosfilt": _sound(
        "A song, and what is below 500 Hz of it: two sections, 24 dB per octave.",
        "song",
        'sos = F.biquad("lowpass", 44100, 500.0).expand(2, 6)',
        "y = F.sosfilt(x, sos)",
    ),
    "parametric_eq": _sound(
        "A song, and the same with a fuller bass, less around 400 Hz, and brighter.",
        "song",
        "frequency_hz = [90.0, 200.0, 400.0, 2500.0, 5000.0, 9000.0]",
        "y = F.parametric_eq(x, 44100, frequency_hz, gain_db=[6.0, 0.0, -8.0, 0.0, 4.0, 9.0])",
    ),
    "compressor": _sound(
        "Drums, and the same compressed: the attack of each hit passes, what rings after it is held down.",
        "drums",
        "y = F.compressor(x, 44100, threshold_db=-30.0, ratio=6.0, attack_ms=10.0, release_ms=120.0)",
    ),
    "expander": _sound(
        "Drums in a hall, and the same with a gate that closes after each hit.",
        "drums",
        "hall = F.noise_shaped_reverb(x, 44100, decay_s=1.5, mix=0.3)",
        "y = F.expander(hall, 44100, threshold_db=-18.0, ratio=10.0, attack_ms=0.5, release_ms=40.0)",
        before="hall",
    ),
    "distortion": _sound(
        "Keys, and the same overdriven by 30 dB.",
        "keys",
        "y = F.distortion(x, 44100, drive_db=30.0)",
    ),
    "noise_shaped_reverb": _sound(
        "A voice, and the same in a hall that decays in 2 s.",
        "voice",
        "y = F.noise_shaped_reverb(x, 44100, decay_s=2.0, mix=0.3, pre_delay_ms=20.0)",
    ),
    "convolution_reverb": _sound(
        "A voice, and the same with three echoes.",
        "voice",
        *_ECHOES.split("\n"),
        "y = F.convolution_reverb(x, 44100, h)",
    ),
    "stereo_panner": _sound(
        "A voice in the middle, and the same wandering from left to right.",
        "voice",
        "y = F.stereo_panner(x, 44100, pan=torch.linspace(-1.0, 1.0, x.shape[-1])[None])",
    ),
    "stereo_widener": _sound(
        "Keys, pad and strings, and the same with twice its side signal.",
        "ensemble",
        "y = F.stereo_widener(x, 44100, width=2.0)",
    ),
}


# What a processor has that has nothing of its own above.


def _inputs(spec: Spec, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Mono audio as a processor takes it, and the further audio it needs: the same."""
    audio = x.expand(spec.channels[0] if spec.channels else 1, -1)
    return audio[None] if spec.tracks else audio, dict.fromkeys(spec.signals, audio)


def default_picture(name: str) -> Picture:
    """What the first two controls of a processor do: to its response if it is linear, else to a sine."""
    spec = PROCESSORS[name]
    controls = list(spec.controls)[:2]

    def response(control: str, value: float) -> tuple[Any, Tensor]:
        def process(x: Tensor) -> Tensor:
            audio, signals = _inputs(spec, x)
            return spec.function(audio, RATE, **signals, **{control: value}).flatten(0, -2)

        return _FREQUENCY, _db(_response(process).abs().square().mean(0).sqrt())

    def wave(control: str, value: float) -> tuple[Any, Tensor]:
        audio, signals = _inputs(spec, _tone(torch.full((RATE // 2,), -6.0, dtype=torch.float64)))
        y = spec.function(audio, RATE, **signals, **{control: value}).flatten(0, -2)[0, -RATE * 3 // 1000 :]
        return 1000 * _seconds(y), y

    def draw() -> list[Axes]:
        panels = []
        for control in controls:
            axes = panel(ylabel="gain in dB") if spec.linear else panel(xlabel="time in ms", ylabel="amplitude")
            low, high = spec.controls[control].bounds(RATE)
            default = spec.defaults[control]
            values = [low, high] if isinstance(default, tuple) else sorted({low, float(default), high})
            for value in values:
                axes.plot(*(response if spec.linear else wave)(control, value), label=f"{control}={value:.4g}")
            if spec.linear:
                _frequency_axis(axes)
            # Room for the legend above the curves.
            low, high = axes.get_ylim()
            axes.set_ylim(low, high + (high - low) / 3)
            axes.legend(loc="upper right")
            panels.append(axes)
        return panels

    kind = "Magnitude response" if spec.linear else "What becomes of a sine of 1 kHz and -6 dB"
    alt = tuple(f"{kind}, at the least, default and largest usual {control} of {name}." for control in controls)
    places = " and of ".join(f"``{control}``" for control in controls)
    return Picture(draw, alt, f"{kind}, at the least, default and largest usual value of {places}.")


def default_sound(name: str) -> Sound:
    """Drums before and after a processor, the first control of which is at three quarters of its usual range."""
    spec = PROCESSORS[name]
    settings = {
        control: float(f"{float(param.denormalize(torch.tensor(0.75), RATE)):.3g}")
        for control, param in list(spec.controls.items())[:1]
    }
    source = "tracks" if spec.tracks else "drums" if 1 in (spec.channels or (1,)) else "ensemble"
    arguments = [*(f"{signal}=x" for signal in spec.signals), *(f"{key}={value}" for key, value in settings.items())]
    said = "".join(f", with ``{control}`` at three quarters of its usual range" for control in settings)
    call = f"y = F.{name}({', '.join(['x', '44100', *arguments])})"
    return _sound(f"The {source} before and after{said}.", source, call, before="x.sum(-3)" if spec.tracks else "x")


def picture_of(name: str) -> Picture | None:
    """The picture of a public function; None if it has none and is no processor with controls."""
    own = globals().get(name)
    if isinstance(own, Picture):
        return own
    return default_picture(name) if name in PROCESSORS and PROCESSORS[name].controls else None


def sound_of(name: str) -> Sound | None:
    """The sound of a public function; None if it has none and is no processor."""
    return SOUNDS.get(name) or (default_sound(name) if name in PROCESSORS else None)
