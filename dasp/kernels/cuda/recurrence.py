"""The recurrence on the GPU.  Each chunk is an affine map of the state before it; two launches, maps then outputs.

The maps are joined by a scan within a program; those of whole blocks, a hundredth of a percent of the samples, are
composed again by every program that needs them, which saves a launch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dasp.kernels._registration import Tensors
from dasp.kernels.cuda._chunks import Chunks, cut, doubles, launch
from dasp.kernels.cuda.device.recurrence import recurrence_adjoint, recurrence_maps, recurrence_run


def forward(a: Tensor, x: Tensor, zi: Tensor) -> Tensors:
    a, x, zi = a.contiguous(), x.contiguous(), zi.contiguous()
    if x.numel() == 0:
        return x.clone(), zi.clone()
    y, zf = torch.empty_like(x), torch.empty_like(zi)
    c = cut(a, x, y)
    maps = _maps(a, x, c, reverse=False)
    sizes = (c.tiles, c.rows, c.chunks, c.blocks)
    launch(recurrence_run, c.programs, c.lanes, a, x, zi, *maps, y, zf, *sizes, **c.block)
    return y, zf


def backward(inputs: Tensors, saved: Tensors, grads: Tensors, needs: Sequence[bool]) -> Tensors:
    a, x, zi = (tensor.contiguous() for tensor in inputs)
    y = saved[0].contiguous()
    gy, gzf = (tensor.contiguous() for tensor in grads)
    if x.numel() == 0:
        return torch.zeros_like(a), torch.zeros_like(x), gzf.clone()
    ga, gx, gzi = torch.empty_like(a), torch.empty_like(x), torch.empty_like(zi)
    c = cut(a, gy, ga, gx)
    maps = _maps(a, gy, c, reverse=True)
    sizes = (c.tiles, c.rows, c.chunks, c.blocks)
    launch(recurrence_adjoint, c.programs, c.lanes, a, gy, y, zi, gzf, *maps, ga, gx, gzi, *sizes, **c.block)
    return ga, gx, gzi


def _maps(a: Tensor, x: Tensor, c: Chunks, reverse: bool) -> tuple[Tensor, Tensor]:
    maps, block_maps = doubles(a, 2, c.rows, c.chunks), doubles(a, 2, c.rows, c.blocks)
    sizes = (c.tiles, c.rows, c.chunks, c.blocks)
    launch(recurrence_maps, c.programs, c.lanes, a, x, maps, block_maps, *sizes, **c.block, REVERSED=reverse)
    return maps, block_maps
