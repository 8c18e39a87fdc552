"""Switches of tracks: mute, solo, bypassed stages, and the group that a track goes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dasp._checks import shape_text

_NAME = "DifferentiableMixingConsole"


class Switches(NamedTuple):
    """What is switched per track.  None switches nothing; `console.switches` makes one from names.

    Every tensor is `(tracks,)`, one setting for all items of a batch, or `(*batch, tracks)`.

    Attributes:
        mute: Bool; a muted track contributes nothing, to sends before the fader neither.
        solo: Bool; where any track is soloed, the others are muted.
        bypass: Bool for each stage of the strip that some track bypasses, by its name.
        group: Whole numbers: the position of the track's group in `console.groups`, or -1 for the master.

    Example:
        >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
        >>> tracks, switches = torch.randn(2, 1, 4410), dasp.mixing.Switches(mute=torch.tensor([True, True]))
        >>> bool(console(tracks, console.default_controls(2), switches=switches).any())
        False
    """

    mute: Tensor | None = None
    solo: Tensor | None = None
    bypass: Mapping[str, Tensor] | None = None
    group: Tensor | None = None


def check_switches(switches: Switches, lead: Sequence[int], stages: Sequence[str], groups: int) -> None:
    """Raises unless switches fit `(*batch, tracks)`, the stages of a strip and the number of groups."""
    for name, value in (("mute", switches.mute), ("solo", switches.solo)):
        if value is not None:
            check_flags(f"switches.{name}", value, lead)
    for stage, value in (switches.bypass or {}).items():
        if stage not in stages:
            raise ValueError(f"{_NAME}: switches.bypass has {stage!r}, expected one of {', '.join(stages)}")
        check_flags(f"switches.bypass[{stage!r}]", value, lead)
    if switches.group is not None:
        if not groups:
            raise ValueError(f"{_NAME}: switches.group is given to a console without groups")
        _check_shape("switches.group", switches.group, lead)
        if switches.group.is_floating_point() or switches.group.dtype == torch.bool:
            raise TypeError(f"{_NAME}: switches.group has type {switches.group.dtype}, expected whole numbers")


def check_flags(name: str, value: Tensor, lead: Sequence[int]) -> None:
    """Raises unless a value is bool, `(tracks,)` or `(*batch, tracks)`."""
    if not isinstance(value, Tensor) or value.dtype != torch.bool:
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{_NAME}: {name} is {kind}, expected a tensor of bool")
    _check_shape(name, value, lead)


def _check_shape(name: str, value: Tensor, lead: Sequence[int]) -> None:
    if value.shape not in (torch.Size(lead), torch.Size(lead[-1:])):
        expected = " or ".join(dict.fromkeys((shape_text(lead), shape_text(lead[-1:]))))
        raise ValueError(f"{_NAME}: {name} has shape {shape_text(value.shape)}, expected {expected}")


def audible(mask: Tensor | None, switches: Switches) -> Tensor | None:
    """Which tracks are there, not muted, and soloed if any is; None if all are."""
    heard = mask
    if switches.mute is not None:
        heard = ~switches.mute if heard is None else heard & ~switches.mute
    if switches.solo is not None:
        chosen = switches.solo | ~switches.solo.any(-1, keepdim=True)
        heard = chosen if heard is None else heard & chosen
    return heard
