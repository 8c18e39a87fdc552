"""Whole compressors and expanders on the GPU: from audio to the gain in float64, its smoothing, and back to audio.

The gain is kept, since the smoother reads it several times and a logarithm costs more than memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dasp.kernels._registration import Tensors
from dasp.kernels.cuda import ballistics
from dasp.kernels.cuda._chunks import doubles, launch
from dasp.kernels.cuda.ballistics import Poles
from dasp.kernels.cuda.device.dynamics import dynamics_adjoint, dynamics_gain, dynamics_products, dynamics_target

# Samples of one program, of all channels, with 4 warps.
BLOCK = 1024
_THREADS = 128


def forward(direction: int, mean: bool, *inputs: Tensor) -> Tensors:
    x, curve, poles, makeup, zi = (tensor.contiguous() for tensor in inputs)
    if x.numel() == 0:
        return x.clone(), zi.clone()
    y = torch.empty_like(x)
    g = _target(x, curve, direction, mean)
    zf = ballistics.smooth(g, _split(poles), zi, g)
    programs, sizes = _blocks(x)
    launch(dynamics_gain, programs, _THREADS, x, g, makeup, y, *sizes, BLOCK=BLOCK)
    return y, zf


def backward(
    direction: int, mean: bool, inputs: Tensors, saved: Tensors, grads: Tensors, needs: Sequence[bool]
) -> Tensors:
    x, curve, poles, makeup, zi = (tensor.contiguous() for tensor in inputs)
    gy, gzf = (tensor.contiguous() for tensor in grads)
    if x.numel() == 0:
        return (*(torch.zeros_like(tensor) for tensor in (x, curve, poles, makeup)), gzf.clone())
    programs, sizes = _blocks(x)
    (groups, channels, samples), blocks = x.shape, sizes[-1]
    smoothed = _target(x, curve, direction, mean)
    kept = ballistics.differences(smoothed, _split(poles), zi, smoothed)
    gradient, gmakeup = doubles(x, groups, samples), doubles(x, groups, channels, blocks)
    launch(dynamics_products, programs, _THREADS, x, gy, smoothed, makeup, gradient, gmakeup, *sizes, BLOCK=BLOCK)
    gattack, grelease, gzi = ballistics.adjoint(gradient, _split(poles), gzf, kept, gradient)
    gx, gcurve = torch.empty_like(x), doubles(x, groups, 4, blocks)
    constants = {"DIRECTION": direction, "MEAN": int(mean), "BLOCK": BLOCK}
    tensors = (x, gy, curve, smoothed, makeup, gradient, gx, gcurve)
    launch(dynamics_adjoint, programs, _THREADS, *tensors, *sizes, **constants)
    return gx, gcurve.sum(-1), torch.stack([gattack, grelease], -1), gmakeup.sum(-1), gzi


def _target(x: Tensor, curve: Tensor, direction: int, mean: bool) -> Tensor:
    """The gain before smoothing, `(groups, samples)` in float64."""
    g = doubles(x, x.shape[0], x.shape[-1])
    programs, sizes = _blocks(x)
    constants = {"DIRECTION": direction, "MEAN": int(mean), "BLOCK": BLOCK}
    launch(dynamics_target, programs, _THREADS, x, curve, g, *sizes, **constants)
    return g


def _blocks(x: Tensor) -> tuple[int, tuple[int, int, int]]:
    """Programs, and the sizes that every kernel takes: channels, samples, blocks of samples."""
    groups, channels, samples = x.shape
    blocks = -(-samples // BLOCK)
    return groups * blocks, (channels, samples, blocks)


def _split(poles: Tensor) -> Poles:
    return Poles(poles[:, 0].contiguous(), poles[:, 1].contiguous())
