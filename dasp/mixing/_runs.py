"""How audio runs through the stages of a console: whole, in blocks, or with its gains recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

import dasp.functional as F
import dasp.modules as M
from dasp._spec import State
from dasp.modules._processor import part_of

# What tells the gain of a processor whose gain follows the level; a makeup gain is none of it.
_GAINS: dict[str, Callable[..., Tensor]] = {"compressor": F.compressor_gain, "expander": F.expander_gain}


class Run:
    """Runs audio whole."""

    def stage(self, place: str, stage: M.Processor, x: Tensor, controls: Mapping[str, Tensor]) -> Tensor:
        """Audio out of a stage, whose place is `track.mono.compressor`."""
        return stage.process(x, **controls)

    def late(self, place: str, x: Tensor, samples: int) -> Tensor:
        """Audio later by some samples, beginning with silence."""
        return x if samples == 0 else functional.pad(x, (samples, 0))[..., : x.shape[-1]]

    def bypass(self, place: str, flags: Tensor | None, x: Tensor, y: Tensor) -> Tensor:
        """What a stage was given where it is bypassed, and what it gave elsewhere."""
        return y if flags is None else torch.where(flags[..., None, None], x, y)

    def chain(self, place: str, chain: M.Chain, x: Tensor, controls: Mapping[str, Mapping[str, Tensor]]) -> Tensor:
        """Audio out of the stages of a chain."""
        for name, stage in chain.stages().items():
            x = self.stage(f"{place}.{name}", stage, x, controls.get(name, {}))
        return x


class BlockRun(Run):
    """Runs a block, from a state to the next, `after`."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.after: State = {}

    def stage(self, place: str, stage: M.Processor, x: Tensor, controls: Mapping[str, Tensor]) -> Tensor:
        y, own = stage.process_block(x, part_of(self.state, place), **controls)
        self.after.update({f"{place}.{key}": value for key, value in own.items()})
        return y

    def late(self, place: str, x: Tensor, samples: int) -> Tensor:
        if samples == 0:
            return x
        key = f"{place}.late"
        past = self.state.get(key)
        if past is None:
            joined = functional.pad(x, (samples, 0))
        elif past.shape != (*x.shape[:-1], samples):
            raise ValueError(f"state {key!r} has shape {tuple(past.shape)}, expected {(*x.shape[:-1], samples)}")
        else:
            joined = torch.cat([past.to(x.dtype), x], -1)
        self.after[key] = joined[..., x.shape[-1] :]
        return joined[..., : x.shape[-1]]


class GainRun(Run):
    """Runs audio whole and keeps the gain in dB of every processor whose gain follows the level, by place."""

    def __init__(self) -> None:
        self.gains: dict[str, Tensor] = {}

    def stage(self, place: str, stage: M.Processor, x: Tensor, controls: Mapping[str, Tensor]) -> Tensor:
        gain = _GAINS.get(stage.spec.name)
        if gain is not None:
            own = {name: value for name, value in controls.items() if name != "makeup_gain_db"}
            self.gains[place] = gain(x, stage.sample_rate, **own, **stage.options)
        return super().stage(place, stage, x, controls)
