"""Settings of a console as a readable description in physical units: JSON out, and back without loss."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

import dasp.modules as M
from dasp._checks import shape_text
from dasp._spec import PROCESSORS, Param
from dasp.mixing._names import check_known
from dasp.mixing.console import DifferentiableMixingConsole
from dasp.mixing.controls import SEND, Values
from dasp.mixing.switches import Switches

Settings: TypeAlias = dict[str, Any]
"""A description as it stands in JSON."""

VERSION = 2
# What a description of version 1 has not said: it knew neither groups, nor sends before the fader, nor switches.
_SINCE_1: dict[str, Any] = {"groups": {}}
_SINCE_1_CONSOLE: dict[str, Any] = {"groups": {}, "pre_fader": []}

_SECTIONS = ("dasp_settings", "sample_rate", "tracks", "groups", "buses", "master", "console")
_LAYOUT = ("strip", "groups", "buses", "master", "pre_fader", "locked")
# Signals of processors, such as impulse responses: base64 of little-endian float32, channel after channel.
_SIGNAL = ("shape", "float32")
# Two channels of 95 s at 44.1 kHz.
_MOST_SAMPLES = 1 << 23
_MOST_CHANNELS = 16
# In Hz, as of audio files.
_MOST_RATE = 384_000
# Of a file: several of the longest signals.
_MOST_BYTES = 1 << 28
_SWITCHES = ("mute", "solo", "bypass", "group")
# Where normalised controls do not give just the described values, they are moved by these shares of what is missing,
# and then by so many last digits, to and fro, since rounding does not let the values rise evenly.
_SHARES = (1.0,) * 4 + (0.5,) * 4 + (0.25,) * 4
_DIGITS = (1, -2, 3, -4, 2)


class SettingsError(ValueError):
    """A description that is none; the text names the place in it, what stands there and what was expected.

    Example:
        >>> dasp.mixing.interpret({"dasp_settings": 2})
        Traceback (most recent call last):
        dasp.mixing.settings.SettingsError: ...
    """


class Mix(NamedTuple):
    """What a description describes.

    Attributes:
        console: The console.
        values: Physical controls in float64, as `console.mix` takes them.
        names: The name of each track.
        switches: Mute, solo, bypass and groups of the tracks.

    Example:
        >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
        >>> mix = dasp.mixing.interpret(console.describe(console.default_controls(1), ["voice"]))
        >>> mix.names, mix.values["track"]["compressor"]["ratio"].dtype
        (['voice'], torch.float64)
    """

    console: DifferentiableMixingConsole
    values: Values
    names: list[str]
    switches: Switches


def describe(
    console: DifferentiableMixingConsole,
    controls: Mapping[str, Tensor],
    names: Sequence[str],
    switches: Switches | None = None,
) -> Settings:
    """Describes a console, controls and switches; see `DifferentiableMixingConsole.describe`."""
    values = {
        section: {stage: {c: v.detach() for c, v in own.items()} for stage, own in stages.items()}
        for section, stages in console.denormalize(controls).items()
    }
    shape = controls["track"].shape
    if len(shape) != 2 or len(set(names)) != len(names) or len(names) != shape[0]:
        expected = "(tracks, P)" if len(shape) != 2 else f"{shape[0]} different names"
        found = f"controls['track'] has shape {shape_text(shape)}" if len(shape) != 2 else f"names is {list(names)}"
        raise ValueError(f"describe: {found}, expected {expected}")
    switched = _switched(console, switches or Switches(), len(names))
    tracks = {
        name: {
            **{
                stage: {control: value[position].tolist() for control, value in own.items()}
                for stage, own in values["track"].items()
                if own or stage != "send"
            },
            **({"switches": switched[position]} if switched[position] else {}),
        }
        for position, name in enumerate(names)
    }
    sections = {
        section: {stage: {c: v.tolist() for c, v in own.items()} for stage, own in stages.items()}
        for section, stages in values.items()
    }
    chains = console.sections()
    return {
        "dasp_settings": VERSION,
        "sample_rate": console.sample_rate,
        "tracks": tracks,
        "groups": {group: sections[group] for group in console.groups},
        "buses": {bus: sections[bus] for bus in console.buses},
        "master": sections["master"],
        "console": {
            "strip": _stages(chains["track"]),
            "groups": {group: _stages(chains[group]) for group in console.groups},
            "buses": {bus: _stages(chains[bus]) for bus in console.buses},
            "master": _stages(chains["master"]),
            "pre_fader": list(console.pre_fader),
            "locked": list(console.locked),
        },
    }


def _stages(chain: M.Chain) -> list[dict[str, Any]]:
    """Processors, options, and those defaults of a chain that are not the declared ones."""
    described = []
    for stage in chain.stages().values():
        own = stage.denormalize(stage.exact())
        signals = {name: getattr(stage, name) for name in stage.spec.signals}
        declared = stage.denormalize(type(stage)(stage.sample_rate, **signals, **stage.options).exact())
        defaults = {name: value.tolist() for name, value in own.items() if not torch.equal(value, declared[name])}
        described.append({**_layout_of(stage), **_if(defaults=defaults)})
    return described


def _layout_of(stage: M.Processor) -> dict[str, Any]:
    options = {key: list(value) if isinstance(value, tuple) else value for key, value in stage.options.items()}
    signals = {name: _signal_text(stage.spec.name, name, getattr(stage, name)) for name in stage.spec.signals}
    return {"processor": stage.spec.name, "options": options, **_if(signals=signals)}


def _signal_text(processor: str, name: str, signal: Tensor) -> dict[str, Any]:
    """A signal `(channels, samples)` as text from which the same comes back."""
    fits = signal.ndim == 2 and 0 < signal.shape[0] <= _MOST_CHANNELS and 0 < signal.numel() <= _MOST_SAMPLES
    if not fits or signal.dtype != torch.float32 or not bool(torch.isfinite(signal).all()):
        have = f"{signal.dtype} of shape {shape_text(signal.shape)}"
        raise ValueError(
            f"describe: {name} of {processor} is {have}, expected finite float32 (channels, samples) with at most "
            f"{_MOST_CHANNELS} channels and {_MOST_SAMPLES} samples in all"
        )
    data = signal.detach().cpu().numpy().astype("<f4").tobytes()
    return {"shape": list(signal.shape), "float32": base64.b64encode(data).decode("ascii")}


def _signal(given: Any, name: str, path: str) -> Tensor:
    """The signal that `_signal_text` described."""
    signal = _get(given, name, dict, path)
    place = f"{path}.{name}"
    _known(signal, _SIGNAL, place)
    shape, text = _get(signal, "shape", list, place), _get(signal, "float32", str, place)
    whole = all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in shape)
    if len(shape) != 2 or not whole or shape[0] > _MOST_CHANNELS or shape[0] * shape[1] > _MOST_SAMPLES:
        raise SettingsError(
            f"{place}.shape is {_shown(shape)}, expected channels, at most {_MOST_CHANNELS}, and samples, "
            f"{_MOST_SAMPLES} in all"
        )
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SettingsError(f"{place}.float32 is {_shown(text[:20])}, expected base64: {error}") from error
    if len(data) != 4 * shape[0] * shape[1]:
        raise SettingsError(f"{place}.float32 has {len(data)} bytes, expected {4 * shape[0] * shape[1]}")
    samples = torch.from_numpy(np.frombuffer(data, "<f4").astype(np.float32)).reshape(shape)
    if not bool(torch.isfinite(samples).all()):
        raise SettingsError(f"{place}.float32 has NaN or infinite samples")
    return samples


def _if(**entries: Any) -> dict[str, Any]:
    """The entries that say something."""
    return {name: value for name, value in entries.items() if value}


def _switched(console: DifferentiableMixingConsole, switches: Switches, tracks: int) -> list[dict[str, Any]]:
    """What is switched of each track."""
    for name, value in (("mute", switches.mute), ("solo", switches.solo), ("group", switches.group)):
        if value is not None and value.shape != (tracks,):
            raise ValueError(f"describe: switches.{name} has shape {shape_text(value.shape)}, expected ({tracks},)")
    mute, solo = (value.tolist() if value is not None else [False] * tracks for value in switches[:2])
    group = switches.group.tolist() if switches.group is not None else [-1] * tracks
    if max(group) >= len(console.groups):
        raise ValueError(f"describe: switches.group is {group}, expected -1 to {len(console.groups) - 1}")
    flags = {stage: value.tolist() for stage, value in (switches.bypass or {}).items()}
    return [
        _if(
            mute=mute[track],
            solo=solo[track],
            bypass=[stage for stage, bypassed in flags.items() if bypassed[track]],
            group=list(console.groups)[group[track]] if group[track] >= 0 else None,
        )
        for track in range(tracks)
    ]


def interpret(settings: Settings) -> Mix:
    """Rebuilds the console, the physical controls, the track names and the switches of a description.

    Raises:
        SettingsError: If something is missing, unknown, of the wrong kind, not finite, or outside the domain of its
            processor, or the version is neither 1 nor 2; the text names the place.

    Example:
        >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
        >>> settings = console.describe(console.default_controls(2), ["voice", "bass"])
        >>> settings["tracks"]["voice"]["gain"]["gain_db"] = -6.0
        >>> mix = dasp.mixing.interpret(settings)
        >>> mix.names, mix.values["track"]["gain"]["gain_db"][0].item()
        (['voice', 'bass'], -6.0)
    """
    settings = _of_this_version(settings)
    _known(settings, _SECTIONS, "")
    rate = _get(settings, "sample_rate", (int, float), "")
    if not _is_finite(rate) or not 0 < rate <= _MOST_RATE:
        raise SettingsError(f"sample_rate is {_shown(rate)}, expected more than 0 and at most {_MOST_RATE} Hz")
    layout = _get(settings, "console", dict, "")
    _known(layout, _LAYOUT, "console")
    chains = {
        kind: {
            name: _chain(rate, stages, f"console.{kind}.{name}")
            for name, stages in _get(layout, kind, dict, "console").items()
        }
        for kind in ("groups", "buses")
    }
    strip, master = (
        _chain(rate, _get(layout, part, list, "console"), f"console.{part}") for part in ("strip", "master")
    )
    locked, pre_fader = (
        _names(_get(layout, part, list, "console"), f"console.{part}") for part in ("locked", "pre_fader")
    )
    console = _refusing(
        "console",
        lambda: DifferentiableMixingConsole(rate, strip, chains["buses"], master, locked, chains["groups"], pre_fader),
    )
    tracks = _get(settings, "tracks", dict, "")
    if not tracks:
        raise SettingsError("tracks is empty, expected at least one track")
    sends = console.sends("track")
    per_track = [_section(console.strip, track, f"tracks.{name}", sends) for name, track in tracks.items()]
    values: Values = {
        "track": {
            stage: {control: torch.stack([track[stage][control] for track in per_track]) for control in own}
            for stage, own in per_track[0].items()
        }
    }
    values["track"].setdefault("send", {})
    sections = console.sections()
    for kind in ("groups", "buses"):
        described = _get(settings, kind, dict, "")
        _known(described, tuple(chains[kind]), kind)
        for name in chains[kind]:
            values[name] = _section(
                sections[name], _get(described, name, dict, kind), f"{kind}.{name}", console.sends(name)
            )
    values["master"] = _section(console.master, _get(settings, "master", dict, ""), "master")
    return Mix(console, values, list(tracks), _switches(console, tracks))


def controls_from(
    console: DifferentiableMixingConsole, settings: Settings, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Normalised controls of a description; see `DifferentiableMixingConsole.controls_from`."""
    mix = interpret(settings)
    described, wanted = (
        [(name, [_layout_of(stage) for stage in chain.stages().values()]) for name, chain in each.sections().items()]
        for each in (mix.console, console)
    )
    if mix.console.sample_rate != console.sample_rate or described != wanted:
        odd = next((name for name, chain in described if (name, chain) not in wanted), "sample_rate")
        raise SettingsError(f"console: {odd} is not that of the console that the description is read for")
    target = console.normalize(mix.values)
    for section, u in target.items():
        if not bool(torch.isfinite(u).all()):
            raise SettingsError(f"{section}: a value has no place on the normalised scale")
    found = {section: u.to(dtype) for section, u in target.items()}
    for share, digits in (*((share, 0) for share in _SHARES), *((0.0, digits) for digits in _DIGITS)):
        found = _closer(console, found, mix.values, share, digits)
    return found


