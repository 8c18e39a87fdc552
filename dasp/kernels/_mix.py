"""`mix(x, gains) -> y`: a matrix of gains for every item."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dasp.kernels._library import advised, library
from dasp.kernels._registration import Operator, Tensors, register

# Samples whose part in the gradient of the gains is summed by itself, as in the C++ kernel.
_STRETCH = 16384


def _compiled(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.numel() > 0 and library.available()


def _exact(gains: Tensor, x: Tensor) -> Tensor:
    """In float64, rounded once."""
    return torch.bmm(gains, x.double()).to(x.dtype)


def _forward(x: Tensor, gains: Tensor) -> Tensors:
    x, wide = x.contiguous(), gains.double().contiguous()
    if not _compiled(x):
        return (_exact(wide, x),)
    rows, inputs, samples = x.shape
    y = advised(x.new_empty(rows, gains.shape[1], samples))
    library.call("mix", [x, wide, y, None, None, None], [rows, samples, inputs, gains.shape[1]])
    return (y,)


def _fake(x: Tensor, gains: Tensor) -> Tensors:
    return (x.new_empty(x.shape[0], gains.shape[1], x.shape[2]),)


def _backward(inputs: Tensors, saved: Tensors, grads: Tensors, needs: Sequence[bool]) -> Tensors:
    x, gains, gy = inputs[0].contiguous(), inputs[1].double().contiguous(), grads[0].contiguous()
    if not _compiled(x):
        ggains = torch.bmm(gy.double(), x.double().mT)
        return _exact(gains.mT, gy), ggains.to(inputs[1].dtype)
    rows, count, samples = x.shape
    gx, parts = advised(torch.empty_like(x)), gains.new_empty(rows, -(-samples // _STRETCH), *gains.shape[1:])
    library.call("mix_backward", [x, gains, None, gy, gx, parts], [rows, samples, count, gains.shape[1]])
    return gx, parts.sum(1).to(inputs[1].dtype)


def _vjp(inputs: Tensors, saved: Tensors, grads: Tensors) -> Tensors:
    x, gains = inputs
    (gy,) = grads
    return mix(gy, gains.mT), torch.bmm(gy, x.mT)


def _jvp(inputs: Tensors, outputs: Tensors, tangents: Tensors) -> Tensors:
    (x, gains), (dx, dgains) = inputs, tangents
    return (mix(dx, gains) + mix(x, dgains),)


_call = register(Operator("mix", ("x", "gains"), ("y",), _forward, _fake, _backward, _vjp, _jvp, any_device=True))


def mix(x: Tensor, gains: Tensor) -> Tensor:
    """Multiplies the channels of every item by a matrix, y = gains x, in one pass over memory each way.

    Args:
        x: `(rows, inputs, samples)`, float32 or float64.
        gains: `(rows, outputs, inputs)` of any type.

    Returns:
        `(rows, outputs, samples)` as x, each sum computed in float64.
    """
    (y,) = _call(x, gains)
    return y
