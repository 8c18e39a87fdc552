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
        # The caller may change tracks in place before the next call.
        kept = tracks.clone() if isinstance(tracks, Tensor) else tracks
        self._run.processed = self.processed = {}
        return self.console._mix(kept, self.console.denormalize(controls), mask, switches, self._run).mix


@dataclass(frozen=True)
class _Rendered:
    """What a stage was given and what it gave."""

    x: Tensor
    controls: dict[str, Tensor]
    y: Tensor


class _Remembering(Run):
    """Processes of the items of a batch those that differ from the last time."""

    def __init__(self) -> None:
        self.processed: dict[str, int] = {}
        self._rendered: dict[str, _Rendered] = {}

    def stage(self, place: str, stage: M.Processor, x: Tensor, controls: Mapping[str, Tensor]) -> Tensor:
        lead, given = x.shape[:-2], {name: value.clone() for name, value in controls.items()}
        last = self._rendered.get(place)
        if last is None or last.x.shape != x.shape or last.x.dtype != x.dtype:
            y = super().stage(place, stage, x, given)
            self.processed[place] = lead.numel()
        else:
            y = last.y
            changed = (
                (x != last.x).flatten(len(lead)).any(-1) if x is not last.x else x.new_zeros(lead, dtype=torch.bool)
            )
            for name, size in stage.spec.layout(stage.options):
                differs = given[name] != last.controls[name]
                changed = changed | (differs if size is None else differs.any(-1))
            if bool(changed.any()):
                parts = {
                    name: given[name].expand((*lead, *(() if size is None else (size,))))[changed]
                    for name, size in stage.spec.layout(stage.options)
                }
                y = last.y.clone()
                y[changed] = super().stage(place, stage, x[changed], parts)
                self.processed[place] = int(changed.sum())
        self._rendered[place] = _Rendered(x, given, y)
        return y
