"""The processors of the default console and of published ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dasp.modules as M
from dasp.mixing._names import check_known

_KINDS = ("low_shelf", "peaking", "peaking", "high_shelf")
# The octaves of hearing in twelve bands.
_LOWEST_BAND_HZ, _HIGHEST_BAND_HZ, _BANDS = 31.25, 16000.0, 12


def default_strip(sample_rate: float) -> M.Chain:
    """Four-band equaliser, compressor, fader and panner; the fader does what a makeup gain would."""
    equalizer = M.ParametricEQ(
        sample_rate, kinds=_KINDS, frequency_hz=_at_most((100.0, 500.0, 2500.0, 8000.0), sample_rate)
    )
    return M.Chain(equalizer, M.Compressor(sample_rate, ratio=1.0), M.Gain(sample_rate), M.StereoPanner(sample_rate))


# By the names that people use for them; where a processor does nothing, or little, and has a gradient.
_STAGES: dict[str, Callable[[float], M.Processor]] = {
    "eq": lambda rate: M.ParametricEQ(rate, kinds=_KINDS, frequency_hz=_at_most((100.0, 500.0, 2500.0, 8000.0), rate)),
    "comp": lambda rate: M.Compressor(rate, ratio=1.0),
    "exp": lambda rate: M.Expander(rate, threshold_db=-60.0, ratio=1.5),
    "dist": M.Distortion,
    "gain": M.Gain,
    "pan": M.StereoPanner,
    "polarity": M.Polarity,
    "highpass": lambda rate: M.Highpass(rate, frequency_hz=30.0),
    "lowpass": lambda rate: M.Lowpass(rate, frequency_hz=_at_most((18000.0,), rate)[0]),
    "width": M.StereoWidener,
    "reverb": lambda rate: M.NoiseShapedReverb(rate, mix=0.1),
}
_ALSO = {
    "equalizer": "eq",
    "parametric_eq": "eq",
    "compressor": "comp",
    "expander": "exp",
    "gate": "exp",
    "distortion": "dist",
    "fader": "gain",
    "panner": "pan",
    "stereo_panner": "pan",
    "stereo_widener": "width",
    "noise_shaped_reverb": "reverb",
}


def named_strip(names: Sequence[str], sample_rate: float) -> M.Chain:
    """A strip of processors by their names, such as eq, comp, pan; a fader and a panner that are not named come last.

    Raises:
        ValueError: If a name is unknown, or none is given.
    """
    if not names:
        raise ValueError(f"strip is empty, expected some of {', '.join(_STAGES)}")
    order = []
    for name in names:
        order.append(_ALSO.get(name, name))
        check_known("strip", order[-1], list(_STAGES))
    if "gain" not in order:
        order.insert(order.index("pan") if "pan" in order else len(order), "gain")
    if "pan" not in order:
        order.append("pan")
    return M.Chain(*(_STAGES[name](sample_rate) for name in order))


def default_reverb(sample_rate: float) -> M.Chain:
    """A bus of nothing but reverberation."""
    return M.Chain(M.NoiseShapedReverb(sample_rate, mix=1.0))


def default_master(sample_rate: float) -> M.Chain:
    """Equaliser and compressor."""
    return M.Chain(
        M.ParametricEQ(sample_rate, kinds=_KINDS, frequency_hz=_at_most((100.0, 500.0, 2500.0, 8000.0), sample_rate)),
        M.Compressor(sample_rate, ratio=1.0),
    )


def _at_most(frequency_hz: Sequence[float], sample_rate: float) -> list[float]:
    return [min(f, 0.49 * sample_rate) for f in frequency_hz]


DEFAULT_LOCKED = (
    "track.compressor.makeup_gain_db",
    "reverb.noise_shaped_reverb.mix",
    # What a pre-delay changes is below the resolution of a spectral distance.
    "reverb.noise_shaped_reverb.pre_delay_ms",
    "master.compressor.makeup_gain_db",
)


def _steinmetz2021(sample_rate: float) -> dict[str, Any]:
    """26 free controls per track: gain, polarity, equaliser 13, compressor 5, reverberation 4, fader, pan."""
    kinds = ("low_shelf", "peaking", "peaking", "peaking", "high_shelf")
    equalizer = M.ParametricEQ(
        sample_rate, kinds=kinds, frequency_hz=_at_most((80.0, 400.0, 2000.0, 6000.0, 10000.0), sample_rate)
    )
    return {
        "strip": M.Chain(
            M.Gain(sample_rate),
            M.Polarity(sample_rate),
            equalizer,
            M.Compressor(sample_rate, ratio=1.0),
            M.NoiseShapedReverb(sample_rate, mix=0.0, bands_hz=(1000.0,)),
            M.Gain(sample_rate),
            M.StereoPanner(sample_rate, law="-4.5dB"),
        ),
        "buses": {},
        "master": M.Chain(M.Gain(sample_rate)),
        "locked": (
            "track.parametric_eq.q[0]",
            "track.parametric_eq.q[4]",
            "track.compressor.knee_db",
            "master.gain.gain_db",
        ),
    }


def _diff_mst(sample_rate: float) -> dict[str, Any]:
    """27 free controls per track, 25 of the effect bus, 26 of the master."""
    top_hz = min(_HIGHEST_BAND_HZ, 0.45 * sample_rate)
    ratio = (top_hz / _LOWEST_BAND_HZ) ** (1 / (_BANDS - 1))
    bands_hz = tuple(round(_LOWEST_BAND_HZ * ratio**band, 1) for band in range(_BANDS))
    return {
        "strip": M.Chain(
            M.Gain(sample_rate),
            M.ParametricEQ(sample_rate),
            M.Compressor(sample_rate, ratio=1.0),
            M.StereoPanner(sample_rate, law="-4.5dB"),
        ),
        "buses": {"reverb": M.Chain(M.NoiseShapedReverb(sample_rate, mix=1.0, bands_hz=bands_hz))},
        "master": M.Chain(
            M.Gain(sample_rate),
            M.ParametricEQ(sample_rate),
            M.Compressor(sample_rate, ratio=1.0),
            M.Gain(sample_rate),
        ),
        "locked": ("reverb.noise_shaped_reverb.pre_delay_ms",),
    }


PRESETS: dict[str, Callable[[float], dict[str, Any]]] = {"diff_mst": _diff_mst, "steinmetz2021": _steinmetz2021}
"""Arguments of a console by name."""
