"""Settings of a console as a readable description in physical units: JSON out, and back without loss."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

import dasp.modules as M
from dasp._spec import PROCESSORS
from dasp.mixing.console import DifferentiableMixingConsole, Values

Settings: TypeAlias = dict[str, Any]
"""A description as it stands in JSON."""

VERSION = 1


class SettingsError(ValueError):
    """A description that is none; the text names the place in it, what stands there and what was expected."""


def describe(console: DifferentiableMixingConsole, values: Values, names: Sequence[str]) -> Settings:
    """Describes a console and its controls.

    Args:
        console: The console.
        values: Physical controls of one mix, as `console.denormalize` gives them, without batch dimensions.
        names: A name for each track.

    Returns:
        A dict of numbers, lists and strings.  Rendering it gives the same audio to the bit as `console.mix` with these
        values.

    Raises:
        ValueError: If names are not as many as tracks, or not different.
    """
    counts = {value.shape[0] for value in values["track"]["send"].values()} or {len(names)}
    if len(set(names)) != len(names) or counts != {len(names)}:
        raise ValueError(f"names is {list(names)}, expected {counts.pop()} different names")
    tracks = {
        name: {
            stage: {control: value[position].tolist() for control, value in controls.items()}
            for stage, controls in values["track"].items()
        }
        for position, name in enumerate(names)
    }
    sections = {
        section: {stage: {c: v.tolist() for c, v in controls.items()} for stage, controls in stages.items()}
        for section, stages in values.items()
    }
    chains = console.sections()
    return {
        "dasp_settings": VERSION,
        "sample_rate": console.sample_rate,
        "tracks": tracks,
        "buses": {bus: sections[bus] for bus in console.buses},
        "master": sections["master"],
        "console": {
            "strip": _stages(chains["track"]),
            "buses": {bus: _stages(chains[bus]) for bus in console.buses},
            "master": _stages(chains["master"]),
            "locked": list(console.locked),
        },
    }


def _stages(chain: M.Chain) -> list[dict[str, Any]]:
    return [{"processor": stage.spec.name, "options": stage.options} for stage in chain.stages().values()]


def interpret(settings: Settings) -> tuple[DifferentiableMixingConsole, Values, list[str]]:
    """Rebuilds the console, the physical controls and the track names of a description.

    Raises:
        SettingsError: If something is missing, unknown, of the wrong kind or not finite.
    """
    version = _get(settings, "dasp_settings", int, "")
    if version != VERSION:
        raise SettingsError(f"dasp_settings is {version}, expected {VERSION}: written by another version of dasp")
    _known(settings, ("dasp_settings", "sample_rate", "tracks", "buses", "master", "console"), "")
    rate = _get(settings, "sample_rate", (int, float), "")
    layout = _get(settings, "console", dict, "")
    _known(layout, ("strip", "buses", "master", "locked"), "console")
    buses = _get(layout, "buses", dict, "console")
    try:
        console = DifferentiableMixingConsole(
            rate,
            _chain(rate, _get(layout, "strip", list, "console"), "console.strip"),
            {bus: _chain(rate, stages, f"console.buses.{bus}") for bus, stages in buses.items()},
            _chain(rate, _get(layout, "master", list, "console"), "console.master"),
            locked=_get(layout, "locked", list, "console"),
        )
    except SettingsError:
        raise
    except (TypeError, ValueError) as error:
        raise SettingsError(f"console: {error}") from error
    tracks = _get(settings, "tracks", dict, "")
    if not tracks:
        raise SettingsError("tracks is empty, expected at least one track")
    sends = [f"{bus}_db" for bus in console.buses]
    per_track = [_section(console.strip, track, f"tracks.{name}", sends) for name, track in tracks.items()]
    values: Values = {
        "track": {
            stage: {control: torch.stack([track[stage][control] for track in per_track]) for control in controls}
            for stage, controls in per_track[0].items()
        }
    }
    described = _get(settings, "buses", dict, "")
    _known(described, tuple(console.buses), "buses")
    chains = console.sections()
    for bus in console.buses:
        values[bus] = _section(chains[bus], _get(described, bus, dict, "buses"), f"buses.{bus}")
    values["master"] = _section(console.master, _get(settings, "master", dict, ""), "master")
    return console, values, list(tracks)


def _chain(rate: float, stages: Sequence[Any], path: str) -> M.Chain:
    modules = {cls.spec.name: cls for cls in M.Processor.__subclasses__()}
    chain = []
    for position, stage in enumerate(stages):
        name = _get(stage, "processor", str, f"{path}[{position}]")
        if name not in modules:
            raise SettingsError(f"{path}[{position}].processor is {name!r}, expected one of {', '.join(PROCESSORS)}")
        options = _get(stage, "options", dict, f"{path}[{position}]")
        frozen = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
        chain.append(modules[name](rate, **frozen))
    return M.Chain(*chain)


def _section(chain: M.Chain, given: Any, path: str, sends: Sequence[str] = ()) -> dict[str, dict[str, Tensor]]:
    """The controls of one track, bus or master; with none missing and none too many."""
    stages = chain.stages()
    if not isinstance(given, dict):
        raise SettingsError(f"{path} is a {type(given).__name__}, expected an object")
    _known(given, (*stages, *(["send"] if sends else [])), path)
    values: dict[str, dict[str, Tensor]] = {}
    for name, stage in stages.items():
        controls = _get(given, name, dict, path)
        layout = stage.spec.layout(stage.options)
        _known(controls, tuple(control for control, _ in layout), f"{path}.{name}")
        values[name] = {control: _value(controls, control, size, f"{path}.{name}") for control, size in layout}
    if sends:
        controls = _get(given, "send", dict, path)
        _known(controls, tuple(sends), f"{path}.send")
        values["send"] = {send: _value(controls, send, None, f"{path}.send") for send in sends}
    return values


def _value(controls: Mapping[str, Any], name: str, size: int | None, path: str) -> Tensor:
    value = _get(controls, name, (int, float) if size is None else list, path)
    numbers = [value] if size is None else value
    fits = all(isinstance(n, (int, float)) and not isinstance(n, bool) and math.isfinite(n) for n in numbers)
    if not fits or len(numbers) != (size or 1):
        expected = "a finite number" if size is None else f"{size} finite numbers"
        raise SettingsError(f"{path}.{name} is {json.dumps(value)[:80]}, expected {expected}")
    return torch.tensor(value, dtype=torch.float64)


def _get(mapping: Any, key: str, kind: type | tuple[type, ...], path: str) -> Any:
    place = f"{path}.{key}".lstrip(".")
    if not isinstance(mapping, dict) or key not in mapping:
        raise SettingsError(f"{place} is missing")
    value = mapping[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise SettingsError(f"{place} is {json.dumps(value)[:80]}, expected {_kind_text(kind)}")
    return value


def _kind_text(kind: type | tuple[type, ...]) -> str:
    names = {int: "a whole number", str: "a text", dict: "an object", list: "a list"}
    return "a number" if isinstance(kind, tuple) else names[kind]


def _known(mapping: Mapping[str, Any], keys: Sequence[str], path: str) -> None:
    for key in mapping:
        if key not in keys:
            place = f"{path}.{key}".lstrip(".")
            raise SettingsError(f"{place} is unknown, expected one of {', '.join(keys)}")


def to_json(settings: Settings) -> str:
    """A description as text; every number is written so that it reads back as the same."""
    return json.dumps(settings, indent=2, allow_nan=False) + "\n"


def parse(text: str) -> Settings:
    """Reads a description from JSON text.

    Raises:
        SettingsError: If it is no JSON object, or holds NaN or infinity.
    """

    def refuse(literal: str) -> float:
        raise SettingsError(f"{literal} is no JSON number")

    try:
        settings = json.loads(text, parse_constant=refuse)
    except (json.JSONDecodeError, RecursionError) as error:
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
        return parse(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from error