@torch.enable_grad()
def _closer(
    console: DifferentiableMixingConsole, controls: dict[str, Tensor], values: Values, share: float, digits: int
) -> dict[str, Tensor]:
    """Controls moved by a share of what is missing, at least a last digit, or by so many, where that is not nothing."""
    given = {section: u.clone().requires_grad_() for section, u in controls.items()}
    reached = console.denormalize(given)
    moved = {}
    for section, before in given.items():
        if before.numel() == 0:
            moved[section] = before.detach()
            continue
        have = _flat(reached[section], before.ndim)
        (slope,) = torch.autograd.grad(have.sum(), before)
        u = before.detach()
        off = _flat(values[section], u.ndim).to(u.dtype) - have.detach()
        step = (u.double() + share * off / slope).to(u.dtype)
        step = torch.where(step == u, torch.nextafter(u, torch.full_like(u, math.inf).copysign(off)), step)
        if digits:
            step = u
            for _ in range(abs(digits)):
                step = torch.nextafter(step, torch.full_like(u, math.copysign(math.inf, digits)))
        moved[section] = torch.where(off == 0, u, step)
    return moved


def _flat(stages: Mapping[str, Mapping[str, Tensor]], ndim: int) -> Tensor:
    """Physical values in the order of the flat vector, which has so many dimensions."""
    values = [value for own in stages.values() for value in own.values()]
    return torch.cat([value if value.ndim == ndim else value.unsqueeze(-1) for value in values], -1)


