"""What a console can do, as data for programs and language models that drive it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dasp.modules as M
from dasp._spec import Param
from dasp.mixing.console import DifferentiableMixingConsole
from dasp.mixing.controls import SEND


def capabilities(console: DifferentiableMixingConsole) -> dict[str, Any]:
    """What a console can do; see `DifferentiableMixingConsole.capabilities`."""
    send = _param(SEND, console.sample_rate) | {"default": SEND.low}
    sections: dict[str, Any] = {}
    for section, chain in console.sections().items():
        free = dict(zip(console.control_names(section), console.free(section).tolist(), strict=True))
        sections[section] = {
            "stages": [_stage_capabilities(name, stage, free) for name, stage in chain.stages().items()],
            "sends": {
                name: {"bus": bus, "locked": not free[f"send.{name}"], **send}
                for bus, name in zip(console.buses, console.sends(section), strict=False)
            },
            "values": console.num_controls(section),
            "latency": chain.latency,
        }
    return {
        "sample_rate": console.sample_rate,
        "latency": console.latency,
        "tracks": {"number": "any from 1", "channels": [1, 2], "fader": console.fader},
        "sections": sections,
        "groups": list(console.groups),
        "buses": {bus: {"tap": _tap(console, bus)} for bus in console.buses},
        "locked": list(console.locked),
        "switches": {
            "mute": "true or false per track",
            "solo": "true or false per track",
            "bypass": list(console.strip.stages()),
            "group": list(console.groups),
        },
        "calls": {
            "forward": "the mix",
            "forward_block": "the mix in blocks, with a state",
            "signals": "mix, strips, groups, returns of buses, the sum before the master, gains of dynamics in dB",
            "describe": "controls as a description in physical units, JSON-ready",
            "controls_from": "normalised controls of a description",
            "dasp.mixing.render": "the mix of a description",
            "dasp.mixing.Constraints": "locks and limits of controls",
            "dasp.mixing.PartialRender": "the mix again after an edit, of what changed alone",
        },
    }


def _tap(console: DifferentiableMixingConsole, bus: str) -> str:
    return "pre_fader" if bus in console.pre_fader else "post_fader"


def _stage_capabilities(name: str, stage: M.Processor, free: Mapping[str, bool]) -> dict[str, Any]:
    defaults, controls = stage.denormalize(stage.exact()), []
    for control, size in stage.spec.layout(stage.options):
        # The last digits of a default are those of the way there and back.
        default = [float(f"{value:.12g}") for value in defaults[control].reshape(-1).tolist()]
        own = [is_free for full, is_free in free.items() if full.split("[")[0] == f"{name}.{control}"]
        controls.append(
            {"name": control, **_param(stage.spec.controls[control], stage.sample_rate)}
            | {"default": default[0] if size is None else default, "bands": size, "locked": [not f for f in own]}
        )
        controls[-1]["locked"] = controls[-1]["locked"] if len(set(own)) > 1 else not own[0]
    return {
        "name": name,
        "processor": stage.spec.name,
        "options": {key: list(value) if isinstance(value, tuple) else value for key, value in stage.options.items()},
        "latency": stage.latency,
        "linear": stage.spec.linear,
        "controls": controls,
    }


def _param(param: Param, sample_rate: float) -> dict[str, Any]:
    low, high = param.bounds(sample_rate)
    return {"unit": param.unit, "low": low, "high": high, "scale": param.scale, "meaning": param.meaning}
