"""`svf(x, coefficients, zi) -> (y, zf)`: a cascade of second-order sections whose coefficients change with time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dasp.kernels._library import advised, library
from dasp.kernels._registration import BLOCK, CHECKPOINTS, Operator, Tensors, in_double, nothing, register


class _Map(NamedTuple):
    """An affine map of two states, s -> [[a, b], [c, d]] s + [p, q]; each `(rows, chunks)`."""

    a: Tensor
    b: Tensor
    c: Tensor
    d: Tensor
    p: Tensor
    q: Tensor

    def of(self, s1: Tensor, s2: Tensor) -> tuple[Tensor, Tensor]:
        return self.a * s1 + self.b * s2 + self.p, self.c * s1 + self.d * s2 + self.q

    def after(self, first: _Map) -> _Map:
        (a, c), (b, d) = (
            (self.a * s1 + self.b * s2, self.c * s1 + self.d * s2)
            for s1, s2 in ((first.a, first.c), (first.b, first.d))
        )
        return _Map(a, b, c, d, *self.of(first.p, first.q))


def _states(steps: _Map, zi: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both states before every sample, `(rows, samples)`, and after the last, `(rows, 2)`.

    Samples are cut into as many chunks as a chunk has samples.  All chunks advance together from any state, and then
    the states between them are found one after another.
    """
    rows, samples = steps.a.shape
    length = math.isqrt(samples - 1) + 1
    chunks = -(-samples // length)

    def cut(values: Tensor) -> tuple[Tensor, ...]:
        padded = torch.nn.functional.pad(values, (0, chunks * length - samples))
        return padded.reshape(rows, chunks, length).unbind(-1)

    one, none = torch.ones_like(steps.a[:, :chunks]), torch.zeros_like(steps.a[:, :chunks])
    maps = [_Map(one, none, none, one, none, none)]
    for step in zip(*map(cut, steps), strict=True):
        maps.append(_Map(*step).after(maps[-1]))
    between = [zi.unbind(-1)]
    for chunk in range(chunks - 1):
        between.append(_Map(*(part[:, chunk] for part in maps[-1])).of(*between[-1]))
    starts = [torch.stack(parts, -1) for parts in zip(*between, strict=True)]
    reached = zip(*(steps.of(*starts) for steps in maps[:-1]), strict=True)
    s1, s2 = (torch.stack(parts, -1).flatten(1)[:, :samples] for parts in reached)
    end = _Map(*(part[:, -1] for part in steps)).of(s1[:, -1], s2[:, -1])
    return s1, s2, torch.stack(end, -1)


class _Section(NamedTuple):
    """Coefficients, input and states of a section at every sample, `(rows, samples)`, and the states at the end."""

    coefficients: tuple[Tensor, ...]
    u: Tensor
    s1: Tensor
    s2: Tensor
    end: Tensor


def _run(x: Tensor, coefficients: Tensor, zi: Tensor) -> tuple[Tensor, list[_Section]]:
    rows, samples = x.shape
    frames = coefficients.repeat_interleave(rows // max(1, coefficients.shape[0]), 0)
    frames = frames.repeat_interleave(samples // max(1, frames.shape[1]), 1)
    y, sections = x.double(), []
    for k in range(frames.shape[2]):
        g, d, m0, m1, m2 = frames[:, :, k].unbind(-1)
        gd = 2 * g * d
        ggd = g * gd
        s1, s2, end = _states(_Map(2 * d - 1, -gd, gd, 1 - ggd, gd * y, ggd * y), zi[:, k])
        sections.append(_Section((g, d, m0, m1, m2), y, s1, s2, end))
        v1 = d * (s1 + g * (y - s2))
        y = m0 * y + m1 * v1 + m2 * (s2 + g * v1)
    return y.to(x.dtype), sections


def by_chunks(x: Tensor, coefficients: Tensor, zi: Tensor) -> tuple[Tensor, Tensor]:
    """The same in elementary operations of float64, of which there are some hundreds for any number of samples.

    It is what derivatives of higher order differentiate, and the fallback without a kernel.
    """
    y, sections = _run(x, coefficients, zi)
    return y, torch.stack([section.end for section in sections], 1)


def _checkpoints(x: Tensor, zi: Tensor) -> Tensor:
    # As in `sosfilt`, one or two more than there are blocks.
    return zi.new_empty(x.shape[0], x.shape[1] // BLOCK + 2, *zi.shape[1:])


def _is_empty(x: Tensor, coefficients: Tensor) -> bool:
    return x.numel() == 0 or coefficients.shape[2] == 0


def _sizes(x: Tensor, coefficients: Tensor) -> list[int]:
    filters, frames, sections, _ = coefficients.shape
    return [*x.shape, sections, x.shape[0] // filters, frames]


def _forward(x: Tensor, coefficients: Tensor, zi: Tensor, differentiable: bool = True) -> Tensors:
    x, coefficients, zi = x.contiguous(), coefficients.contiguous(), zi.contiguous()
    if _is_empty(x, coefficients):
        return x.clone(), zi.clone(), nothing(zi)
    if not library.available():
        return (*by_chunks(x, coefficients, zi), nothing(zi))
    y, zf = advised(torch.empty_like(x)), torch.empty_like(zi)
    checkpoints = advised(_checkpoints(x, zi)) if differentiable else None
    if checkpoints is not None:
        checkpoints[:, -(-x.shape[1] // BLOCK) :] = 0
    pointers = [x, coefficients, zi, y, zf, None, None, None, None, None, checkpoints]
    library.call("svf", pointers, _sizes(x, coefficients))
    return y, zf, nothing(zi) if checkpoints is None else checkpoints


def _fake(x: Tensor, coefficients: Tensor, zi: Tensor, differentiable: bool = True) -> Tensors:
    compiled = differentiable and x.device.type == "cpu" and library.available()
    return (
        torch.empty_like(x, memory_format=torch.contiguous_format),
        torch.empty_like(zi, memory_format=torch.contiguous_format),
        _checkpoints(x, zi) if compiled else nothing(zi),
    )


def _backward(inputs: Tensors, saved: Tensors, grads: Tensors, needs: Sequence[bool]) -> Tensors:
    x, coefficients, zi = (tensor.contiguous() for tensor in inputs)
    gy, gzf = (tensor.contiguous() for tensor in grads)
    if _is_empty(x, coefficients):
        return gy.clone(), torch.zeros_like(coefficients), gzf.clone()
    if not library.available():
        return in_double(_vjp, like=0)((x, coefficients, zi), (), (gy, gzf))
    (checkpoints,) = saved
    if not checkpoints.numel():
        checkpoints = _forward(x, coefficients, zi)[2]
    gx, gzi = advised(torch.empty_like(x)), torch.empty_like(zi)
    filters, *frame = coefficients.shape
    gcoefficients = advised(coefficients.new_empty(x.shape[0], *frame)) if needs[1] else None
    pointers = [x, coefficients, zi, None, None, gy, gzf, gx, gcoefficients, gzi, checkpoints.contiguous()]
    library.call("svf_backward", pointers, _sizes(x, coefficients))
    if gcoefficients is None:
        return gx, torch.zeros_like(coefficients), gzi
    return gx, gcoefficients if filters == x.shape[0] else gcoefficients.unflatten(0, (filters, -1)).sum(1), gzi


def _vjp(inputs: Tensors, saved: Tensors, grads: Tensors) -> Tensors:
    """Section by section backwards: its states' gradients follow the transposed recursion in reversed time."""
    x, coefficients, zi = inputs
    gy, gzf = grads
    if _is_empty(x, coefficients):
        return gy.clone(), torch.zeros_like(coefficients), gzf.clone()
    gs, gcoefficients, gzi = gy.double(), [], []
    for section, end in zip(reversed(_run(x, coefficients, zi)[1]), reversed(gzf.unbind(1)), strict=True):
        (g, d, m0, m1, m2), u, s1, s2, _ = section
        gd, mixed = 2 * g * d, d * (m1 + g * m2) * gs
        steps = _Map(2 * d - 1, gd, -gd, 1 - g * gd, mixed, m2 * gs - g * mixed)
        l1, l2, start = _states(_Map(*(part.flip(-1) for part in steps)), end)
        t = u - s2
        p = s1 + g * t
        v1 = d * p
        gv2 = m2 * gs + 2 * l2.flip(-1)
        gv1 = m1 * gs + 2 * l1.flip(-1) + g * gv2
        e = d * gv1
        gcoefficients.append(torch.stack([gv2 * v1 + e * t, gv1 * p, gs * u, gs * v1, gs * (s2 + g * v1)], -1))
        gs = m0 * gs + g * e
        gzi.append(start)
    filters, frames = coefficients.shape[:2]
    total = torch.stack(gcoefficients[::-1], 2).unflatten(1, (frames, -1)).sum(2).unflatten(0, (filters, -1)).sum(1)
    return gs, total, torch.stack(gzi[::-1], 1)


def _jvp(inputs: Tensors, outputs: Tensors, tangents: Tensors) -> Tensors:
    """By transposing the transpose: forward modes of torch 2.13 cannot be nested."""
    if _is_empty(*inputs[:2]):
        return tangents[0].clone(), tangents[2].clone()
    pull = torch.func.vjp(by_chunks, *inputs)[1]
    push = torch.func.vjp(lambda *grads: pull(grads), *map(torch.zeros_like, outputs))[1]
    results: Tensors = push(tangents)
    return results


_call = register(
    Operator(
        "svf", ("x", "coefficients", "zi"), ("y", "zf"), _forward, _fake, _backward, _vjp, _jvp, saved=(CHECKPOINTS,)
    )
)


def svf(x: Tensor, coefficients: Tensor, zi: Tensor) -> tuple[Tensor, Tensor]:
    """Filters rows by cascades of second-order sections with coefficients for every frame of samples.

    A section is two trapezoidal integrators in a loop: v1 = d (c1 + g (u - c2)), v2 = c2 + g v1, y = m0 u + m1 v1 +
    m2 v2, c1' = 2 v1 - c1, c2' = 2 v2 - c2.  With d = 1 / (1 + g (g + k)), g > 0 and k >= 0, the sum of squares
    c1^2 + c2^2 never grows without input, however the coefficients change: the map from one sample to the next is the
    Cayley transform of [[-k, -1], [1, 0]] g, whose symmetric part has no positive eigenvalue.  States of direct forms
    have no such measure that all filters share, and changing those filters fast can make them diverge.

    Args:
        x: `(rows, samples)`, float32 or float64.
        coefficients: `(filters, frames, sections, 5)` in float64 as g d m0 m1 m2; `filters` divides `rows`, and
            consecutive rows share a filter; `frames` divides `samples`, and a frame holds for consecutive samples.
        zi: `(rows, sections, 2)` in float64: c1 and c2 before the first sample.

    Returns:
        y as x, and the final states as zi.
    """
    y, zf = _call(x, coefficients, zi)
    return y, zf
