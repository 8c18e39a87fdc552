"""`ballistics(g, attack, release, zi) -> (y, zf)`: the branching one-pole of dynamics processors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dasp.kernels import reference
from dasp.kernels._library import advised, library
from dasp.kernels._recurrence import delayed, recurrence
from dasp.kernels._registration import Operator, Tensors, in_double, register


def _kernel(name: str, pole: Tensor) -> str:
    """The kernel for poles that are the same for a row, `(rows,)`, or vary with time, `(rows, samples)`."""
    return name if pole.ndim == 1 else f"{name}_varying"


def _along_time(pole: Tensor) -> Tensor:
    return pole.unsqueeze(-1) if pole.ndim == 1 else pole


def _forward(g: Tensor, attack: Tensor, release: Tensor, zi: Tensor) -> Tensors:
    g, attack, release, zi = (tensor.contiguous() for tensor in (g, attack, release, zi))
    if g.numel() == 0:
        return g.clone(), zi.clone()
    if not library.available():
        return reference.ballistics(g, attack, release, zi)
    y, zf = advised(torch.empty_like(g)), torch.empty_like(zi)
    pointers = [g, attack, release, zi, y, zf, None, None, None, None, None, None]
    library.call(_kernel("ballistics", attack), pointers, list(g.shape))
    return y, zf


def _fake(g: Tensor, attack: Tensor, release: Tensor, zi: Tensor) -> Tensors:
    return (
        torch.empty_like(g, memory_format=torch.contiguous_format),
        torch.empty_like(zi, memory_format=torch.contiguous_format),
    )


def _backward(inputs: Tensors, saved: Tensors, grads: Tensors, needs: Sequence[bool]) -> Tensors:
    g, attack, release, zi = (tensor.contiguous() for tensor in inputs)
    gy, gzf = (tensor.contiguous() for tensor in grads)
    if g.numel() == 0:
        return torch.zeros_like(g), torch.zeros_like(attack), torch.zeros_like(release), gzf.clone()
    if not library.available():
        return in_double(_vjp, like=0)((g, attack, release, zi), saved, (gy, gzf))
    gg = advised(torch.empty_like(g))
    gattack, grelease, gzi = (advised(torch.empty_like(value)) for value in (attack, release, zi))
    pointers = [g, attack, release, zi, None, None, gy, gzf, gg, gattack, grelease, gzi]
    library.call(_kernel("ballistics", attack) + "_backward", pointers, list(g.shape))
    return gg, gattack, grelease, gzi


def _vjp(inputs: Tensors, saved: Tensors, grads: Tensors) -> Tensors:
    """With the branches known, the adjoint is a linear recurrence backwards in time."""
    g, attack, release, zi = inputs
    gy, gzf = grads
    if g.shape[-1] == 0:
        return torch.zeros_like(g), torch.zeros_like(attack), torch.zeros_like(release), gzf.clone()
    # Computed again, since rounded outputs would decide near ties otherwise than the kernel did.
    y, _ = ballistics(g, attack, release, zi)
    previous = delayed(y, zi)
    falling = g < previous
    a = _pole(falling, attack, release, g)
    shifted = torch.cat([a[:, 1:], torch.ones_like(a[:, :1])], -1)
    total = recurrence(shifted.flip(-1), gy.flip(-1), gzf)[0].flip(-1)
    share = total * (previous - g)
    zero = torch.zeros_like(share)
    gattack, grelease = (
        part.sum_to_size(_along_time(pole).shape).reshape(pole.shape).to(pole.dtype)
        for part, pole in ((torch.where(falling, share, zero), attack), (torch.where(falling, zero, share), release))
    )
    return (1 - a) * total, gattack, grelease, (a[:, 0] * total[:, 0]).to(zi.dtype)


def _jvp(inputs: Tensors, outputs: Tensors, tangents: Tensors) -> Tensors:
    """With the branches known: dy[n] = a dy[n-1] + (1 - a) dg[n] + da (y[n-1] - g[n])."""
    g, attack, release, zi = inputs
    dg, dattack, drelease, dzi = tangents
    y, _ = ballistics(g, attack, release, zi)
    previous = delayed(y, zi)
    falling = g < previous
    a = _pole(falling, attack, release, g)
    da = _pole(falling, dattack, drelease, g)
    return recurrence(a, (1 - a) * dg + da * (previous - g), dzi)


def _pole(falling: Tensor, attack: Tensor, release: Tensor, like: Tensor) -> Tensor:
    return torch.where(falling, _along_time(attack).to(like.dtype), _along_time(release).to(like.dtype))


_call = register(
    Operator("ballistics", ("g", "attack", "release", "zi"), ("y", "zf"), _forward, _fake, _backward, _vjp, _jvp)
)


def ballistics(g: Tensor, attack: Tensor, release: Tensor, zi: Tensor) -> tuple[Tensor, Tensor]:
    """Smooths rows by y[n] = a y[n-1] + (1 - a) g[n], a = attack where g[n] < y[n-1], else release.

    Args:
        g: `(rows, samples)`, float32 or float64.
        attack: `(rows,)` or, where it varies, `(rows, samples)` in float64, the pole while g falls below y.
        release: The pole elsewhere, as attack.
        zi: `(rows,)` in float64, y before the first sample.

    Returns:
        y as g, and its last value in float64.
    """
    y, zf = _call(g, attack, release, zi)
    return y, zf