def render(settings: Settings, tracks: Mapping[str, Tensor] | Sequence[Tensor]) -> Tensor:
    """Mixes tracks as a description says.

    Args:
        settings: The description.
        tracks: Audio `(channels, samples)` by the names of the description, or in its order.

    Returns:
        The mix `(2, samples)`: to the bit that of the controls that were described.

    Raises:
        SettingsError: If the description is none.
        ValueError: If tracks are not those of the description.

    Example:
        >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
        >>> settings = console.describe(console.default_controls(1), ["voice"])
        >>> dasp.mixing.render(settings, {"voice": torch.randn(1, 4410)}).shape
        torch.Size([2, 4410])
    """
    mix = interpret(settings)
    if isinstance(tracks, Mapping):
        if set(tracks) != set(mix.names):
            odd = min(set(tracks) ^ set(mix.names))
            what = "has a track" if odd in tracks else "lacks the track"
            raise ValueError(f"render: tracks {what} {odd!r}, expected {', '.join(mix.names)}")
        tracks = [tracks[name] for name in mix.names]
    if len(tracks) != len(mix.names):
        raise ValueError(f"render: tracks has {len(tracks)}, expected {len(mix.names)}: {', '.join(mix.names)}")
    return mix.console.mix(tracks, mix.values, switches=mix.switches)


