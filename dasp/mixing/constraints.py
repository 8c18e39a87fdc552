"""Constraints on the controls of a console: locks and limits, per section and per track."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dasp._checks import shape_text
from dasp._spec import Param
from dasp.mixing._names import matching
from dasp.mixing.console import DifferentiableMixingConsole
from dasp.mixing.controls import SEND
from dasp.modules import project


class Constraints:
    """What controls of a console must obey; called with normalised controls, it gives controls that do.

    A locked control has exactly its value and the gradient 0.  Others are clamped to their limits, or to their usual
    ranges, with the gradients of :func:`dasp.modules.project`: beyond a limit those pass that lead back inside, so that
    a descent can reach a limit and leave it.  What is within the limits is left alone to the bit, so that obeying twice
    is obeying once and controls mean the same with limits as without.

    A control is named `section.stage.control` or, for one track, `track_name.stage.control`; the stage may be left out
    where one alone has the control.  `*` stands for any text, `parametric_eq.gain_db[2]` for one band of a control.
    Where two names mean the same control the later counts.  A lock is stronger than a limit.

    Args:
        console: The console; what it has in `locked` keeps its default.
        tracks: The name of each track, needed to name them; without names constraints hold for any number of tracks.
            A track that has the name of a section is named `tracks.name`.
        locks: Values in physical units by name, None for the default.
        limits: Lowest and highest value in physical units by name.

    Raises:
        ValueError: If a name is that of no control, or of several without their stage, a value is outside the usual
            range, or a lower limit is not below the upper.

    Example:
        >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
        >>> obey = dasp.mixing.Constraints(
        ...     console, ["kick", "voice"], locks={"kick.pan": 0.0}, limits={"track.gain_db": (-20.0, 6.0)}
        ... )
        >>> controls = console.random_controls(2, torch.Generator().manual_seed(0))
        >>> console.denormalize(obey(controls))["track"]["stereo_panner"]["pan"][0]
        tensor(0.)
    """

    def __init__(
        self,
        console: DifferentiableMixingConsole,
        tracks: Sequence[str] = (),
        locks: Mapping[str, float | None] | None = None,
        limits: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        if len(set(tracks)) != len(tracks):
            raise ValueError(f"Constraints: tracks is {list(tracks)}, expected different names")
        names = {section: console.control_names(section) for section in console.sections()}
        self._places = {section: {section: own} for section, own in names.items()}
        for track in tracks:
            self._places["track"][f"tracks.{track}"] = names["track"]
            if track not in names:
                self._places["track"][track] = names["track"]
        self._tracks = {place: i for i, track in enumerate(tracks) for place in (track, f"tracks.{track}")}
        self._tracks = {place: i for place, i in self._tracks.items() if place not in names}
        self._console = console
        self._values = console.default_controls(max(1, len(tracks)), dtype=torch.float64)
        self._low = {section: torch.zeros_like(value) for section, value in self._values.items()}
        self._high = {section: torch.ones_like(value) for section, value in self._values.items()}
        self._free = {s: console.free(s).expand(value.shape).clone() for s, value in self._values.items()}
        for name, bounds in (limits or {}).items():
            self._limit(name, *bounds)
        for name, value in (locks or {}).items():
            self._lock(name, value)

    def __call__(self, controls: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Controls that obey.

        Args:
            controls: Normalised controls as the console takes them; numbers beyond [0, 1] are clamped.

        Raises:
            ValueError: If a section is unknown, or the number of tracks is not that of the names.
        """
        found = {}
        for section, u in controls.items():
            if section not in self._values:
                raise ValueError(f"Constraints: {section!r} is unknown, expected one of {', '.join(self._values)}")
            value, low, high = (each[section].to(u) for each in (self._values, self._low, self._high))
            if section == "track" and self._tracks and u.shape[-2:-1] != value.shape[:1]:
                have = shape_text(u.shape)
                raise ValueError(f"Constraints: controls['track'] has shape {have}, expected {len(value)} named tracks")
            # Where a limit is that of the usual range this is the identity, and only rounding elsewhere.
            inside = low + (high - low) * project((u - low) / (high - low))
            limited = inside + (torch.minimum(torch.maximum(u, low), high) - inside).detach()
            found[section] = torch.where(self._free[section].to(u.device), limited, value)
        return found

    def free(self, section: str) -> Tensor:
        """Which values of a section are not locked, bool: `(P,)`, or `(tracks or 1, P)` for "track"."""
        return self._free[section]

    def of_track(self, track: int) -> Constraints:
        """Those of a console with this track alone."""
        alone = copy.copy(self)
        alone._tracks = {}
        for name in ("_values", "_low", "_high", "_free"):
            whole = getattr(self, name)
            own = whole["track"][track : track + 1] if self._tracks else whole["track"]
            setattr(alone, name, {**whole, "track": own})
        return alone

    def leaves(self, section: str) -> bool:
        """Whether a section has no other constraints than those of the console."""
        free = torch.equal(self._free[section], self._console.free(section).expand(self._free[section].shape))
        return free and not bool((self._low[section] > 0).any() or (self._high[section] < 1).any())

    def _lock(self, name: str, value: float | None) -> None:
        for section, track, position, param in self._meant("lock", name):
            place = self._place(section, track, position)
            if value is not None:
                self._values[section][place] = self._normalized(f"lock {name!r}", value, param)
            self._free[section][place] = False

    def _limit(self, name: str, low: float, high: float) -> None:
        if not low < high:
            raise ValueError(f"Constraints: limit {name!r} is {low} to {high}, expected a range from low to high")
        for section, track, position, param in self._meant("limit", name):
            place = self._place(section, track, position)
            self._low[section][place] = self._normalized(f"limit {name!r}", low, param)
            self._high[section][place] = self._normalized(f"limit {name!r}", high, param)

    def _place(self, section: str, track: int | None, position: int) -> tuple[int | slice, ...]:
        return (position,) if section != "track" else (slice(None) if track is None else track, position)

    def _meant(self, kind: str, name: str) -> list[tuple[str, int | None, int, Param]]:
        """Section, track, position and declaration of the controls that a name means."""
        found = []
        for section, place, position in matching(f"Constraints: {kind}", name, self._places):
            stage, _, control = self._console.control_names(section)[position].rpartition(".")
            module = self._console.sections()[section].stages().get(stage)
            param = SEND if module is None else module.spec.controls[control.split("[")[0]]
            found.append((section, self._tracks.get(place), position, param))
        return found

    def _normalized(self, what: str, value: float, param: Param) -> Tensor:
        low, high = param.bounds(self._console.sample_rate)
        if not low <= value <= high:
            raise ValueError(f"Constraints: {what} is {value}, expected {low:g} to {high:g} {param.unit}".rstrip())
        return param.normalize(torch.tensor(value, dtype=torch.float64), self._console.sample_rate)
