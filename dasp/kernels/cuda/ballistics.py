"""The branching one-pole on the GPU.

The number of rounds is fixed, and nothing returns to the host between launches, so that a CUDA graph can hold a call: a
block whose state is right ends its round at once, and `ballistics_settle` finishes what the rounds leave open.  So the
result is always that of the loop, but for rounding in float64 where chunks meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dasp.kernels._registration import Tensors
from dasp.kernels.cuda._chunks import Chunks, cut, doubles, launch
from dasp.kernels.cuda.device.ballistics import (
    ballistics_adjoint,
    ballistics_adjoint_maps,
    ballistics_round,
    ballistics_run,
    ballistics_settle,
)

# Rounds on blocks after the first.  On twelve seconds of each of nine recordings, with attacks of 0.5 to 30 ms and
# releases of 50 ms to 1 s, 1 to 4 were needed, and a block was run through 4 to 8 times in the first, 2 to 6 in others.
ROUNDS = 4


class Poles(NamedTuple):
    """`(rows,)` or `(rows, samples)` each, in float64."""

    attack: Tensor
    release: Tensor

    @property
    def varying(self) -> bool:
        return self.attack.ndim == 2

    def cut(self, *signals: Tensor) -> Chunks:
        """Cuts rows whose poles are these."""
        return cut(*signals, *self) if self.varying else cut(*signals)


def forward(g: Tensor, attack: Tensor, release: Tensor, zi: Tensor) -> Tensors:
    g, attack, release, zi = (tensor.contiguous() for tensor in (g, attack, release, zi))
    if g.numel() == 0:
        return g.clone(), zi.clone()
    y = torch.empty_like(g)
    return y, smooth(g, Poles(attack, release), zi, y)


def backward(inputs: Tensors, saved: Tensors, grads: Tensors, needs: Sequence[bool]) -> Tensors:
    g, attack, release, zi = (tensor.contiguous() for tensor in inputs)
    gy, gzf = (tensor.contiguous() for tensor in grads)
    if g.numel() == 0:
        return torch.zeros_like(g), torch.zeros_like(attack), torch.zeros_like(release), gzf.clone()
    gg, poles = torch.empty_like(g), Poles(attack, release)
    return gg, *adjoint(gy, poles, gzf, differences(g, poles, zi), gg)


def smooth(g: Tensor, poles: Poles, zi: Tensor, y: Tensor) -> Tensor:
    """Writes g smoothed to y, which may be g; returns its last value."""
    c = poles.cut(g, y)
    zf = torch.empty_like(zi)
    _run(c, g, poles, _states(c, g, poles, zi), y, zf, g, SMOOTH=1, KEEP=0)
    return zf


def differences(g: Tensor, poles: Poles, zi: Tensor, y: Tensor | None = None) -> Tensor:
    """y[n-1] - g[n], `(rows, length, chunks)` in float64; g smoothed to y, which may be g, if that is given."""
    c = poles.cut(g, g if y is None else y)
    kept, zf = doubles(g, c.rows, c.length, c.chunks), torch.empty_like(zi)
    _run(c, g, poles, _states(c, g, poles, zi), g if y is None else y, zf, kept, SMOOTH=int(y is not None), KEEP=1)
    return kept


def adjoint(gy: Tensor, poles: Poles, gzf: Tensor, kept: Tensor, gg: Tensor) -> Tensors:
    """Writes the gradient of g to gg, which may be gy; returns those of attack, release and zi."""
    c = poles.cut(gy, gg)
    maps, block_maps = doubles(gy, 2, c.rows, c.chunks), doubles(gy, 2, c.rows, c.blocks)
    gzi, sums = torch.empty_like(gzf), doubles(gy, 2, c.rows, c.samples if poles.varying else c.blocks)
    sizes, constants = (c.tiles, c.rows, c.chunks, c.blocks), {**c.block, "VARYING": int(poles.varying)}
    launch(ballistics_adjoint_maps, c.programs, c.lanes, gy, *poles, kept, maps, block_maps, *sizes, **constants)
    tensors = (gy, *poles, gzf, kept, maps, block_maps, gg, gzi, sums)
    launch(ballistics_adjoint, c.programs, c.lanes, *tensors, *sizes, **constants)
    gattack, grelease = (sums if poles.varying else sums.sum(-1)).unbind(0)
    return gattack, grelease, gzi


def _states(c: Chunks, g: Tensor, poles: Poles, zi: Tensor) -> Tensor:
    """The state before every chunk."""
    states, old, new = doubles(g, c.rows, c.chunks), doubles(g, 3, c.rows, c.blocks), doubles(g, 3, c.rows, c.blocks)
    sizes, constants = (c.tiles, c.rows, c.chunks, c.blocks), {**c.block, "VARYING": int(poles.varying)}
    # After each round one more block is right for good.
    rounds = 1 + min(ROUNDS, c.blocks - 1)
    for number in range(rounds):
        tensors = (g, *poles, zi, states, old, new)
        launch(ballistics_round, c.programs, c.lanes, *tensors, *sizes, **constants, FIRST=int(number == 0))
        old, new = new, old
    if rounds < c.blocks:
        launch(ballistics_settle, c.rows, c.lanes, g, *poles, states, old, *sizes, **constants)
    return states


def _run(
    c: Chunks, g: Tensor, poles: Poles, states: Tensor, y: Tensor, zf: Tensor, kept: Tensor, SMOOTH: int, KEEP: int
) -> None:
    sizes, constants = (c.tiles, c.rows, c.chunks, c.blocks), {**c.block, "VARYING": int(poles.varying)}
    tensors = (g, *poles, states, y, zf, kept)
    launch(ballistics_run, c.programs, c.lanes, *tensors, *sizes, **constants, SMOOTH=SMOOTH, KEEP=KEEP)