def _of_this_version(settings: Settings) -> Settings:
    """The description as this version writes it."""
    version = _get(settings, "dasp_settings", int, "")
    if version == 1:
        layout = _get(settings, "console", dict, "")
        for added, mapping, path in ((_SINCE_1, settings, ""), (_SINCE_1_CONSOLE, layout, "console")):
            _known(mapping, [key for key in (_SECTIONS if not path else _LAYOUT) if key not in added], path)
        return {**_SINCE_1, **settings, "dasp_settings": VERSION, "console": {**_SINCE_1_CONSOLE, **layout}}
    if version != VERSION:
        found = _shown(version)
        raise SettingsError(f"dasp_settings is {found}, expected 1 or {VERSION}: written by another version of dasp")
    return settings


def _refusing(path: str, build: Callable[[], DifferentiableMixingConsole]) -> DifferentiableMixingConsole:
    try:
        return build()
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise SettingsError(f"{path}: {error}") from error


def _chain(rate: float, stages: Any, path: str) -> M.Chain:
    if not isinstance(stages, list) or not stages:
        raise SettingsError(f"{path} is {_shown(stages)}, expected a list of processors")
    modules = _modules()
    chain = []
    for position, stage in enumerate(stages):
        place = f"{path}[{position}]"
        name = _get(stage, "processor", str, place)
        _known(stage, ("processor", "options", "defaults", "signals"), place)
        if name not in modules:
            raise SettingsError(f"{place}.processor is {name!r}, expected one of {', '.join(PROCESSORS)}")
        options = _get(stage, "options", dict, place)
        _known(options, tuple(modules[name].spec.options), f"{place}.options")
        defaults = _get(stage, "defaults", dict, place) if "defaults" in stage else {}
        _known(defaults, tuple(modules[name].spec.controls), f"{place}.defaults")
        given = _get(stage, "signals", dict, place) if modules[name].spec.signals or "signals" in stage else {}
        _known(given, tuple(modules[name].spec.signals), f"{place}.signals")
        signals = {signal: _signal(given, signal, f"{place}.signals") for signal in modules[name].spec.signals}
        frozen = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
        try:
            module = modules[name](rate, **signals, **frozen, **defaults)
            with torch.no_grad():
                # Options are checked by the processor itself, and then only.
                module.process(torch.zeros(2, 1), **module.controls())
        except (TypeError, ValueError, KeyError, RuntimeError, OverflowError) as error:
            raise SettingsError(f"{place}: {error}") from error
        chain.append(module)
    return M.Chain(*chain)


