"""A report of a mix as one HTML file: players, the console with its curves, loudness, and the settings."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
import torch
from torch import Tensor

import dasp.functional as F
from dasp._version import __version__
from dasp.io import encoded, resample
from dasp.mixing import settings as settings_format
from dasp.mixing.console import DifferentiableMixingConsole
from dasp.mixing.controls import SEND, Values
from dasp.mixing.responses import equalizer_response
from dasp.mixing.switches import Switches

# Players hold no more than this: three of them stay below 10 MB.
LONGEST_S = 90.0
_LEAD_S = 1.0
# Signals are written at this loudness, or lower where one of them would clip.
_LOUDNESS_LUFS = -20.0
_CEILING_DB = -1.0
_MP3_RATES = (16000, 22050, 24000, 32000, 44100, 48000)
_COLUMNS = 240
_LOWEST_HZ = 20.0
_CURVE_DB = 18.0
_REDUCTION_DB = 18.0
_DECAY_DB = 60.0
_SPECTRUM_SIZE = 8192
_DYNAMICS: dict[str, Callable[..., Tensor]] = {"compressor": F.compressor_gain, "expander": F.expander_gain}


def report(
    console: DifferentiableMixingConsole,
    controls: Mapping[str, Tensor],
    names: Sequence[str],
    tracks: Sequence[Tensor],
    reference: Tensor | None = None,
    losses: Sequence[float] = (),
    switches: Switches | None = None,
    title: str = "Mix",
    start_s: float = 0.0,
) -> str:
    """Writes a mix up as one HTML page, which needs no network and no other file.

    It has players of the sum of the tracks, the mix and the reference, at one loudness and in step, switched by the
    keys A, B and R; every strip with the curves of its equaliser and compressor, its gain reduction over time, the
    decay of an impulse response, fader, pan and sends; loudness, true peak, width and spectrum of mix and reference;
    the loss of each step; and all settings.  Of audio beyond 90 s the loudest 90 s are heard and measured.

    Args:
        console: The console.
        controls: Normalised controls of one mix.
        names: A name for each track; they may hold anything.
        tracks: Tracks `(1 or 2, samples)` each, all of one length.
        reference: The mix that was to be reproduced, `(2, samples)`, or one that this should be like, which may be
            shorter; None if there was none.
        losses: Loss of each step of a fit in dB.
        switches: Mute, solo, bypass and groups, see the console.
        title: What the page is called.
        start_s: Where in the song the tracks begin, if they are a part of it.

    Returns:
        The page.

    Raises:
        ValueError: If names, tracks and controls do not match, or there is no sample.

    Example:
        >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
        >>> page = dasp.mixing.report(console, console.default_controls(1), ["voice"], [0.1 * torch.randn(1, 22050)])
        >>> "voice" in page
        True
    """
    # Only here: it takes longer to import than all that is computed.
    from jinja2 import Environment, StrictUndefined

    if len(names) != len(tracks) or not tracks or tracks[0].shape[-1] == 0:
        raise ValueError(f"report: got {len(names)} names and {len(tracks)} tracks, expected as many, with samples")
    with torch.no_grad():
        content = _content(console, controls, names, tracks, reference, switches, start_s)
    settings = console.describe(controls, names, switches)
    content |= {
        "title": title,
        "version": __version__,
        "losses": _curve(np.asarray(losses, dtype=float), 0, max(losses, default=1.0)) if losses else "",
        "loss_ends": (f"{losses[0]:.2f}", f"{losses[-1]:.2f}", len(losses)) if losses else None,
        "json": settings_format.to_json(settings),
        "table": _table(settings),
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template, script = (_file(name) for name in ("report.html", "report.js"))
    # The page runs this script and no other, whatever a track is called.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    content |= {"script": script, "script_hash": f"sha256-{digest}"}
    page: str = environment.from_string(template).render(content)
    # Names of files whose bytes are no text have halves of characters, which no file can hold.
    return page.encode("utf-8", "replace").decode("utf-8")


def _file(name: str) -> str:
    return resources.files("dasp.mixing").joinpath(f"templates/{name}").read_text(encoding="utf-8")


def _content(
    console: DifferentiableMixingConsole,
    controls: Mapping[str, Tensor],
    names: Sequence[str],
    tracks: Sequence[Tensor],
    reference: Tensor | None,
    switches: Switches | None,
    start_s: float,
) -> dict[str, Any]:
    rate = console.sample_rate
    begin, end = _excerpt(_sum(tracks), rate)
    before = min(begin, round(_LEAD_S * rate))
    signals = console.signals([track[..., begin - before : end] for track in tracks], controls, switches=switches)
    mix = signals.mix[..., before:]
    heard = {"A": ("stems", _sum(tracks)[..., begin:end]), "B": ("mix", mix)}
    if reference is not None:
        # One that is shorter is of another song, or a part of it.
        in_step = reference.shape[-1] >= end
        heard["R"] = ("reference", reference[..., begin:end] if in_step else reference[..., : end - begin])
    reductions = {name: gain[..., before:] for name, gain in signals.gain_db.items()}
    values = console.denormalize(dict(controls))
    strips = [_strip(console, "track", name, values, position, reductions) for position, name in enumerate(names)]
    strips += [
        _strip(console, section, section, values, None, reductions)
        for section in console.sections()
        if section != "track"
    ]
    shown = {name: audio for name, audio in heard.values() if name != "stems"}
    return {
        "players": _players(heard, rate),
        "seconds": (start_s + begin / rate, start_s + end / rate),
        "whole": start_s == 0 and end - begin == tracks[0].shape[-1],
        "strips": strips,
        "measures": [_measures(name, audio, rate) for name, audio in heard.values()],
        "spectra": [(name, _curve(level, -90, -10)) for name, level in _spectra(shown, rate)],
        "frequencies": [(f"{label}", _frequency_place(hz, rate)) for hz, label in _FREQUENCIES if hz < rate / 2],
    }


_FREQUENCIES = (
    (50, "50"),
    (100, "100"),
    (200, "200"),
    (500, "500"),
    (1000, "1k"),
    (2000, "2k"),
    (5000, "5k"),
    (10000, "10k"),
)


def _sum(tracks: Sequence[Tensor]) -> Tensor:
    return torch.stack([track.expand(2, -1) for track in tracks]).sum(0)


def _excerpt(audio: Tensor, sample_rate: float) -> tuple[int, int]:
    """The loudest stretch of no more than 90 s."""
    samples, most = audio.shape[-1], round(LONGEST_S * sample_rate)
    if samples <= most:
        return 0, samples
    step = round(sample_rate)
    power = audio[..., : samples // step * step].double().square().mean(0).reshape(-1, step).mean(-1)
    total = torch.cat([power.new_zeros(1), power.cumsum(0)])
    size = most // step
    begin = int((total[size:] - total[:-size]).argmax()) * step
    return begin, begin + size * step


def _players(heard: Mapping[str, tuple[str, Tensor]], sample_rate: float) -> list[dict[str, str]]:
    """Signals as MP3 at one loudness, which is lower where one of them would clip."""
    gains = {}
    for key, (_, audio) in heard.items():
        # What is shorter than a block of the gate, or nearly silent, has a loudness without it.
        measured = [float(F.integrated_loudness(audio, sample_rate, gated=gated)) for gated in (True, False)]
        loudness = measured[0] if math.isfinite(measured[0]) else measured[1]
        gains[key] = _LOUDNESS_LUFS - loudness if math.isfinite(loudness) else 0.0
    peaks = [gains[key] + 20 * math.log10(max(float(audio.abs().max()), 1e-9)) for key, (_, audio) in heard.items()]
    down = min(0.0, _CEILING_DB - max(peaks))
    return [
        {"key": key, "name": name, "audio": _encoded(audio * 10 ** ((gains[key] + down) / 20), sample_rate)}
        for key, (name, audio) in heard.items()
    ]


def _encoded(audio: Tensor, sample_rate: float) -> str:
    """Audio as an MP3 file in base64, at a rate that MP3 knows, or as FLAC where it is lower than these."""
    rate = round(sample_rate)
    if rate > max(_MP3_RATES):
        # As FLAC at 96 kHz three players of 90 s would take 100 MB.
        target = 44100 if rate % 44100 == 0 else 48000
        audio, rate = resample(audio, rate, target), target
    kind = "MP3" if rate in _MP3_RATES else "FLAC"
    return base64.b64encode(encoded(audio, rate, kind)).decode("ascii")


def _strip(
    console: DifferentiableMixingConsole,
    section: str,
    name: str,
    values: Values,
    position: int | None,
    reductions: Mapping[str, Tensor],
) -> dict[str, Any]:
    """What the page shows of a track, group, bus or the master."""
    chain = console.sections()[section]
    stages = {
        stage: {control: value if position is None else value[position] for control, value in controls.items()}
        for stage, controls in values[section].items()
    }
    frequency = np.geomspace(_LOWEST_HZ, 0.49 * console.sample_rate, 120)
    kind = "track" if position is not None else "master" if section == "master" else "bus"
    kind = "group" if section in console.groups else kind
    shown: dict[str, Any] = {"name": name, "kind": kind, "dynamics": [], "decays": [], "others": []}
    for stage, module in chain.stages().items():
        kind, own = module.spec.name, stages.get(stage, {})
        if kind == "parametric_eq":
            at = torch.from_numpy(frequency)
            response = equalizer_response(module.options["kinds"], own, console.sample_rate, at)
            level_db = 20 * response.abs().clamp_min(1e-6).log10()
            shown["equalizer"] = _curve(level_db.numpy(), -_CURVE_DB, _CURVE_DB)
        elif kind in _DYNAMICS:
            gain = reductions[f"{section}.{stage}"]
            gain = gain if position is None else gain[position]
            shown["dynamics"].append(_dynamics(kind, stage, own, gain))
        elif kind == "gain":
            gain_db = float(own["gain_db"])
            shown["fader"] = {"gain_db": gain_db, "text": _db(gain_db), "place": _fader_place(gain_db)}
        elif kind == "stereo_panner":
            pan = float(own["pan"])
            shown["pan"] = {"angle": 135 * pan, "text": _pan_text(pan)}
        else:
            texts = [
                f"{control} {_range(value)} {module.spec.controls[control].unit}" for control, value in own.items()
            ]
            shown["others"].append({"stage": stage, "texts": texts})
            if "impulse_response" in module.spec.signals:
                response = module.get_buffer("impulse_response")
                seconds = f"{response.shape[-1] / console.sample_rate:.2f}"
                shown["decays"].append({"stage": stage, "path": _decay(response), "seconds": seconds})
    shown["sends"] = [
        {
            "bus": bus.removesuffix("_db"),
            "text": "off" if level <= SEND.low else _db(level),
            "share": _send_share(level),
        }
        for bus, level in ((bus, float(level)) for bus, level in stages.get("send", {}).items())
    ]
    return shown


def _decay(response: Tensor) -> str:
    """What is left of the energy of an impulse response after each time (Schroeder 1965), from 0 to -60 dB."""
    power = response.detach().double().square().sum(0)
    left = power.flip(0).cumsum(0).flip(0)
    level_db = 10 * torch.log10((left / left[0].clamp_min(1e-30)).clamp_min(1e-12))
    columns = np.linspace(0, len(level_db) - 1, min(_COLUMNS, len(level_db))).round().astype(int)
    return _curve(level_db.numpy()[columns], -_DECAY_DB, 0)


def _dynamics(kind: str, stage: str, controls: Mapping[str, Tensor], gain_db: Tensor) -> dict[str, Any]:
    """The static curve of a compressor or expander from -60 to 0 dB, and its gain over time."""
    level = torch.linspace(-60, 0, 61, dtype=torch.float64)
    settings = {name: value.double() for name, value in controls.items() if name != "makeup_gain_db"}
    settings |= {"attack_ms": torch.tensor(0.0), "release_ms": torch.tensor(0.0)}
    static = level + _DYNAMICS[kind]((10 ** (level / 20))[None], 44100, **settings)[0]
    gain = gain_db.amin(-2)
    columns = torch.nn.functional.pad(gain, (0, -gain.shape[-1] % _COLUMNS)).reshape(_COLUMNS, -1).amin(-1)
    ratio = float(controls["ratio"])
    return {
        "stage": stage,
        "static": _curve(static.numpy(), -60, 0),
        "gain": _curve(columns.double().numpy(), -_REDUCTION_DB, 0),
        "text": f"{float(controls['threshold_db']):.0f} dB, {ratio:.3g}:1",
        "least": f"{float(gain.min()):.1f}",
    }


def _curve(y: np.ndarray, low: float, high: float) -> str:
    """An SVG path over a box of 100 by 100, from values between low and high."""
    if high <= low:
        high = low + 1
    places = 100 * (1 - (np.clip(np.nan_to_num(y, nan=low), low, high) - low) / (high - low))
    x = np.linspace(0, 100, len(y)) if len(y) > 1 else np.zeros(len(y))
    return "M" + " L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, places, strict=True))


def _fader_place(gain_db: float) -> float:
    """The height of a fader in percent: 0 dB at three quarters, as on a desk."""
    return float(np.interp(gain_db, (-60, -40, -20, -10, 0, 12, 24), (0, 12, 35, 55, 75, 93, 100)))


def _range(value: Tensor) -> str:
    """A value, or the least and the largest of several."""
    ends = sorted({f"{float(value.min()):.3g}", f"{float(value.max()):.3g}"}, key=float)
    return " to ".join(ends)


def _send_share(level_db: float) -> float:
    return float(np.clip((level_db - SEND.low) / (SEND.high - SEND.low), 0, 1) * 100)


def _db(value: float) -> str:
    return f"{value:+.1f} dB"


def _pan_text(pan: float) -> str:
    """A pan as it is written on desks: C, L30, R30."""
    share = round(100 * abs(pan))
    return "C" if share == 0 else f"{'L' if pan < 0 else 'R'}{share}"


def _measures(name: str, audio: Tensor, sample_rate: float) -> dict[str, str]:
    x = audio.double()
    middle, side = (x[0] + x[1]).square().mean(), (x[0] - x[1]).square().mean()
    return {
        "name": name,
        "loudness": _number(float(F.integrated_loudness(x, sample_rate)), "LUFS"),
        "range": _number(float(F.loudness_range(x, sample_rate)), "LU"),
        "peak": _number(float(F.true_peak_db(x, sample_rate)), "dBTP"),
        "width": _number(10 * math.log10(float(side + 1e-12) / float(middle + 1e-12)), "dB"),
    }


def _number(value: float, unit: str) -> str:
    return f"{value:.1f} {unit}" if math.isfinite(value) else "none"


def _spectra(heard: Mapping[str, Tensor], sample_rate: float) -> list[tuple[str, np.ndarray]]:
    """Mean spectra in third octaves, in dB of full scale."""
    edges = np.geomspace(_LOWEST_HZ, 0.49 * sample_rate, 32)
    found = []
    for name, audio in heard.items():
        size = min(_SPECTRUM_SIZE, audio.shape[-1])
        window = torch.hann_window(size, dtype=torch.float64)
        frames = audio.double().unfold(-1, size, max(1, size // 2)) * window
        power = torch.fft.rfft(frames).abs().square().mean((0, 1)) * (4 / float(window.sum()) ** 2)
        frequency = np.fft.rfftfreq(size, 1 / sample_rate)
        bands = np.add.reduceat(power.numpy(), np.searchsorted(frequency, edges[:-1]).clip(0, len(frequency) - 1))
        found.append((name, 10 * np.log10(bands + 1e-12)))
    return found


def _frequency_place(frequency_hz: float, sample_rate: float) -> float:
    high = 0.49 * sample_rate
    return 100 * math.log(frequency_hz / _LOWEST_HZ) / math.log(high / _LOWEST_HZ)


def _table(settings: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Every control in a line: track or section, stage, control, value."""
    places = [*settings["tracks"].items(), *settings.get("groups", {}).items(), *settings["buses"].items()]
    lines = []
    for name, stages in [*places, ("master", settings["master"])]:
        for stage, controls in stages.items():
            for control, value in controls.items():
                values = value if isinstance(value, list) else [value]
                text = ", ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values)
                lines.append((name, stage, control, text))
    return lines
