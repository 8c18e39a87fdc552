"""`sosfilt(x, sos, zi) -> (y, zf)`: a cascade of second-order sections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy
import torch
from torch import Tensor

from dasp.kernels._library import advised, library
from dasp.kernels._registration import BLOCK, CHECKPOINTS, Operator, Tensors, in_double, nothing, register


def _coefficients_per_row(sos: Tensor, rows: int) -> Tensor:
    return sos.repeat_interleave(rows // max(sos.shape[0], 1), dim=0)


def _scipy_sosfilt(x: Tensor, sos: Tensor, zi: Tensor) -> Tensors:
    """The fallback without a compiled library: one scipy call for each filter."""
    y = np.empty(x.shape)
    zf = np.empty(zi.shape)
    share = x.shape[0] // max(sos.shape[0], 1)
    full = np.insert(sos.numpy(), 3, 1.0, axis=-1)
    for filter_index, filter_sos in enumerate(full):
        rows = slice(filter_index * share, (filter_index + 1) * share)
        state = np.moveaxis(zi[rows].numpy(), 0, 1)
        y[rows], state = scipy.signal.sosfilt(filter_sos, x[rows].double().numpy(), axis=-1, zi=state)
        zf[rows] = np.moveaxis(state, 1, 0)
    return torch.from_numpy(y).to(x.dtype), torch.from_numpy(zf)


def _checkpoints(x: Tensor, sos: Tensor) -> Tensor:
    # One block more than there may be: torch 2.13 exports no symbolic size that could be 1.
    return sos.new_empty(x.shape[0], x.shape[1] // BLOCK + 2, sos.shape[1], 2)


def _forward(x: Tensor, sos: Tensor, zi: Tensor, differentiable: bool = True) -> Tensors:
    x, sos, zi = x.contiguous(), sos.contiguous(), zi.contiguous()
    rows, samples = x.shape
    if rows == 0 or samples == 0 or sos.shape[1] == 0:
        return x.clone(), zi.clone(), nothing(sos)
    if not library.available():
        return (*_scipy_sosfilt(x, sos, zi), nothing(sos))
    y, zf = advised(torch.empty_like(x)), torch.empty_like(zi)
    checkpoints = advised(_checkpoints(x, sos)) if differentiable else None
    pointers = [x, sos, zi, y, zf, None, None, None, None, None, checkpoints]
    library.call("sosfilt", pointers, [rows, samples, sos.shape[1], rows // sos.shape[0]])
    return y, zf, nothing(sos) if checkpoints is None else checkpoints


def _fake(x: Tensor, sos: Tensor, zi: Tensor, differentiable: bool = True) -> Tensors:
    return (
        torch.empty_like(x, memory_format=torch.contiguous_format),
        torch.empty_like(zi, memory_format=torch.contiguous_format),
        _checkpoints(x, sos) if differentiable and x.device.type == "cpu" and library.available() else nothing(sos),
    )


def _backward(inputs: Tensors, saved: Tensors, grads: Tensors, needs: Sequence[bool]) -> Tensors:
    x, sos, zi = (tensor.contiguous() for tensor in inputs)
    gy, gzf = (tensor.contiguous() for tensor in grads)
    rows, samples = x.shape
    if rows == 0 or samples == 0 or sos.shape[1] == 0:
        return gy.clone(), torch.zeros_like(sos), gzf.clone()
    if not library.available():
        return in_double(_vjp, like=0)((x, sos, zi), saved, (gy, gzf))
    (checkpoints,) = saved
    if needs[1] and not checkpoints.numel():
        checkpoints = _forward(x, sos, zi)[2]
    gx, gzi = advised(torch.empty_like(x)), torch.empty_like(zi)
    gsos = sos.new_empty(rows, *sos.shape[1:]) if needs[1] else None
    pointers = [x, sos, zi, None, None, gy, gzf, gx, gsos, gzi, checkpoints.contiguous()]
    library.call("sosfilt_backward", pointers, [rows, samples, sos.shape[1], rows // sos.shape[0]])
    if gsos is None:
        return gx, torch.zeros_like(sos), gzi
    return gx, gsos if rows == sos.shape[0] else gsos.reshape(sos.shape[0], -1, *sos.shape[1:]).sum(1), gzi


def _vjp(inputs: Tensors, saved: Tensors, grads: Tensors) -> Tensors:
    """Section by section backwards: w = (1/A)^T g in reversed time, then g <- B^T w."""
    x, sos, zi = inputs
    gy, gzf = grads
    rows, samples = x.shape
    if samples == 0:
        return torch.zeros_like(x), torch.zeros_like(sos), gzf.clone()
    signals = _signals(x, sos, zi)
    per_row = _coefficients_per_row(sos, rows)
    gsos, gzi = [], []
    g = gy
    for k in reversed(range(sos.shape[1])):
        u, v = signals[k], signals[k + 1]
        b0, b1, b2 = (per_row[:, k, j : j + 1].to(x.dtype) for j in range(3))
        # Beyond the end w holds the gradient of the final state.
        end = gzf[:, k]
        state = torch.stack([-(per_row[:, k, 3:] * end).sum(-1), -per_row[:, k, 4] * end[:, 0]], -1)
        w, _ = sosfilt(g.flip(-1), _all_pole(sos[:, k : k + 1]), state.unsqueeze(1))
        w = torch.cat([w.flip(-1), end.to(x.dtype)], -1)
        w0, w1, w2 = w[:, :samples], w[:, 1 : samples + 1], w[:, 2:]
        sums = [(w0 * u), (w1 * u), (w2 * u), -(w1 * v), -(w2 * v)]
        gsos.append(torch.stack([s.sum(-1).to(sos.dtype) for s in sums], -1))
        gzi.append(w[:, :2].to(zi.dtype))
        g = b0 * w0 + b1 * w1 + b2 * w2
    if not gsos:
        return g, torch.zeros_like(sos), gzf.clone()
    stacked = torch.stack(gsos[::-1], 1)
    return g, stacked.reshape(sos.shape[0], -1, *sos.shape[1:]).sum(1), torch.stack(gzi[::-1], 1)


def _jvp(inputs: Tensors, outputs: Tensors, tangents: Tensors) -> Tensors:
    """Section by section forwards: A dv = B du + sum db_i u[n-i] - sum da_i v[n-i]."""
    x, sos, zi = inputs
    dx, dsos, dzi = tangents
    rows, samples = x.shape
    signals = _signals(x, sos, zi)
    per_row = _coefficients_per_row(dsos, rows).to(x.dtype)
    dzf = []
    dv = dx
    for k in range(sos.shape[1]):
        u, v = (torch.nn.functional.pad(signal, (2, 2)) for signal in (signals[k], signals[k + 1]))
        forcing = torch.zeros_like(u[:, 2:])
        for j, (signal, delay) in enumerate([(u, 0), (u, 1), (u, 2), (-v, 1), (-v, 2)]):
            forcing = forcing + per_row[:, k, j : j + 1] * signal[:, 2 - delay : samples + 4 - delay]
        dv, from_input = sosfilt(dv, sos[:, k : k + 1], dzi[:, k : k + 1])
        response, from_forcing = sosfilt(
            forcing[:, :samples], _all_pole(sos[:, k : k + 1]), torch.zeros_like(dzi[:, k : k + 1])
        )
        dv = dv + response
        dzf.append(from_input[:, 0] + from_forcing[:, 0] + forcing[:, samples:].to(zi.dtype))
    return dv, torch.stack(dzf, 1) if dzf else torch.zeros_like(zi)


def _all_pole(section: Tensor) -> Tensor:
    """1 / A of each section."""
    zeros = torch.zeros_like(section[..., 1:3])
    return torch.cat([torch.ones_like(section[..., :1]), zeros, section[..., 3:]], -1)


def _signals(x: Tensor, sos: Tensor, zi: Tensor) -> list[Tensor]:
    """The input and the output of every section."""
    signals = [x]
    for k in range(sos.shape[1]):
        signals.append(sosfilt(signals[-1], sos[:, k : k + 1], zi[:, k : k + 1])[0])
    return signals


_call = register(
    Operator("sosfilt", ("x", "sos", "zi"), ("y", "zf"), _forward, _fake, _backward, _vjp, _jvp, saved=(CHECKPOINTS,))
)


def sosfilt(x: Tensor, sos: Tensor, zi: Tensor) -> tuple[Tensor, Tensor]:
    """Filters rows by cascades of second-order sections, in one pass over memory.

    Args:
        x: `(rows, samples)`, float32 or float64.
        sos: `(filters, sections, 5)` in float64 as b0 b1 b2 a1 a2, a0 = 1; `filters` divides `rows`, and
            `rows / filters` consecutive rows share a filter.
        zi: `(rows, sections, 2)` in float64, the states of transposed direct form II.

    Returns:
        y as x, and the final states as zi.
    """
    y, zf = _call(x, sos, zi)
    return y, zf