def _modules() -> dict[str, type[M.Processor]]:
    return {cls.spec.name: cls for cls in M.Processor.__subclasses__()}


def _section(chain: M.Chain, given: Any, path: str, sends: Sequence[str] = ()) -> dict[str, dict[str, Tensor]]:
    """The controls of one track, group, bus or master; with none missing and none too many."""
    stages = chain.stages()
    if not isinstance(given, dict):
        raise SettingsError(f"{path} is a {type(given).__name__}, expected an object")
    beside = (*(["send"] if sends else []), *(["switches"] if path.startswith("tracks.") else []))
    _known(given, (*stages, *beside), path)
    values: dict[str, dict[str, Tensor]] = {}
    for name, stage in stages.items():
        controls = _get(given, name, dict, path)
        layout = stage.spec.layout(stage.options)
        _known(controls, tuple(control for control, _ in layout), f"{path}.{name}")
        values[name] = {
            control: _value(controls, control, size, stage.spec.controls[control], f"{path}.{name}")
            for control, size in layout
        }
    if sends:
        controls = _get(given, "send", dict, path)
        _known(controls, tuple(sends), f"{path}.send")
        values["send"] = {send: _value(controls, send, None, SEND, f"{path}.send") for send in sends}
    return values


def _switches(console: DifferentiableMixingConsole, tracks: Mapping[str, Any]) -> Switches:
    """The switches of tracks that `_section` has found to be objects."""
    own: dict[str, dict[str, Any]] = {}
    for name, track in tracks.items():
        if "switches" in track:
            path = f"tracks.{name}.switches"
            own[name] = _get(track, "switches", dict, f"tracks.{name}")
            _known(own[name], _SWITCHES, path)
            for key, kind in (("mute", bool), ("solo", bool), ("bypass", list), ("group", str)):
                if key in own[name]:
                    _get(own[name], key, kind, path)
            stages, groups = list(console.strip.stages()), list(console.groups)
            for stage in _names(own[name].get("bypass", []), f"{path}.bypass"):
                _choice(stage, stages, f"{path}.bypass")
            if "group" in own[name]:
                _choice(own[name]["group"], groups, f"{path}.group")
    return console.switches(
        list(tracks),
        [name for name, switched in own.items() if switched.get("mute")],
        [name for name, switched in own.items() if switched.get("solo")],
        {name: switched["bypass"] for name, switched in own.items() if "bypass" in switched},
        {name: switched["group"] for name, switched in own.items() if "group" in switched},
    )


