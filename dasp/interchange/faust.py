"""Strips as programs in Faust, which compiles to plug-ins, apps and web pages, sample by sample what dasp does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

import dasp._version
import dasp.modules as M
from dasp.functional.stereo import centre_gain
from dasp.interchange._session import Stage, session, stage_of
from dasp.interchange._text import file_name, one_line, plain
from dasp.interchange.equalizers import WITH_GAIN, bands_of, is_filter

# Definitions that stages call, each with the names of those that it calls.  Recursions are written with `letrec`: in an
# equation of `'s` the name s is the value before, which outside is `s'`.
_DEFINITIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "rate": ("rate = float(fconstant(int fSamplingFreq, <math.h>));", ()),
    "pi": ("pi = 3.14159265358979323846;", ()),
    "amplitude": ("amplitude(level_db) = pow(10.0, level_db / 20.0);", ()),
    "both": ("both(effect) = effect, effect;", ()),
    "section": (
        """// A second-order section in transposed direct form II.
section(b0, b1, b2, a0, a1, a2, x) = b0 / a0 * x + first' letrec {
  'first = (b1 * x - a1 * (b0 / a0 * x + first)) / a0 + second;
  'second = (b2 * x - a2 * (b0 / a0 * x + first)) / a0;
};""",
        (),
    ),
    "angle": ("angle(hz) = 2.0 * pi * min(max(hz, 1.0), 0.499 * rate) / rate;", ("rate", "pi")),
    "alpha": ("alpha(hz, q) = sin(angle(hz)) / (2.0 * q);", ("angle",)),
    "versine": ("// 1 - cos, without cancellation.\nversine(w) = 2.0 * sin(w / 2.0) * sin(w / 2.0);", ()),
    "lowpass": (
        """lowpass_filter(hz, q) = section(v / 2.0, v, v / 2.0, 1.0 + al, -2.0 * cos(w), 1.0 - al)
with { w = angle(hz); al = alpha(hz, q); v = versine(w); };""",
        ("section", "alpha", "versine"),
    ),
    "highpass": (
        """highpass_filter(hz, q) = section(c / 2.0, 0.0 - c, c / 2.0, 1.0 + al, -2.0 * cos(w), 1.0 - al)
with { w = angle(hz); al = alpha(hz, q); c = 1.0 + cos(w); };""",
        ("section", "alpha"),
    ),
    "bandpass": (
        """bandpass_filter(hz, q) = section(al, 0.0, 0.0 - al, 1.0 + al, -2.0 * cos(angle(hz)), 1.0 - al)
with { al = alpha(hz, q); };""",
        ("section", "alpha"),
    ),
    "notch": (
        """notch_filter(hz, q) = section(1.0, c, 1.0, 1.0 + al, c, 1.0 - al)
with { al = alpha(hz, q); c = -2.0 * cos(angle(hz)); };""",
        ("section", "alpha"),
    ),
    "allpass": (
        """allpass_filter(hz, q) = section(1.0 - al, c, 1.0 + al, 1.0 + al, c, 1.0 - al)
with { al = alpha(hz, q); c = -2.0 * cos(angle(hz)); };""",
        ("section", "alpha"),
    ),
    "peaking": (
        """peaking_filter(hz, gain_db, q) = section(1.0 + al * A, c, 1.0 - al * A, 1.0 + al / A, c, 1.0 - al / A)
with { A = pow(10.0, gain_db / 40.0); al = alpha(hz, q); c = -2.0 * cos(angle(hz)); };""",
        ("section", "alpha"),
    ),
    "shelf": (
        """// Low for a sign of 1, high for -1.
shelf_filter(sign, hz, gain_db, q) = section(b0, b1, b2, a0, a1, a2)
with {
  A = pow(10.0, gain_db / 40.0);
  c = sign * cos(angle(hz));
  slope = 2.0 * sqrt(A) * alpha(hz, q);
  b0 = A * (A + 1.0 - (A - 1.0) * c + slope);
  b1 = sign * 2.0 * A * (A - 1.0 - (A + 1.0) * c);
  b2 = A * (A + 1.0 - (A - 1.0) * c - slope);
  a0 = A + 1.0 + (A - 1.0) * c + slope;
  a1 = sign * -2.0 * (A - 1.0 + (A + 1.0) * c);
  a2 = A + 1.0 + (A - 1.0) * c - slope;
};""",
        ("section", "alpha"),
    ),
    "level": ("level(x) = 20.0 * log10(max(abs(x), 0.00000001));", ()),
    "knee": (
        """knee_over(over, width) = select2(over >= width / 2.0, select2(over > 0.0 - width / 2.0, 0.0, bent), over)
with { bent = (over + width / 2.0) * (over + width / 2.0) / (2.0 * max(width, 0.000000001)); };""",
        (),
    ),
    "smooth": (
        """// One pole, of one time while the gain falls and of another while it rises.
