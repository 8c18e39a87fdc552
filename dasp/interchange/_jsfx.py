"""Our processors as JSFX, REAPER's effects in text form, sample by sample what dasp does, in double precision."""

from __future__ import annotations

from collections.abc import Callable

from dasp.functional.distortion import CURVES
from dasp.functional.dynamics import LINKS
from dasp.functional.stereo import LAWS
from dasp.interchange._session import Stage
from dasp.interchange.equalizers import bands_of, is_filter
from dasp.kernels import KINDS

BANDS = 12
"""Bands of one equaliser; more take several."""

FOLDER = "dasp"
"""Folder in REAPER's Effects folder that projects look for them in."""

_WIDE = "-1000000,1000000"


def _slider(number: int, default: float, bounds: str, label: str) -> str:
    return f"slider{number}:{default:g}<{bounds}>{label}"


def _choice(number: int, choices: tuple[str, ...], label: str) -> str:
    return f"slider{number}:0<0,{len(choices) - 1},1{{{','.join(choices)}}}>{label}"


def _equalizer() -> str:
    sliders, designs = [], []
    for band in range(BANDS):
        first = 4 * band + 1
        sliders += [
            _choice(first, ("off", *(kind.replace("_", " ") for kind in KINDS)), f"Band {band + 1} kind"),
            _slider(first + 1, 1000, "1,192000,0.01", f"Band {band + 1} frequency (Hz)"),
            _slider(first + 2, 0, "-120,120,0.01", f"Band {band + 1} gain (dB)"),
            _slider(first + 3, 1, "0.001,1000,0.001", f"Band {band + 1} Q"),
        ]
        designs.append(
            f"slider{first} > 0.5 ? design(slider{first}, " + ", ".join(f"slider{first + i}" for i in (1, 2, 3)) + ");"
        )
    numbered = {kind: position + 1 for position, kind in enumerate(KINDS)}
    cases = {
        "lowpass": "n0 = v / 2; n1 = v; n2 = n0;",
        "highpass": "n0 = (1 + co) / 2; n1 = -(1 + co); n2 = n0;",
        "bandpass": "n0 = al; n1 = 0; n2 = -al;",
        "notch": "n0 = 1; n1 = -2 * co; n2 = 1;",
        "allpass": "n0 = 1 - al; n1 = -2 * co; n2 = 1 + al;",
        "peaking": "n0 = 1 + al * A; n1 = -2 * co; n2 = 1 - al * A; d0 = 1 + al / A; d2 = 1 - al / A;",
        "low_shelf": "mirror = 1; shelf = 1;",
        "high_shelf": "mirror = -1; shelf = 1;",
    }
    branches = "\n".join(f"  k == {numbered[kind]} ? ({body});" for kind, body in cases.items())
    return f"""desc:dasp equaliser
// Filters of the Audio EQ Cookbook in series, in transposed direct form II.
{chr(10).join(sliders)}

@init
// Memory: 5 coefficients, then 4 states, for each band in use.
coefficients = 0;
states = {5 * BANDS};
used = 0;
function design(kind, frequency, gain, q) local(k, w, A, co, al, v, n0, n1, n2, d0, d1, d2, mirror, shelf, sl, p)
(
  k = floor(kind + 0.5);
  w = 2 * $pi * min(max(frequency, 1), 0.499 * srate) / srate;
  A = 10 ^ (gain / 40);
  co = cos(w);
  al = sin(w) / (2 * min(max(q, 0.001), 1000));
  // 1 - cos(w) without cancellation.
  v = 2 * sqr(sin(w / 2));
  d0 = 1 + al; d1 = -2 * co; d2 = 1 - al;
  shelf = 0; mirror = 1;
{branches}
  shelf ? (
    co = mirror * co;
    sl = 2 * sqrt(A) * al;
    n0 = A * (A + 1 - (A - 1) * co + sl);
    n1 = mirror * 2 * A * (A - 1 - (A + 1) * co);
    n2 = A * (A + 1 - (A - 1) * co - sl);
    d0 = A + 1 + (A - 1) * co + sl;
    d1 = mirror * -2 * (A - 1 + (A + 1) * co);
    d2 = A + 1 + (A - 1) * co - sl;
  );
  p = coefficients + 5 * used;
  p[0] = n0 / d0; p[1] = n1 / d0; p[2] = n2 / d0; p[3] = d1 / d0; p[4] = d2 / d0;
  used += 1;
);

@slider
used = 0;
{chr(10).join(designs)}

@sample
p = coefficients;
s = states;
loop(used,
  x = spl0;
  y = p[0] * x + s[0];
  s[0] = p[1] * x - p[3] * y + s[1];
  s[1] = p[2] * x - p[4] * y;
  spl0 = y;
  x = spl1;
  y = p[0] * x + s[2];
  s[2] = p[1] * x - p[3] * y + s[3];
  s[3] = p[2] * x - p[4] * y;
  spl1 = y;
  p += 5;
  s += 4;
);
"""


