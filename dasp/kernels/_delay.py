"""`delay(x, samples) -> y`: signals later by any number of samples, by third-order interpolation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dasp.kernels._registration import Operator, Tensors, register

# The interpolation adds up to this many samples.
_SPREAD = 3


def _whole(samples: Tensor) -> Tensor:
    """Whole samples before the four of the interpolation: one less where there is room, so that these lie around it."""
    return (torch.floor(samples.detach()) - 1).clamp_min(0)


def _weights(samples: Tensor) -> list[Tensor]:
    """Lagrange's weights of 0 to 3 samples beyond the whole ones, `(rows,)` each."""
    p = samples - _whole(samples)
    return [
        (p - 1) * (p - 2) * (p - 3) / -6,
        p * (p - 2) * (p - 3) / 2,
        p * (p - 1) * (p - 3) / -2,
        p * (p - 1) * (p - 2) / 6,
    ]


def _slopes(samples: Tensor) -> list[Tensor]:
    """The derivatives of the weights."""
    p = samples - _whole(samples)
    return [
        (3 * p * p - 12 * p + 11) / -6,
        (3 * p * p - 10 * p + 6) / 2,
        (3 * p * p - 8 * p + 3) / -2,
        (3 * p * p - 6 * p + 2) / 6,
    ]


def _weighted(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """x with 3 more samples, filtered by four weights."""
    padded = torch.nn.functional.pad(x, (_SPREAD, _SPREAD))
    count = x.shape[-1] + _SPREAD
    y = weights[0][:, None, None] * padded[..., _SPREAD:]
    for late, weight in enumerate(weights[1:], start=1):
        y = torch.addcmul(y, weight[:, None, None], padded[..., _SPREAD - late : _SPREAD - late + count])
    return y


def _moved(x: Tensor, whole: Tensor, length: int) -> Tensor:
    """x later by whole samples, which may be negative, and silent beyond its ends."""
    count = x.shape[-1]
    index = torch.arange(length, device=x.device) - whole.to(torch.int64)[:, None, None]
    outside = (index < 0) | (index >= count)
    moved = torch.gather(x, -1, index.clamp(0, count - 1).expand(*x.shape[:-1], length))
    return moved.masked_fill(outside, 0.0)


def _interpolated(x: Tensor, samples: Tensor, weights: Sequence[Tensor], length: int) -> Tensor:
    return _moved(_weighted(x, weights), _whole(samples), length)


def _forward(length: int, x: Tensor, samples: Tensor) -> Tensors:
    return (_interpolated(x, samples, _weights(samples), length),)


def _fake(length: int, x: Tensor, samples: Tensor) -> Tensors:
    return (x.new_empty(*x.shape[:-1], length),)


def _vjp(length: int, inputs: Tensors, outputs: Tensors, grads: Tensors) -> Tensors:
    """The adjoint moves back, and weighs in reversed time."""
    x, samples = inputs
    back = _moved(grads[0], -_whole(samples), x.shape[-1] + _SPREAD)
    gx = _weighted(back.flip(-1), _weights(samples)).flip(-1)[..., _SPREAD : _SPREAD + x.shape[-1]]
    return gx, (back * _weighted(x, _slopes(samples))).sum((-1, -2))


def _backward(length: int, inputs: Tensors, outputs: Tensors, grads: Tensors, needs: Sequence[bool]) -> Tensors:
    gx, gsamples = _vjp(length, inputs, outputs, grads)
    return gx.contiguous(), gsamples


def _jvp(length: int, inputs: Tensors, outputs: Tensors, tangents: Tensors) -> Tensors:
    x, samples = inputs
    dx, dsamples = tangents
    slopes = [slope * dsamples for slope in _slopes(samples)]
    moved = _interpolated(dx, samples, _weights(samples), length)
    return (moved + _interpolated(x, samples, slopes, length),)


_call = register(
    Operator(
        "delay",
        ("x", "samples"),
        ("y",),
        _forward,
        _fake,
        _backward,
        _vjp,
        _jvp,
        settings="SymInt length",
        any_device=True,
    )
)


def delay(x: Tensor, samples: Tensor, length: int) -> Tensor:
    """Signals later by a number of samples; exact for whole ones.

    Args:
        x: `(rows, channels, samples)`, float32 or float64, with at least one sample.
        samples: `(rows,)` as x, not negative.
        length: Number of samples of the result, at least 1.

    Returns:
        `(rows, channels, length)`, cut or silent beyond the end of x.
    """
    (y,) = _call(x, samples, length)
    return y
