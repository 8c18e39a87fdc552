"""A description as a session of a workstation: channels with effects, fader, balance, sends and a destination."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

import dasp.functional as F
import dasp.modules as M
from dasp.functional.stereo import centre_gain
from dasp.interchange._text import factor
from dasp.mixing.console import DifferentiableMixingConsole
from dasp.mixing.controls import send_gain
from dasp.mixing.settings import Mix, interpret


class Stage(NamedTuple):
    """A processor of a channel.

    Attributes:
        name: Its name in the chain, such as `compressor_2`.
        processor: The name of its function.
        controls: Physical values, lists where it has bands.
        options: Its options.
        module: Its module.
        bypassed: Whether the channel bypasses it.
    """

    name: str
    processor: str
    controls: dict[str, float | list[float]]
    options: dict[str, Any]
    module: M.Processor
    bypassed: bool = False


class Send(NamedTuple):
    """What a channel is sent to a bus at: a factor, from before its fader or after it."""

    bus: str
    gain: float
    pre_fader: bool


class Channel(NamedTuple):
    """A track, group, bus or the master.

    Attributes:
        name: Its name.
        stages: Effects before the fader.
        fader: The stages that fader and balance stand for: gains, panners and polarity at the end of the chain.
        gain: The factor of the fader, without the panner.
        left: The factor of the panner for the left channel.
        right: The same for the right one.
        pan: The position of the panner, if there is just one.
        inverted: Whether the polarity is turned.
        sends: Levels at buses; those that are off are not there.
        group: The group that it goes to.
        mute: Whether it is muted.
        solo: Whether it is soloed.
    """

    name: str
    stages: list[Stage]
    fader: list[Stage]
    gain: float
    left: float
    right: float
    pan: float
    inverted: bool
    sends: list[Send]
    group: str | None = None
    mute: bool = False
    solo: bool = False

    @property
    def all_stages(self) -> list[Stage]:
        """All stages in their order."""
        return [*self.stages, *self.fader]

    @property
    def volume(self) -> float:
        """The factor of the louder side."""
        return self.gain * max(self.left, self.right)

    @property
    def balance(self) -> float:
        """Where a balance, which turns one side down linearly and leaves the other, gives the same as the panner."""
        louder = max(self.left, self.right)
        return 0.0 if louder == 0 else (self.right - self.left) / louder


class Session(NamedTuple):
    """The channels of a description."""

    sample_rate: float
    tracks: list[Channel]
    groups: list[Channel]
    buses: list[Channel]
    master: Channel

    def find(self, who: str, section: str) -> Channel:
        """The channel of a name, "master", or a name with `tracks.`, `groups.` or `buses.` in front."""
        kinds = {"tracks": self.tracks, "groups": self.groups, "buses": self.buses}
        found = [c for kind, channels in kinds.items() for c in channels if section in (c.name, f"{kind}.{c.name}")]
        found += [self.master] if section == "master" else []
        if len(found) != 1:
            names = ["master", *(f"{kind}.{c.name}" for kind, channels in kinds.items() for c in channels)]
            what = "unknown" if not found else "the name of several"
            raise ValueError(f"{who}: section {section!r} is {what}, expected one of {', '.join(names)}")
        return found[0]

    @property
    def channels(self) -> list[Channel]:
        """All channels."""
        return [*self.tracks, *self.groups, *self.buses, self.master]


def stage_of(name: str, stage: M.Processor, controls: Mapping[str, Tensor], bypassed: bool = False) -> Stage:
    """A stage of a chain with physical controls."""
    values: dict[str, float | list[float]] = {control: value.detach().tolist() for control, value in controls.items()}
    return Stage(name, stage.spec.name, values, dict(stage.options), stage, bypassed)


def session(settings: Mapping[str, Any]) -> Session:
    """The channels of a description.

    Raises:
        SettingsError: If it is none.
    """
    mix = interpret(dict(settings))
    console, values, names, switches = mix
    tracks = []
    for position, name in enumerate(names):
        own = {stage: {c: v[position] for c, v in controls.items()} for stage, controls in values["track"].items()}
        flags = {stage for stage, bypassed in (switches.bypass or {}).items() if bool(bypassed[position])}
        group = -1 if switches.group is None else int(switches.group[position])
        channel = _channel(mix, name, "track", own, flags)
        tracks.append(
            channel._replace(
                group=list(console.groups)[group] if group >= 0 else None,
                mute=switches.mute is not None and bool(switches.mute[position]),
                solo=switches.solo is not None and bool(switches.solo[position]),
            )
        )
    groups, buses = ([_channel(mix, n, n, values[n], set()) for n in kind] for kind in (console.groups, console.buses))
    return Session(
        console.sample_rate, tracks, groups, buses, _channel(mix, "master", "master", values["master"], set())
    )


def _channel(
    mix: Mix, name: str, section: str, values: Mapping[str, Mapping[str, Tensor]], bypassed: set[str]
) -> Channel:
    console = mix.console
    chain = console.sections()[section].stages()
    stages = [stage_of(n, stage, values.get(n, {}), n in bypassed) for n, stage in chain.items()]
    tap = console.fader if section == "track" and console.pre_fader else None
    first = _first_of_fader(stages, tap)
    # A strip brings the centre of its panners to 0 dB behind its last stage, and so do the sends from before the fader.
    early = [stage for stage in stages[:first] if stage.processor == "stereo_panner" and not stage.bypassed]
    level = math.prod(1 / centre_gain(stage.options["law"]) for stage in early) if section == "track" else 1.0
    gain, left, right, pans = level, 1.0, 1.0, []
    for stage in stages[first:]:
        if stage.bypassed:
            continue
        if stage.processor == "gain":
            gain *= factor(_value(stage, "gain_db"))
        elif stage.processor == "polarity":
            gain *= 1 - 2 * _value(stage, "invert")
        else:
            sides = panner_gains(stage, centred=section == "track")
            left, right = left * sides[0], right * sides[1]
            pans.append(_value(stage, "pan"))
    return Channel(
        name,
        stages[:first],
        stages[first:],
        abs(gain),
        left,
        right,
        pans[0] if len(pans) == 1 else 0.0,
        gain < 0,
        [
            send._replace(gain=send.gain * level) if send.pre_fader else send
            for send in _sends(console, section, values)
        ],
    )


def _first_of_fader(stages: list[Stage], tap: str | None) -> int:
    """Where the gains, panners and polarities at the end of a chain begin, but not before the tap of sends."""
    first = len(stages)
    while first and stages[first - 1].processor in ("gain", "polarity", "stereo_panner"):
        if first < len(stages) and stages[first].name == tap:
            break
        first -= 1
    return first


def _value(stage: Stage, control: str) -> float:
    value = stage.controls[control]
    if isinstance(value, list):
        raise TypeError(f"{stage.name}: {control} is a list, expected a number")
    return value


def panner_gains(stage: Stage, centred: bool) -> tuple[float, float]:
    """Factors of a panner for left and right; in strips the centre is at 0 dB."""
    pan = torch.tensor(_value(stage, "pan"), dtype=torch.float64)
    law = stage.options["law"]
    sides = F.stereo_panner(torch.ones(1, 1, dtype=torch.float64), 1.0, pan=pan, law=law)
    left, right = (sides.flatten() / (centre_gain(law) if centred else 1.0)).tolist()
    return left, right


def _sends(
    console: DifferentiableMixingConsole, section: str, values: Mapping[str, Mapping[str, Tensor]]
) -> list[Send]:
    if section != "track" and section not in console.groups:
        return []
    sends = []
    for bus in console.buses:
        level_db = values["send"][f"{bus}_db"]
        factor(float(level_db))
        gain = float(send_gain(level_db))
        if gain > 0:
            sends.append(Send(bus, gain, section == "track" and bus in console.pre_fader))
    return sends
