"""The recursions as a student would write them, in float64: the oracle of every other form.

Audio is `(rows, samples)`.  All rows advance together; the loops are over time (and sections).
"""

from __future__ import annotations

import torch
from torch import Tensor


def sosfilt(x: Tensor, sos: Tensor, zi: Tensor) -> tuple[Tensor, Tensor]:
    """Cascade of second-order sections in transposed direct form II.

    Args:
        x: `(rows, samples)`.
        sos: `(rows or a divisor of it, sections, 5)` as b0 b1 b2 a1 a2; consecutive rows share a filter.
        zi: `(rows, sections, 2)`, the state before the first sample.

    Returns:
        The output and the state after the last sample.
    """
    sos = sos.repeat_interleave(x.shape[0] // max(sos.shape[0], 1), dim=0).double()
    y = x.double().clone()
    s1, s2 = zi.double().clone().unbind(-1)
    for n in range(x.shape[-1]):
        for k in range(sos.shape[1]):
            b0, b1, b2, a1, a2 = sos[:, k].unbind(-1)
            u = y[:, n]
            v = b0 * u + s1[:, k]
            s1[:, k] = b1 * u - a1 * v + s2[:, k]
            s2[:, k] = b2 * u - a2 * v
            y[:, n] = v
    return y.to(x.dtype), torch.stack([s1, s2], dim=-1)


def svf(x: Tensor, coefficients: Tensor, zi: Tensor) -> tuple[Tensor, Tensor]:
    """Cascade of sections in state-variable form, with coefficients that change with time.

    Args:
        x: `(rows, samples)`.
        coefficients: `(rows or a divisor of it, frames, sections, 5)` as g d m0 m1 m2; a frame holds for
            `samples / frames` samples.
        zi: `(rows, sections, 2)`, the state before the first sample.

    Returns:
        The output and the state after the last sample.
    """
    filters, frames, sections, _ = coefficients.shape
    coefficients = coefficients.repeat_interleave(x.shape[0] // max(1, filters), dim=0).double()
    y, state = [], list(zi.double().unbind(1))
    for n, u in enumerate(x.double().unbind(-1)):
        frame = coefficients[:, n // (x.shape[-1] // frames)]
        for k in range(sections):
            g, d, m0, m1, m2 = frame[:, k].unbind(-1)
            c1, c2 = state[k].unbind(-1)
            v1 = d * (c1 + g * (u - c2))
            v2 = c2 + g * v1
            u = m0 * u + m1 * v1 + m2 * v2
            state[k] = torch.stack([2 * v1 - c1, 2 * v2 - c2], dim=-1)
        y.append(u)
    return (torch.stack(y, -1) if y else x.double()).to(x.dtype), torch.stack(state, dim=1)


def ballistics(g: Tensor, attack: Tensor, release: Tensor, zi: Tensor) -> tuple[Tensor, Tensor]:
    """Branching one-pole: y[n] = a y[n-1] + (1 - a) g[n], a = attack where g[n] < y[n-1], else release.

    Args:
        g: `(rows, samples)`.
        attack: `(rows,)` or `(rows, samples)`, the pole while the signal falls.
        release: The pole while it rises, as attack.
        zi: `(rows,)`, y before the first sample.

    Returns:
        The smoothed signal and its last value.
    """
    y = torch.empty_like(g, dtype=torch.float64)
    last = zi.double()
    attack, release = ((p if p.ndim == 2 else p.unsqueeze(-1)).expand(g.shape) for p in (attack, release))
    for n, value in enumerate(g.double().unbind(-1)):
        a = torch.where(value < last, attack[:, n], release[:, n])
        last = a * last + (1 - a) * value
        y[:, n] = last
    return y.to(g.dtype), last.clone()


def recurrence(a: Tensor, x: Tensor, zi: Tensor) -> tuple[Tensor, Tensor]:
    """Linear recurrence of first order: y[n] = a[n] y[n-1] + x[n].

    Args:
        a: `(rows, samples)`.
        x: `(rows, samples)`.
        zi: `(rows,)`, y before the first sample.

    Returns:
        y and its last value.
    """
    y = torch.empty_like(x, dtype=torch.float64)
    last = zi.double()
    for n in range(x.shape[-1]):
        last = a[:, n] * last + x[:, n]
        y[:, n] = last
    return y.to(x.dtype), last.clone()