def _choice(name: str, known: Sequence[str], path: str) -> None:
    try:
        check_known(path, name, known)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _names(given: Any, path: str) -> list[str]:
    if not all(isinstance(name, str) for name in given):
        raise SettingsError(f"{path} is {_shown(given)}, expected a list of names")
    return cast("list[str]", given)


def _value(controls: Mapping[str, Any], name: str, size: int | None, param: Param, path: str) -> Tensor:
    value = _get(controls, name, (int, float) if size is None else list, path)
    numbers = [value] if size is None else value
    if len(numbers) != (size or 1) or not all(_is_finite(number) for number in numbers):
        expected = "a finite number" if size is None else f"{size} finite numbers"
        raise SettingsError(f"{path}.{name} is {_shown(value)}, expected {expected}")
    low, high = param.domain
    if not all(low <= number <= high for number in numbers):
        raise SettingsError(f"{path}.{name} is {_shown(value)}, expected {low:g} to {high:g} {param.unit}".rstrip())
    return torch.tensor(value, dtype=torch.float64)


def _is_finite(number: Any) -> bool:
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return False
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _shown(value: Any) -> str:
    """The beginning of what stands in a place."""
    try:
        return json.dumps(value)[:80]
    except (TypeError, ValueError, RecursionError):
        return f"a {type(value).__name__}"


