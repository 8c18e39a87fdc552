"""Rendering again after a change, of what has changed alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

import dasp.modules as M
from dasp.mixing._runs import Run
from dasp.mixing.console import DifferentiableMixingConsole, Tracks
from dasp.mixing.switches import Switches


class PartialRender:
    """A console that remembers what it has rendered, for edits of a mix one after the other.

    Called with other controls, tracks, mask or switches than before, it processes only what they change: the stages of
    the tracks whose audio or controls differ from where they differ on, and groups, buses and master where what they
    are given does.  It keeps the audio between all stages, once per stage and track.  Nothing is differentiable.

    Args:
        console: The console.

    Attributes:
        console: That console.
        processed: How often each stage ran in the last call, by its place, counted in tracks or items:
            `{"track.mono.gain": 1, ...}`; stages that were not needed are not in it.

    Example:
        >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
        >>> render = dasp.mixing.PartialRender(console)
        >>> tracks, controls = torch.rand(8, 1, 4410), console.default_controls(8)
        >>> mix = render(tracks, controls)
        >>> controls["track"][3, console.control_names("track").index("gain.gain_db")] = 0.5
        >>> mix = render(tracks, controls)
        >>> render.processed["track.mono.gain"], "track.mono.compressor" in render.processed
        (1, False)
    """

    def __init__(self, console: DifferentiableMixingConsole) -> None:
        self.console = console
        self.processed: dict[str, int] = {}
        self._run = _Remembering()

    @torch.no_grad()
    def __call__(
        self,
        tracks: Tracks,
        controls: Mapping[str, Tensor],
        mask: Tensor | None = None,
        switches: Switches | None = None,
    ) -> Tensor:
        """The mix; see `DifferentiableMixingConsole.forward`.  It equals a full render to rounding."""
        self._run.processed = self.processed = {}
        mix = self.console._mix(tracks, self.console.denormalize(controls), mask, switches, self._run).mix
        # The memory that it is in is written to by the next call.
        return mix.clone()


@dataclass
class _Rendered:
    """What a stage was given and gave; x is None where it is what the stage before gave."""

    x: Tensor | None
    controls: dict[str, Tensor]
    y: Tensor


class _Remembering(Run):
    """Processes of the items of a batch those that differ from the last time, into memory of its own.

    Copies of all the audio would take longer than processing it: only items that are new are written.
    """

    def __init__(self) -> None:
        self.processed: dict[str, int] = {}
        self._rendered: dict[str, _Rendered] = {}
        self._bypassed: dict[str, list[bool]] = {}
        # What the last stage gave, which items of it are new, and which of what it was given.
        self._given: Tensor | None = None
        self._changed: list[bool] = []
        self._heard: list[bool] = []

    def stage(self, place: str, stage: M.Processor, x: Tensor, controls: Mapping[str, Tensor]) -> Tensor:
        lead, rows = x.shape[:-2], x.shape[:-2].numel()
        items = x.reshape(rows, *x.shape[-2:])
        own = {}
        for name, size in stage.spec.layout(stage.options):
            bands = () if size is None else (size,)
            own[name] = controls[name].expand((*lead, *bands)).reshape(rows, *bands)
        inside, last = x is self._given, self._rendered.get(place)
        if last is None or not _alike(last, items, lead, inside):
            y = super().stage(place, stage, x, controls)
            y = y.clone() if y.data_ptr() == x.data_ptr() else y.contiguous()
            kept = {name: value.clone() for name, value in own.items()}
            self._rendered[place] = _Rendered(None if inside else items.clone(), kept, y)
            self._heard = changed = [True] * rows
        else:
            y = last.y
            self._heard = self._changed if last.x is None else _unlike(items, last.x)
            changed = [
                new or any(not torch.equal(own[name][item], last.controls[name][item]) for name in own)
                for item, new in enumerate(self._heard)
            ]
            if any(changed):
                index = torch.tensor([item for item, new in enumerate(changed) if new], device=x.device)
                part = super().stage(place, stage, items[index], {name: value[index] for name, value in own.items()})
                y.view(rows, *y.shape[-2:]).index_copy_(0, index, part)
                if last.x is not None:
                    last.x.index_copy_(0, index, items[index])
                last.controls = {name: value.clone() for name, value in own.items()}
        if any(changed):
            self.processed[place] = sum(changed)
        self._given, self._changed = y, changed
        return y

    def bypass(self, place: str, flags: Tensor | None, x: Tensor, y: Tensor) -> Tensor:
        rows = len(self._changed)
        before = self._bypassed.get(place, [False] * rows)
        now = [False] * rows if flags is None else flags.expand(y.shape[:-2]).reshape(-1).tolist()
        if len(before) == rows:
            pairs = zip(self._changed, self._heard, now, before, strict=True)
            self._changed = [(heard if off else new) or off != was for new, heard, off, was in pairs]
        self._bypassed[place] = now
        self._given = super().bypass(place, flags, x, y)
        return self._given


def _alike(last: _Rendered, items: Tensor, lead: torch.Size, inside: bool) -> bool:
    """Whether a stage is given audio of the form and from the place of the last time."""
    if (last.x is None) != inside or last.y.shape[:-2] != lead:
        return False
    given = last.y if last.x is None else last.x
    return given.shape[-1] == items.shape[-1] and given.dtype == items.dtype and (inside or given.shape == items.shape)


def _unlike(items: Tensor, last: Tensor) -> list[bool]:
    """Which items are not those of the last time."""
    return [not torch.equal(new, old) for new, old in zip(items, last, strict=True)]