def _dynamics(compresses: bool) -> str:
    last = (
        _slider(6, 0, "-120,120,0.01", "Makeup gain (dB)") if compresses else _slider(6, 40, "0,200,0.01", "Range (dB)")
    )
    sliders = [
        _slider(1, -24, "-200,200,0.01", "Threshold (dB)"),
        _slider(2, 4, "1,1000000,0.01", "Ratio"),
        _slider(3, 10, f"0,{1000000},0.01", "Attack (ms)"),
        _slider(4, 100, f"0,{1000000},0.01", "Release (ms)"),
        _slider(5, 6, "0,200,0.01", "Knee (dB)"),
        last,
        _choice(7, LINKS, "Channel link"),
    ]
    over = "level - slider1" if compresses else "slider1 - level"
    target = "(1 / slider2 - 1) * k" if compresses else "max((1 - slider2) * k, -slider6)"
    falls, rises = ("attack", "release") if compresses else ("release", "attack")
    makeup = " + slider6" if compresses else ""
    return f"""desc:dasp {"compressor" if compresses else "expander"}
// Feed-forward, in the log domain, with smooth branching (Giannoulis, Massberg and Reiss 2012).
{chr(10).join(sliders)}

@init
s0 = 0;
s1 = 0;
function pole(time) ( time > 0 ? exp(-1000 / (time * srate)) : 0; );
function aim(amplitude) local(level, o, k)
(
  level = 20 * log10(max(amplitude, 0.00000001));
  o = {over};
  k = o >= slider5 / 2 ? o : o <= -slider5 / 2 ? 0 : sqr(o + slider5 / 2) / (2 * slider5);
  {target};
);
function smooth(s, g) local(a)
(
  a = g < s ? {falls} : {rises};
  a * s + (1 - a) * g;
);

@slider
attack = pole(slider3);
release = pole(slider4);

@sample
l0 = abs(spl0);
l1 = abs(spl1);
slider7 < 0.5 ? ( l0 = l1 = max(l0, l1); ) : slider7 < 1.5 ? ( l0 = l1 = (l0 + l1) / 2; );
s0 = smooth(s0, aim(l0));
s1 = smooth(s1, aim(l1));
spl0 *= 10 ^ ((s0{makeup}) / 20);
spl1 *= 10 ^ ((s1{makeup}) / 20);
"""


def _channel() -> str:
    sliders = [
        _slider(1, 0, f"{_WIDE},0.01", "Gain (dB)"),
        _slider(2, 0, "0,1,0.01", "Invert (0.5 is silence)"),
        _slider(3, 1, "0,1000,0.01", "Width"),
        _slider(4, 0, "-1,1,0.01", "Pan"),
        _choice(5, ("off", *LAWS), "Pan law"),
    ]
    return f"""desc:dasp channel
// Gain, polarity, stereo width and panner.
{chr(10).join(sliders)}

@init
function side(toward) local(sine)
(
  sine = sin($pi / 2 * toward);
  slider5 < 0.5 ? 1 : slider5 < 1.5 ? sine : slider5 < 2.5 ? toward : sqrt(max(toward * sine, 0));
);

@slider
factor = 10 ^ (slider1 / 20) * (1 - 2 * slider2);
left = factor * side((1 - slider4) / 2);
right = factor * side((1 + slider4) / 2);

@sample
mid = (spl0 + spl1) / 2;
across = slider3 * (spl0 - spl1) / 2;
spl0 = left * (mid + across);
spl1 = right * (mid - across);
"""


def _distortion() -> str:
    return f"""desc:dasp distortion
{_slider(1, 0, f"{_WIDE},0.01", "Drive (dB)")}
{_choice(2, CURVES, "Curve")}

@init
function shape(u) local(e)
(
  slider2 < 0.5 ? (
    e = exp(2 * min(max(u, -20), 20));
    (e - 1) / (e + 1);
  ) : slider2 < 1.5 ? (
    min(max(u, -1), 1);
  ) : (
    u = min(max(u, -1.5), 1.5);
    u - 4 / 27 * u * u * u;
  );
);

@slider
drive = 10 ^ (slider1 / 20);

@sample
spl0 = shape(spl0 * drive);
spl1 = shape(spl1 * drive);
"""


FILES: dict[str, Callable[[], str]] = {
    "equalizer": _equalizer,
    "compressor": lambda: _dynamics(True),
    "expander": lambda: _dynamics(False),
    "channel": _channel,
    "distortion": _distortion,
}
"""The text of each effect by its name."""


def effects_of(stage: Stage, sample_rate: float) -> list[tuple[str, list[float]]]:
    """Names of the effects that a stage is, with the values of their sliders; none if there are none for it."""
    values = stage.controls
    if is_filter(stage):
        bands = bands_of(stage, sample_rate)
        parts = [bands[first : first + BANDS] for first in range(0, len(bands), BANDS)]
        return [
            ("equalizer", [n for b in part for n in (KINDS.index(b.kind) + 1.0, b.frequency_hz, b.gain_db, b.q)])
            for part in parts
        ]
    if stage.processor in ("compressor", "expander"):
        last = "makeup_gain_db" if stage.processor == "compressor" else "range_db"
        names = ("threshold_db", "ratio", "attack_ms", "release_ms", "knee_db", last)
        return [(stage.processor, [*(_one(values[n]) for n in names), float(LINKS.index(stage.options["link"]))])]
    if stage.processor == "distortion":
        return [("distortion", [_one(values["drive_db"]), float(CURVES.index(stage.options["curve"]))])]
    neutral = {"gain_db": 0.0, "invert": 0.0, "width": 1.0, "pan": 0.0}
    if stage.processor in ("gain", "polarity", "stereo_widener", "stereo_panner"):
        law = LAWS.index(stage.options["law"]) + 1.0 if stage.processor == "stereo_panner" else 0.0
        return [("channel", [*(_one(values.get(name, value)) for name, value in neutral.items()), law])]
    return []


def _one(value: float | list[float]) -> float:
    return value[0] if isinstance(value, list) else value
