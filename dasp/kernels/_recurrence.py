"""`recurrence(a, x, zi) -> (y, zf)`: y[n] = a[n] y[n-1] + x[n]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dasp.kernels import reference
from dasp.kernels._library import advised, library
from dasp.kernels._registration import Operator, Tensors, in_double, register


def delayed(y: Tensor, zi: Tensor) -> Tensor:
    """y[n-1], which before the first sample is zi."""
    return torch.cat([zi.unsqueeze(-1).to(y.dtype), y], -1)[:, :-1]


def _forward(a: Tensor, x: Tensor, zi: Tensor) -> Tensors:
    a, x, zi = a.contiguous(), x.contiguous(), zi.contiguous()
    if x.numel() == 0:
        return x.clone(), zi.clone()
    if not library.available():
        return reference.recurrence(a, x, zi)
    y, zf = advised(torch.empty_like(x)), torch.empty_like(zi)
    library.call("recurrence", [a, x, zi, y, zf, None, None, None, None, None], list(x.shape))
    return y, zf


def _fake(a: Tensor, x: Tensor, zi: Tensor) -> Tensors:
    return (
        torch.empty_like(x, memory_format=torch.contiguous_format),
        torch.empty_like(zi, memory_format=torch.contiguous_format),
    )


def _backward(inputs: Tensors, saved: Tensors, grads: Tensors, needs: Sequence[bool]) -> Tensors:
    a, x, zi = (tensor.contiguous() for tensor in inputs)
    y = saved[0].contiguous()
    gy, gzf = (tensor.contiguous() for tensor in grads)
    if x.numel() == 0:
        return torch.zeros_like(a), torch.zeros_like(x), gzf.clone()
    if not library.available():
        return in_double(_vjp, like=0)((a, x, zi), saved, (gy, gzf))
    ga, gx, gzi = (advised(torch.empty_like(value)) for value in (a, x, zi))
    library.call("recurrence_backward", [a, None, zi, y, None, gy, gzf, ga, gx, gzi], list(x.shape))
    return ga, gx, gzi


def _vjp(inputs: Tensors, saved: Tensors, grads: Tensors) -> Tensors:
    """The adjoint is the same recurrence backwards in time: gx[n] = gy[n] + a[n+1] gx[n+1]."""
    a, x, zi = inputs
    (y,) = saved
    gy, gzf = grads
    if x.shape[-1] == 0:
        return torch.zeros_like(a), torch.zeros_like(x), gzf.clone()
    shifted = torch.cat([a[:, 1:], torch.ones_like(a[:, :1])], -1)
    gx = recurrence(shifted.flip(-1), gy.flip(-1), gzf)[0].flip(-1)
    return gx * delayed(y, zi), gx, (a[:, 0] * gx[:, 0]).to(zi.dtype)


def _jvp(inputs: Tensors, outputs: Tensors, tangents: Tensors) -> Tensors:
    """The tangent is the same recurrence: dy[n] = a[n] dy[n-1] + dx[n] + da[n] y[n-1]."""
    a, _, zi = inputs
    y, _ = outputs
    da, dx, dzi = tangents
    return recurrence(a, dx + da * delayed(y, zi), dzi)


_call = register(
    Operator("recurrence", ("a", "x", "zi"), ("y", "zf"), _forward, _fake, _backward, _vjp, _jvp, saved=("y",))
)


def recurrence(a: Tensor, x: Tensor, zi: Tensor) -> tuple[Tensor, Tensor]:
    """Linear recurrence of first order with a coefficient for every sample.

    Args:
        a: `(rows, samples)`, as x.
        x: `(rows, samples)`, float32 or float64.
        zi: `(rows,)` in float64, y before the first sample.

    Returns:
        y as x, and its last value in float64.
    """
    y, zf = _call(a, x, zi)
    return y, zf
