"""Equalisers as other programs write them: Equalizer APO, CamillaDSP, FFmpeg, SoX, and sections as scipy has them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

import dasp.functional as F
import dasp.modules as M
from dasp._checks import check_choice
from dasp._spec import Control
from dasp.interchange._session import Stage, session, stage_of
from dasp.interchange._text import factor, one_line, plain
from dasp.kernels import KINDS

# Bands act as if within these limits: see `parametric_eq`, "Domain".
_LOWEST_HZ, _HIGHEST_OF_RATE = 1.0, 0.499
_LOWEST_Q, _HIGHEST_Q = 1e-3, 1e3
# More than anybody filters with, and less than what coefficients cannot hold.
_MOST_DB = 400.0
WITH_GAIN = ("low_shelf", "peaking", "high_shelf")
"""Kinds of filters that have a gain."""

_APO = {
    "low_shelf": "LSC",
    "high_shelf": "HSC",
    "peaking": "PK",
    "lowpass": "LPQ",
    "highpass": "HPQ",
    "bandpass": "BP",
    "notch": "NO",
    "allpass": "AP",
}
_FROM_APO = {code: kind for kind, code in _APO.items()} | {"PEQ": "peaking"}
_CAMILLADSP = {
    "low_shelf": "Lowshelf",
    "high_shelf": "Highshelf",
    "peaking": "Peaking",
    "lowpass": "Lowpass",
    "highpass": "Highpass",
    "bandpass": "Bandpass",
    "notch": "Notch",
    "allpass": "Allpass",
}
_FFMPEG = {
    "low_shelf": "lowshelf",
    "high_shelf": "highshelf",
    "peaking": "equalizer",
    "lowpass": "lowpass",
    "highpass": "highpass",
    "bandpass": "bandpass",
    "notch": "bandreject",
    "allpass": "allpass",
}
_NUMBER = r"[-+]?[0-9]+(?:[.,][0-9]+)?(?:[eE][-+]?[0-9]+)?"
_APO_FILTER = re.compile(
    rf"Filter(?:\s*[0-9]+)?\s*:\s*(?P<on>ON|OFF)\s+(?P<code>[A-Z]+)\s+Fc\s+(?P<f>{_NUMBER})\s*Hz"
    rf"(?:\s+Gain\s+(?P<gain>{_NUMBER})\s*dB)?(?:\s+Q\s+(?P<q>{_NUMBER}))?",
    re.IGNORECASE,
)
_APO_PREAMP = re.compile(rf"Preamp\s*:\s*(?P<gain>{_NUMBER})\s*dB", re.IGNORECASE)


class Band(NamedTuple):
    """One filter of the Audio EQ Cookbook; shelves in their Q form.

    Attributes:
        kind: As in `dasp.functional.biquad`.
        frequency_hz: Cutoff or centre in Hz.
        gain_db: Gain in dB; 0 of kinds without one.
        q: Quality factor.

    Example:
        >>> dasp.interchange.from_eqapo("Filter: ON PK Fc 1000 Hz Gain 6 dB Q 2", 44100).bands[0]
        Band(kind='peaking', frequency_hz=1000.0, gain_db=6.0, q=2.0)
    """

    kind: str
    frequency_hz: float
    gain_db: float
    q: float


class Equalizer(NamedTuple):
    """Filters in series.

    Attributes:
        bands: The filters.
        sample_rate: Sample rate in Hz.
        gain_db: Gain before them in dB.
        left_out: Stages of the section it was taken from that are no filters, such as "compressor".

    Example:
        >>> band = dasp.interchange.Band("high_shelf", 8000.0, 3.0, 0.7)
        >>> eq = dasp.interchange.Equalizer((band,), 44100, gain_db=-3.0)
        >>> print(dasp.interchange.to_eqapo(eq).strip())
        # equaliser, at 44100 Hz, by dasp
        Preamp: -3 dB
        Filter 1: ON HSC Fc 8000 Hz Gain 3 dB Q 0.7
    """

    bands: tuple[Band, ...]
    sample_rate: float
    gain_db: float = 0.0
    left_out: tuple[str, ...] = ()

    def controls(self) -> dict[str, Control | list[str]]:
        """Arguments of `dasp.functional.parametric_eq` for its filters.

        Example:
            >>> eq = dasp.interchange.from_eqapo("Filter: ON PK Fc 1000 Hz Gain 6 dB Q 2", 44100)
            >>> F.parametric_eq(torch.zeros(2, 64), 44100, **eq.controls()).shape
            torch.Size([2, 64])
        """
        return {
            "kinds": [band.kind for band in self.bands],
            "frequency_hz": [band.frequency_hz for band in self.bands],
            "gain_db": [band.gain_db for band in self.bands],
            "q": [band.q for band in self.bands],
        }


def equalizer(source: Mapping[str, Any] | M.Processor | M.Chain, section: str | None = None) -> Equalizer:
    """The filters of a processor, a chain, or one section of a description, with the values that act.

    Args:
        source: A module, or a description as `DifferentiableMixingConsole.describe` gives it.
        section: Of a description, "master" or the name of a track, group or bus; with `tracks.`, `groups.` or `buses.`
            in front where two share a name.  Stages that a track bypasses are left out.

    Raises:
        TypeError: If source is none of these, or a section is given for a module.
        ValueError: If there is no such section, or no filter in it, or a gain is beyond 400 dB.

    Example:
        >>> eq = dasp.interchange.equalizer(dasp.modules.Highpass(44100, frequency_hz=80.0))
        >>> eq.bands[0].kind, round(eq.bands[0].frequency_hz)
        ('highpass', 80)
    """
    if isinstance(source, (M.Processor, M.Chain)):
        if section is not None:
            raise TypeError(f"equalizer: section is {section!r}, expected None for a module")
        rate = source.sample_rate
        chain = source if isinstance(source, M.Chain) else M.Chain(source)
        with torch.no_grad():
            stages = [stage_of(name, stage, stage.denormalize(stage.exact())) for name, stage in chain.stages().items()]
        found = "source"
    elif isinstance(source, Mapping):
        described = session(source)
        rate, found = described.sample_rate, section if section is not None else "master"
        stages = [stage for stage in described.find("equalizer", found).all_stages if not stage.bypassed]
    else:
        raise TypeError(f"equalizer: source is a {type(source).__name__}, expected a description or a module")
    bands = [band for stage in stages for band in bands_of(stage, rate)]
    if not bands:
        raise ValueError(f"equalizer: {one_line(found)} has no filters")
    return Equalizer(tuple(bands), rate, left_out=tuple(stage.name for stage in stages if not is_filter(stage)))


def is_filter(stage: Stage) -> bool:
    """Whether a stage is an equaliser or a single filter."""
    return stage.processor == "parametric_eq" or stage.processor in KINDS


def bands_of(stage: Stage, sample_rate: float) -> list[Band]:
    """The filters of a stage with the values that act; none if it is no filter."""
    if not is_filter(stage):
        return []
    kinds = stage.options["kinds"] if stage.processor == "parametric_eq" else [stage.processor]
    columns = [_listed(stage.controls.get(name, 0.0), len(kinds)) for name in ("frequency_hz", "gain_db", "q")]
    return [_acting(kind, f, gain, q, sample_rate) for kind, f, gain, q in zip(kinds, *columns, strict=True)]


def _listed(value: float | list[float], bands: int) -> list[float]:
    return value if isinstance(value, list) else [value] * bands


def _acting(kind: str, frequency_hz: float, gain_db: float, q: float, sample_rate: float) -> Band:
    """A band within the limits that a filter clamps it to."""
    for name, value, most in (
        ("frequency_hz", frequency_hz, math.inf),
        ("gain_db", gain_db, _MOST_DB),
        ("q", q, math.inf),
    ):
        if math.isnan(value) or abs(value) > most:
            raise ValueError(
                f"{kind}: {name} is {value:g}, expected a number" + (f" up to {most:g}" if most < math.inf else "")
            )
    frequency_hz = min(max(frequency_hz, _LOWEST_HZ), _HIGHEST_OF_RATE * sample_rate)
    return Band(kind, frequency_hz, gain_db if kind in WITH_GAIN else 0.0, min(max(q, _LOWEST_Q), _HIGHEST_Q))


def to_eqapo(eq: Equalizer, title: str = "") -> str:
    """Text of Equalizer APO, which AutoEq and Room EQ Wizard write too.

    Args:
        eq: The equaliser.
        title: Stands in a remark.

    Returns:
        One `Filter` line per band, with the numbers as they are.  LSC and HSC with a Q are the shelves of the Audio EQ
        Cookbook with that Q, as ours are; no other slope is meant.

    Example:
        >>> eq = dasp.interchange.from_eqapo("Filter: ON PK Fc 1000 Hz Gain -3 dB Q 2", 44100)
        >>> print(dasp.interchange.to_eqapo(eq, "voice"))
        # voice, at 44100 Hz, by dasp
        Filter 1: ON PK Fc 1000 Hz Gain -3 dB Q 2
        <BLANKLINE>
    """
    lines = [_remark(eq, title)]
    if eq.gain_db:
        lines.append(f"Preamp: {plain(eq.gain_db)} dB")
    for number, band in enumerate(eq.bands, 1):
        gain = f" Gain {plain(band.gain_db)} dB" if band.kind in WITH_GAIN else ""
        frequency, q = plain(band.frequency_hz), plain(band.q)
        lines.append(f"Filter {number}: ON {_APO[band.kind]} Fc {frequency} Hz{gain} Q {q}")
    return "\n".join(lines) + "\n"


def _remark(eq: Equalizer, title: str) -> str:
    return f"# {one_line(title) if title else 'equaliser'}, at {plain(eq.sample_rate)} Hz, by dasp"


def from_eqapo(text: str, sample_rate: float) -> Equalizer:
    """Reads text of Equalizer APO.

    Args:
        text: Lines `Preamp: -6 dB` and `Filter 1: ON PK Fc 1000 Hz Gain -3 dB Q 1.41` of the types PK (PEQ), LSC, HSC,
            LPQ, HPQ, BP, NO and AP, each with Q; remarks after #, filters that are OFF, and decimal commas.
        sample_rate: Sample rate in Hz that the filters are for.

    Raises:
        ValueError: At any other line, where Equalizer APO itself is silent; or if there is no filter.

    Example:
        >>> eq = dasp.interchange.from_eqapo("Preamp: -6 dB\\nFilter: ON LSC Fc 100 Hz Gain 4 dB Q 0.7", 44100)
        >>> eq.gain_db, eq.bands[0].kind
        (-6.0, 'low_shelf')
    """
    bands: list[Band] = []
    gain_db = 0.0
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if preamp := _APO_PREAMP.fullmatch(line):
            gain_db += _number(preamp["gain"])
            continue
        band = _APO_FILTER.fullmatch(line)
        kind = _FROM_APO.get(band["code"].upper()) if band else None
        if band is None or kind is None or band["q"] is None or (kind in WITH_GAIN) != (band["gain"] is not None):
            shown = one_line(line)[:80]
            expected = f"Preamp, or Filter of {', '.join(_FROM_APO)} with Fc, Q, and Gain where the type has one"
            raise ValueError(f"from_eqapo: line {number} is {shown!r}, expected {expected}")
        if band["on"].upper() == "ON":
            bands.append(
                _acting(kind, _number(band["f"]), _number(band["gain"] or "0"), _number(band["q"]), sample_rate)
            )
    if not bands:
        raise ValueError("from_eqapo: there is no filter that is ON")
    return Equalizer(tuple(bands), sample_rate, gain_db)


def _number(text: str) -> float:
    number = float(text.replace(",", "."))
    if not math.isfinite(number):
        raise ValueError(f"from_eqapo: a number is {text}, expected a finite one")
    return number


def to_camilladsp(eq: Equalizer, title: str = "", channels: Sequence[int] = (0, 1)) -> str:
    """The `filters` and `pipeline` of a CamillaDSP configuration, as YAML.

    Args:
        eq: The equaliser.
        title: Stands in a remark.
        channels: Channels of the pipeline that are filtered.

    Example:
        >>> eq = dasp.interchange.from_eqapo("Filter: ON LPQ Fc 1000 Hz Q 2", 44100)
        >>> print(dasp.interchange.to_camilladsp(eq))
        # equaliser, at 44100 Hz, by dasp
        filters:
          band_1:
            type: Biquad
            parameters:
              type: Lowpass
              freq: 1000
              q: 2
        pipeline:
          - type: Filter
            channels: [0, 1]
            names: [band_1]
        <BLANKLINE>
    """
    lines, names = [_remark(eq, title), "filters:"], []
    if eq.gain_db:
        names.append("gain")
        lines += ["  gain:", "    type: Gain", "    parameters:", f"      gain: {plain(eq.gain_db)}"]
    for number, band in enumerate(eq.bands, 1):
        names.append(f"band_{number}")
        lines += [f"  band_{number}:", "    type: Biquad", "    parameters:", f"      type: {_CAMILLADSP[band.kind]}"]
        lines.append(f"      freq: {plain(band.frequency_hz)}")
        if band.kind in WITH_GAIN:
            lines.append(f"      gain: {plain(band.gain_db)}")
        lines.append(f"      q: {plain(band.q)}")
    heard = ", ".join(str(int(channel)) for channel in channels)
    lines += ["pipeline:", "  - type: Filter", f"    channels: [{heard}]", f"    names: [{', '.join(names)}]"]
    return "\n".join(lines) + "\n"


def to_ffmpeg(eq: Equalizer) -> str:
    """A filtergraph for `ffmpeg -af`, in double precision.

    Example:
        >>> eq = dasp.interchange.from_eqapo("Filter: ON PK Fc 1000 Hz Gain -3 dB Q 2", 44100)
        >>> dasp.interchange.to_ffmpeg(eq)
        'equalizer=f=1000:t=q:w=2:g=-3:r=f64'
    """
    parts = [f"volume={plain(eq.gain_db)}dB:precision=double"] if eq.gain_db else []
    for band in eq.bands:
        gain = f":g={plain(band.gain_db)}" if band.kind in WITH_GAIN else ""
        parts.append(f"{_FFMPEG[band.kind]}=f={plain(band.frequency_hz)}:t=q:w={plain(band.q)}{gain}:r=f64")
    return ",".join(parts)


def to_sox(eq: Equalizer) -> str:
    """Effects for SoX: one `biquad` with the coefficients of each section.

    Example:
        >>> eq = dasp.interchange.equalizer(dasp.modules.Peaking(44100))
        >>> dasp.interchange.to_sox(eq).split()[0]
        'biquad'
    """
    return " ".join("biquad " + " ".join(plain(c) for c in section) for section in to_sos(eq).tolist())


def to_sos(eq: Equalizer) -> np.ndarray:
    """Second-order sections `(bands, 6)` in float64 as b0 b1 b2 a0 a1 a2, as `scipy.signal.sosfilt` takes them.

    Example:
        >>> dasp.interchange.to_sos(dasp.interchange.equalizer(dasp.modules.Lowpass(44100))).shape
        (1, 6)
    """
    rows = []
    for kind, *values in eq.bands:
        check_choice("to_sos", "kind", kind, KINDS)
        frequency_hz, gain_db, q = (torch.tensor(value, dtype=torch.float64) for value in values)
        rows.append(F.biquad(kind, eq.sample_rate, frequency_hz, gain_db, q).numpy())
    sos = np.stack(rows)
    sos[0, :3] *= factor(eq.gain_db)
    return sos


def to_sos_json(eq: Equalizer) -> str:
    """Second-order sections as JSON: an object of `sample_rate` in Hz and `sos`, a list of six numbers per section.

    Example:
        >>> eq = dasp.interchange.equalizer(dasp.modules.Lowpass(44100))
        >>> sos = np.array(json.loads(dasp.interchange.to_sos_json(eq))["sos"])
        >>> bool((sos == dasp.interchange.to_sos(eq)).all())
        True
    """
    rows = ",\n".join(f"    {json.dumps(row)}" for row in to_sos(eq).tolist())
    return f'{{\n  "sample_rate": {json.dumps(eq.sample_rate)},\n  "sos": [\n{rows}\n  ]\n}}\n'