smooth(fall_ms, rise_ms, gain_db) = s letrec { 's = pole(gain_db < s) * s + (1.0 - pole(gain_db < s)) * gain_db; }
with {
  pole(falls) = select2(falls, decay(rise_ms), decay(fall_ms));
  decay(ms) = exp(-1000.0 / (max(ms, 0.000000001) * rate));
};""",
        ("rate",),
    ),
    "squeeze": (
        """compressor_gain(threshold_db, ratio, attack_ms, release_ms, knee_db, x) =
  smooth(attack_ms, release_ms, (1.0 / ratio - 1.0) * knee_over(level(x) - threshold_db, knee_db));""",
        ("smooth", "knee", "level"),
    ),
    "expand": (
        """expander_gain(threshold_db, ratio, attack_ms, release_ms, knee_db, range_db, x) =
  smooth(release_ms, attack_ms, max((1.0 - ratio) * knee_over(threshold_db - level(x), knee_db), 0.0 - range_db));""",
        ("smooth", "knee", "level"),
    ),
    "max": (
        "linked_by_max(gain, l, r) = l * g, r * g with { g = amplitude(gain(max(abs(l), abs(r)))); };",
        ("amplitude",),
    ),
    "mean": (
        "linked_by_mean(gain, l, r) = l * g, r * g with { g = amplitude(gain((abs(l) + abs(r)) / 2.0)); };",
        ("amplitude",),
    ),
    "none": ("not_linked(gain, l, r) = l * amplitude(gain(l)), r * amplitude(gain(r));", ("amplitude",)),
    "tanh": (
        "tanh_curve(x) = (e - 1.0) / (e + 1.0) with { e = exp(2.0 * min(max(x, -20.0), 20.0)); };",
        (),
    ),
    "hard": ("hard_curve(x) = min(max(x, -1.0), 1.0);", ()),
    "soft_cubic": (
        "soft_cubic_curve(x) = u - 4.0 / 27.0 * u * u * u with { u = min(max(x, -1.5), 1.5); };",
        (),
    ),
    "width": ("widened(w, l, r) = m + s, m - s with { m = (l + r) / 2.0; s = w * (l - r) / 2.0; };", ()),
    "constant_power": (
        """constant_power(pan, l, r) = l * side((1.0 - pan) / 2.0), r * side((1.0 + pan) / 2.0)
with { side(toward) = sin(pi / 2.0 * toward); };""",
        ("pi",),
    ),
    "linear": ("linear(pan, l, r) = l * (1.0 - pan) / 2.0, r * (1.0 + pan) / 2.0;", ()),
    "-4.5dB": (
        """between(pan, l, r) = l * side((1.0 - pan) / 2.0), r * side((1.0 + pan) / 2.0)
with { side(toward) = sqrt(max(toward * sin(pi / 2.0 * toward), 0.0)); };""",
        ("pi",),
    ),
}
_LINKS = {"max": "linked_by_max", "mean": "linked_by_mean", "none": "not_linked"}
_LAWS = {"constant_power": "constant_power", "linear": "linear", "-4.5dB": "between"}
_TIMES = ("threshold_db", "ratio", "attack_ms", "release_ms", "knee_db")


class Faust(NamedTuple):
    """A program in Faust.

    Attributes:
        text: Its source.
        left_out: Stages of the section that it has no counterpart of, such as "noise_shaped_reverb".

    Example:
        >>> room = dasp.modules.Chain(dasp.modules.NoiseShapedReverb(44100), dasp.modules.Gain(44100))
        >>> dasp.interchange.to_faust(room).left_out
        ('noise_shaped_reverb',)
    """

    text: str
    left_out: tuple[str, ...] = ()


def to_faust(source: Mapping[str, Any] | M.Processor | M.Chain, section: str | None = None) -> Faust:
    """The processors of a module, a chain, or one section of a description as a stereo effect in Faust.

    Filters, compressors, expanders, gains, polarity, distortion, wideners and panners are computed as dasp does, at any
    sample rate; a mono track goes to both inputs.  Sends are no part of it.  For the same numbers compile in double
    precision: `faust -double`.

    Args:
        source: A module, or a description as `DifferentiableMixingConsole.describe` gives it.
        section: Of a description, "master" or the name of a track, group or bus; with `tracks.`, `groups.` or `buses.`
            in front where two share a name.  Stages that a track bypasses are left away.

    Returns:
        The source text, and the names of stages that are not in it.

    Raises:
        TypeError: If source is none of these, or a section is given for a module.
        ValueError: If there is no such section, or nothing in it that Faust can do.

    Example:
        >>> found = dasp.interchange.to_faust(dasp.modules.Gain(44100, gain_db=-6.0))
        >>> print(found.text.splitlines()[-4])
        gain = both(*(amplitude(-6.0)));
    """
    level, title = 1.0, "a chain"
    if isinstance(source, (M.Processor, M.Chain)):
        if section is not None:
            raise TypeError(f"to_faust: section is {section!r}, expected None for a module")
        chain = source if isinstance(source, M.Chain) else M.Chain(source)
        with torch.no_grad():
            stages = [stage_of(name, stage, stage.denormalize(stage.exact())) for name, stage in chain.stages().items()]
    elif isinstance(source, Mapping):
        described = session(source)
        title = section if section is not None else "master"
        channel = described.find("to_faust", title)
        stages = [stage for stage in channel.all_stages if not stage.bypassed]
        if any(channel is track for track in described.tracks):
            # A strip brings the centre of its panners to 0 dB.
            laws = [stage.options["law"] for stage in stages if stage.processor == "stereo_panner"]
            level = math.prod(1 / centre_gain(law) for law in laws)
    else:
        raise TypeError(f"to_faust: source is a {type(source).__name__}, expected a description or a module")
    return _program(title, stages, level)


def _program(title: str, stages: list[Stage], level: float) -> Faust:
    used: dict[str, None] = {}
    lines, names, left_out = [], [], []
    for stage in stages:
        body = _stage(stage, used)
        if body is None:
            left_out.append(stage.name)
        else:
            lines.append(f"{stage.name} = {body};")
            names.append(stage.name)
    if not names:
        raise ValueError(f"to_faust: {one_line(title)} has no processor that Faust has a counterpart of")
    if level != 1.0:
        lines.append(f"centre = {_both(f'*({_number(level)})', used)};")
        names.append("centre")
    definitions = "\n".join(_DEFINITIONS[name][0] for name in _needed(used))
    shown = one_line(title)
    remarks = [f"// {shown}, by dasp {dasp._version.__version__}: two channels in and out; a mono track goes to both."]
    remarks += ["// In double precision (faust -double ...) it is sample by sample what dasp computes."]
    remarks += [f"// Without {', '.join(left_out)}."] if left_out else []
    # Faust puts the declared name into code of other languages as it is.
    text = "\n".join([*remarks, f'declare name "{file_name(title)}";', "", definitions, "", *lines, ""])
    process = "\n  : ".join(names)
    return Faust(f"{text}\nprocess =\n    {process};\n", tuple(left_out))


def _needed(used: Mapping[str, None]) -> list[str]:
    """Definitions that are called, and those that these call, in the order in which they are declared."""
    found: set[str] = set()
    waiting = list(used)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _DEFINITIONS[name][1]
    return [name for name in _DEFINITIONS if name in found]


def _stage(stage: Stage, used: dict[str, None]) -> str | None:
    """The expression of a stage, from two channels to two, or None if there is none for it."""
    values = {name: value[0] if isinstance(value, list) else value for name, value in stage.controls.items()}
    if is_filter(stage):
        filters = []
        for kind, frequency_hz, gain_db, q in bands_of(stage, math.inf):
            used["shelf" if kind.endswith("shelf") else kind] = None
            first = {"low_shelf": "shelf_filter(1.0, ", "high_shelf": "shelf_filter(-1.0, "}
            call = first.get(kind, f"{kind}_filter(")
            band = (frequency_hz, gain_db, q) if kind in WITH_GAIN else (frequency_hz, q)
            filters.append(f"{call}{', '.join(map(_number, band))})")
        return _both("\n  : ".join(filters), used)
    if stage.processor in ("compressor", "expander"):
        squeezes = stage.processor == "compressor"
        used |= dict.fromkeys(("squeeze" if squeezes else "expand", stage.options["link"]))
        numbers = ", ".join(_number(values[name]) for name in (*_TIMES, *(() if squeezes else ("range_db",))))
        linked = f"{_LINKS[stage.options['link']]}({stage.processor}_gain({numbers}))"
        makeup_db = values.get("makeup_gain_db", 0.0)
        return f"{linked} : {_both(f'*(amplitude({_number(makeup_db)}))', used)}" if makeup_db else linked
    if stage.processor == "gain":
        used["amplitude"] = None
        return _both(f"*(amplitude({_number(values['gain_db'])}))", used)
    if stage.processor == "polarity":
        return _both(f"*({_number(1 - 2 * values['invert'])})", used)
    if stage.processor == "distortion":
        used |= dict.fromkeys(("amplitude", stage.options["curve"]))
        return _both(f"*(amplitude({_number(values['drive_db'])})) : {stage.options['curve']}_curve", used)
    if stage.processor == "stereo_widener":
        used["width"] = None
        return f"widened({_number(values['width'])})"
    if stage.processor == "stereo_panner":
        used[stage.options["law"]] = None
        return f"{_LAWS[stage.options['law']]}({_number(values['pan'])})"
    return None


def _both(effect: str, used: dict[str, None]) -> str:
    used["both"] = None
    return f"both({effect})"


def _number(value: float) -> str:
    """A number with a decimal point: without one it is an integer of 32 bits."""
    text = plain(value)
    return text if "." in text else f"{text}.0"