def _get(mapping: Any, key: str, kind: type | tuple[type, ...], path: str) -> Any:
    place = f"{path}.{key}".lstrip(".")
    if not isinstance(mapping, dict) or key not in mapping:
        raise SettingsError(f"{place} is missing")
    value = mapping[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise SettingsError(f"{place} is {_shown(value)}, expected {_kind_text(kind)}")
    return value


def _kind_text(kind: type | tuple[type, ...]) -> str:
    names = {int: "a whole number", str: "a text", dict: "an object", list: "a list", bool: "true or false"}
    return "a number" if isinstance(kind, tuple) else names[kind]


def _known(mapping: Mapping[str, Any], keys: Sequence[str], path: str) -> None:
    for key in mapping:
        if key not in keys:
            place = f"{path}.{key}".lstrip(".")
            raise SettingsError(f"{place} is unknown, expected one of {', '.join(keys)}")


def schema() -> Settings:
    """The JSON Schema (draft 2020-12) of descriptions of this version, derived from the declared processors.

    What it accepts has the form of a description; whether controls, buses and groups are those of its console is for
    `interpret` to say.

    Example:
        >>> dasp.mixing.schema()["$defs"]["stereo_panner"]["properties"]["pan"]["maximum"]
        1
    """
    definitions: dict[str, Any] = {name: _controls_schema(cls) for name, cls in _modules().items()}
    stages = {f"^{name}(_[0-9]+)?$": {"$ref": f"#/$defs/{name}"} for name in definitions}
    level = {"type": "object", "patternProperties": {"_db$": {"type": "number"}}, "additionalProperties": False}
    section = {
        "type": "object",
        "patternProperties": stages,
        "properties": {"send": level},
        "additionalProperties": False,
    }
    names = {"type": "array", "items": {"type": "string"}}
    flag = {"type": "boolean"}
    definitions |= {
        "section": section,
        "sections": {"type": "object", "additionalProperties": {"$ref": "#/$defs/section"}},
        "track": {
            **section,
            "properties": {
                "send": level,
                "switches": _object({"mute": flag, "solo": flag, "bypass": names, "group": {"type": "string"}}, ()),
            },
        },
        "chain": {
            "type": "array",
            "minItems": 1,
            "items": _object(
                {
                    "processor": {"enum": list(_modules())},
                    "options": {"type": "object"},
                    "defaults": {"type": "object"},
                    "signals": {"type": "object", "additionalProperties": {"$ref": "#/$defs/signal"}},
                },
                ("processor", "options"),
            ),
        },
        "chains": {"type": "object", "additionalProperties": {"$ref": "#/$defs/chain"}},
        "signal": _object(
            {
                "shape": {"type": "array", "items": {"type": "number", "minimum": 1}, "minItems": 2},
                "float32": {"type": "string", "description": "base64 of little-endian float32, channel after channel"},
            },
            _SIGNAL,
        ),
    }
    refers = {name: {"$ref": f"#/$defs/{name}"} for name in ("section", "sections", "track", "chain", "chains")}
    tracks = {"type": "object", "minProperties": 1, "additionalProperties": refers["track"]}
    chains, chain, sections = refers["chains"], refers["chain"], refers["sections"]
    layout = (chain, chains, chains, chain, names, names)
    content = (
        {"const": VERSION},
        {"type": "number", "exclusiveMinimum": 0},
        tracks,
        sections,
        sections,
        refers["section"],
        _object(dict(zip(_LAYOUT, layout, strict=True)), _LAYOUT),
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of a dasp mixing console",
        **_object(dict(zip(_SECTIONS, content, strict=True)), _SECTIONS),
        "$defs": definitions,
    }


def _controls_schema(cls: type[M.Processor]) -> dict[str, Any]:
    """The controls of a processor, each within its domain."""
    properties: dict[str, Any] = {}
    for name, param in cls.spec.controls.items():
        ends = {"minimum": param.domain[0], "maximum": param.domain[1]}
        number: dict[str, Any] = {"type": "number", "description": f"{param.meaning} {param.unit}".rstrip()}
        number |= {end: value for end, value in ends.items() if math.isfinite(value)}
        properties[name] = number if param.size is None else {"type": "array", "items": number, "minItems": 1}
    return _object(properties, tuple(properties))


def _object(properties: dict[str, Any], required: Sequence[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def to_json(settings: Settings) -> str:
    """A description as text; every number is written so that it reads back as the same."""
    return json.dumps(settings, indent=2, allow_nan=False) + "\n"


def parse(text: str) -> Settings:
    """Reads a description from JSON text.

    Raises:
        SettingsError: If it is no JSON object, names something twice, or holds NaN or infinity.
    """

    def refuse(literal: str) -> float:
        raise SettingsError(f"{literal} is no JSON number")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            raise SettingsError(f"{next(name for name in names if names.count(name) > 1)} is there twice")
        return found

    try:
        settings = json.loads(text, parse_constant=refuse, object_pairs_hook=once)
    except SettingsError:
        raise
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"is not JSON: {str(error)[:120]}") from error
    if not isinstance(settings, dict):
        raise SettingsError(f"holds a {type(settings).__name__}, expected an object")
    return settings


def read(path: str | Path) -> Settings:
    """Reads a description from a JSON file.

    Raises:
        SettingsError: If the file is missing or no JSON object; the text names the file.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise SettingsError(f"is longer than {_MOST_BYTES >> 20} MiB, expected a description")
        return parse(data.decode("utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not JSON: byte {error.start} is no UTF-8") from error
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from error
