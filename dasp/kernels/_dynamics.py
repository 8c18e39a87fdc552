"""`dynamics(x, curve, poles, makeup, zi, direction, link) -> (y, zf)`: a whole compressor or expander in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from dasp.kernels._ballistics import ballistics
from dasp.kernels._gain_computer import in_units_of_dynamics
from dasp.kernels._library import advised, library
from dasp.kernels._recurrence import delayed, recurrence
from dasp.kernels._registration import BLOCK, CHECKPOINTS, Operator, Tensors, in_double, nothing, register

# Silence is read as this amplitude, -160 dB.
_FLOOR = 1e-8
# A knee narrower than this is a corner: 1e-6 dB in natural-logarithm units.
_CORNER = 1.151293e-7


class _Shape(NamedTuple):
    """What tells the four operators apart: compressor or expander, loudest channel or mean."""

    direction: int
    mean: bool


class _Steps(NamedTuple):
    """What a gain computer goes through, `(groups, samples)` each."""

    amplitude: Tensor
    over: Tensor
    position: Tensor
    bend: Tensor
    g: Tensor


def _columns(values: Tensor, like: Tensor) -> tuple[Tensor, ...]:
    return values.to(like.dtype).unsqueeze(-2).unbind(-1)


def _gain_computer(x: Tensor, curve: Sequence[Tensor], shape: _Shape) -> _Steps:
    """From audio to the gain before smoothing, by threshold, slope, knee and range, `(groups, samples or 1)` each.

    With the position p within the knee from 0 to 1, the knee is p^2 knee / 2 + max(over - knee / 2, 0).
    """
    threshold, slope, knee, limit = curve
    magnitude = x.abs()
    linked = magnitude.mean(-2) if shape.mean else magnitude.amax(-2)
    amplitude = linked.clamp_min(_FLOOR)
    over = shape.direction * (torch.log(amplitude) - threshold)
    corner = knee < _CORNER
    width = torch.where(corner, 0.0, knee)
    inside = (over / torch.where(corner, 1.0, width) + 0.5).clamp(0, 1)
    position = torch.where(corner, (over > 0).to(x.dtype), inside)
    bend = position * position * (width / 2) + torch.relu(over - width / 2)
    return _Steps(amplitude, over, position, bend, torch.maximum(slope * bend, -limit))


def _share(x: Tensor, shape: _Shape) -> Tensor:
    """Derivative of the linked amplitude with respect to each channel; equally loud ones share it."""
    if shape.mean:
        return x.sign() / x.shape[-2]
    magnitude = x.abs()
    loudest = (magnitude >= magnitude.amax(-2, keepdim=True)).to(x.dtype)
    return x.sign() * loudest / loudest.sum(-2, keepdim=True).clamp_min(1)


def unfused(
    x: Tensor, curve: Tensor, poles: Tensor, makeup: Tensor, zi: Tensor, direction: int, mean: bool
) -> tuple[Tensor, Tensor]:
    """The same in elementary steps around `ballistics`: the reference, and the fallback without a compiled library."""
    steps = _gain_computer(x, _columns(curve, x), _Shape(direction, mean))
    smoothed, zf = ballistics(steps.g, poles[:, 0], poles[:, 1], zi)
    return x * torch.exp(smoothed.unsqueeze(-2) + makeup.to(x.dtype).unsqueeze(-1)), zf


def _checkpoints(x: Tensor, zi: Tensor) -> Tensor:
    """Room for the smoothed gain before every block."""
    # As in `sosfilt`, one or two more than there are blocks.
    return zi.new_zeros(x.shape[0], x.shape[-1] // BLOCK + 2)


def _forward(
    shape: _Shape, x: Tensor, curve: Tensor, poles: Tensor, makeup: Tensor, zi: Tensor, differentiable: bool = True
) -> Tensors:
    x, curve, poles, makeup, zi = (tensor.contiguous() for tensor in (x, curve, poles, makeup, zi))
    if x.numel() == 0:
        return x.clone(), zi.clone(), nothing(zi)
    if not library.available():
        y, zf = unfused(x.double(), curve, poles, makeup, zi, *shape)
        return y.to(x.dtype), zf, nothing(zi)
    y, zf = advised(torch.empty_like(x)), torch.empty_like(zi)
    checkpoints = _checkpoints(x, zi) if differentiable else None
    groups, channels, samples = x.shape
    pointers = [x, curve, poles, makeup, zi, y, zf, None, None, None, None, None, None, None, checkpoints]
    library.call("dynamics", pointers, [groups, samples, channels, shape.direction, int(shape.mean)])
    return y, zf, nothing(zi) if checkpoints is None else checkpoints


def _fake(x: Tensor, curve: Tensor, poles: Tensor, makeup: Tensor, zi: Tensor, differentiable: bool = True) -> Tensors:
    compiled = differentiable and x.device.type == "cpu" and library.available()
    return (
        torch.empty_like(x, memory_format=torch.contiguous_format),
        torch.empty_like(zi, memory_format=torch.contiguous_format),
        _checkpoints(x, zi) if compiled else nothing(zi),
    )


def _backward(shape: _Shape, inputs: Tensors, saved: Tensors, grads: Tensors, needs: Sequence[bool]) -> Tensors:
    x, curve, poles, makeup, zi = (tensor.contiguous() for tensor in inputs)
    gy, gzf = (tensor.contiguous() for tensor in grads)
    if x.numel() == 0:
        return (*(torch.zeros_like(tensor) for tensor in (x, curve, poles, makeup)), gzf.clone())
    if not library.available():
        return in_double(partial(_vjp, shape), like=0)((x, curve, poles, makeup, zi), saved, (gy, gzf))
    (checkpoints,) = saved
    if not checkpoints.numel():
        checkpoints = _forward(shape, x, curve, poles, makeup, zi)[2]
    results = [advised(torch.empty_like(tensor)) for tensor in (x, curve, poles, makeup, zi)]
    groups, channels, samples = x.shape
    pointers = [x, curve, poles, makeup, zi, None, None, gy, gzf, *results, checkpoints.contiguous()]
    library.call("dynamics_backward", pointers, [groups, samples, channels, shape.direction, int(shape.mean)])
    return tuple(results)


def _vjp(shape: _Shape, inputs: Tensors, saved: Tensors, grads: Tensors) -> Tensors:
    """Gain, smoother (a recurrence backwards in time), gain computer and level, each by its own derivative."""
    x, curve, poles, makeup, zi = inputs
    gy, gzf = grads
    if x.numel() == 0:
        return (*(torch.zeros_like(tensor) for tensor in (x, curve, poles, makeup)), gzf.clone())
    columns = _columns(curve, x)
    _, slope, _, limit = columns
    steps = _gain_computer(x, columns, shape)
    smoothed, _ = ballistics(steps.g, poles[:, 0], poles[:, 1], zi)
    direct = gy * torch.exp(smoothed.unsqueeze(-2) + makeup.to(x.dtype).unsqueeze(-1))
    product = direct * x
    previous = delayed(smoothed, zi)
    falling = steps.g < previous
    a = _pole(falling, poles, x)
    shifted = torch.cat([a[:, 1:], torch.ones_like(a[:, :1])], -1)
    total = recurrence(shifted.flip(-1), product.sum(-2).flip(-1), gzf)[0].flip(-1)
    share = total * (previous - steps.g)
    gg = (1 - a) * total
    limited = slope * steps.bend < -limit
    free = torch.where(limited, 0.0, gg)
    gbend = free * slope
    glevel = shape.direction * gbend * steps.position
    gcurve = (
        -glevel,
        free * steps.bend,
        gbend * (steps.position - steps.position.square()) / 2,
        -torch.where(limited, gg, 0.0),
    )
    gpoles = (torch.where(falling, share, 0.0), torch.where(falling, 0.0, share))
    audible = steps.amplitude > _FLOOR
    heard = torch.where(audible, glevel / steps.amplitude, 0.0).unsqueeze(-2) * _share(x, shape)
    return (
        direct + heard,
        torch.stack([g.sum(-1) for g in gcurve], -1).to(curve.dtype),
        torch.stack([g.sum(-1) for g in gpoles], -1).to(poles.dtype),
        product.sum(-1).to(makeup.dtype),
        (a[:, 0] * total[:, 0]).to(zi.dtype),
    )


def _jvp(shape: _Shape, inputs: Tensors, outputs: Tensors, tangents: Tensors) -> Tensors:
    """The same forwards; the tangent of the smoother is a recurrence."""
    x, curve, poles, makeup, zi = inputs
    dx, dcurve, dpoles, dmakeup, dzi = tangents
    columns = _columns(curve, x)
    _, slope, _, limit = columns
    dthreshold, dslope, dknee, dlimit = _columns(dcurve, x)
    steps = _gain_computer(x, columns, shape)
    audible = steps.amplitude > _FLOOR
    damplitude = torch.where(audible, (dx * _share(x, shape)).sum(-2), 0.0)
    dover = shape.direction * (damplitude / steps.amplitude - dthreshold)
    dbend = steps.position * dover + (steps.position - steps.position.square()) / 2 * dknee
    limited = slope * steps.bend < -limit
    dg = torch.where(limited, -dlimit, dslope * steps.bend + slope * dbend)
    smoothed, _ = ballistics(steps.g, poles[:, 0], poles[:, 1], zi)
    previous = delayed(smoothed, zi)
    falling = steps.g < previous
    a, da = _pole(falling, poles, x), _pole(falling, dpoles, x)
    dsmoothed, dzf = recurrence(a, (1 - a) * dg + da * (previous - steps.g), dzi)
    gain = torch.exp(smoothed.unsqueeze(-2) + makeup.to(x.dtype).unsqueeze(-1))
    return gain * (dx + x * (dsmoothed.unsqueeze(-2) + dmakeup.to(x.dtype).unsqueeze(-1))), dzf


def _pole(falling: Tensor, poles: Tensor, like: Tensor) -> Tensor:
    down, up = poles.to(like.dtype).unsqueeze(-2).unbind(-1)
    return torch.where(falling, down, up)


def _register(name: str, shape: _Shape) -> Callable[..., Tensors]:
    return register(
        Operator(
            name,
            ("x", "curve", "poles", "makeup", "zi"),
            ("y", "zf"),
            partial(_forward, shape),
            _fake,
            partial(_backward, shape),
            partial(_vjp, shape),
            partial(_jvp, shape),
            saved=(CHECKPOINTS,),
        )
    )


_CALLS = {
    shape: _register(f"{name}_{link}", shape)
    for shape, name, link in (
        (_Shape(1, False), "compress", "max"),
        (_Shape(1, True), "compress", "mean"),
        (_Shape(-1, False), "expand", "max"),
        (_Shape(-1, True), "expand", "mean"),
    )
}


def dynamics(
    x: Tensor, curve: Tensor, poles: Tensor, makeup: Tensor, zi: Tensor, direction: int = 1, mean: bool = False
) -> tuple[Tensor, Tensor]:
    """Level, gain computer, smoothing and gain of a compressor (direction 1) or expander (-1).

    With L = log(max(|x|, 1e-8)) of the linked channels, over = direction (L - threshold) and the knee k,
    g = max(slope k(over), -range); s is g smoothed as `ballistics` does; y = x exp(s + makeup).  All levels are natural
    logarithms of amplitudes.

    Args:
        x: `(groups, channels, samples)`, float32 or float64; the channels of a group share a detector.
        curve: `(groups, 4)` in float64: threshold, slope, knee, range.
        poles: `(groups, 2)` in float64: while the gain falls, while it rises.
        makeup: `(groups, channels)` in float64.
        zi: `(groups,)` in float64, s before the first sample.
        direction: 1 acts above the threshold, -1 below it.
        mean: Whether the detector hears the mean amplitude of the channels and not the loudest.

    Returns:
        y as x, and the last s in float64.
    """
    y, zf = _CALLS[_Shape(direction, mean)](x, curve, poles, makeup, zi)
    return y, zf


def automated_dynamics(
    x: Tensor, settings: Sequence[Tensor], zi: Tensor, direction: int, sample_rate: float, mean: bool
) -> tuple[Tensor, Tensor]:
    """The same with controls that change with time, in elementary steps of float64 around `ballistics`.

    Args:
        x: `(groups, channels, samples)`.
        settings: In float64 and in the order of `DYNAMICS_CONTROLS`, `(groups, samples or 1)` each, and the makeup gain
            `(groups, channels or 1, samples or 1)`.
        zi: As in `dynamics`.
        direction: As in `dynamics`.
        sample_rate: Sample rate in Hz.
        mean: As in `dynamics`.

    Returns:
        As `dynamics`.
    """
    smoothed, makeup, zf = automated_gain(x, settings, zi, direction, sample_rate, mean)
    return (x.double() * torch.exp(smoothed.unsqueeze(-2) + makeup)).to(x.dtype), zf


def automated_gain(
    x: Tensor, settings: Sequence[Tensor], zi: Tensor, direction: int, sample_rate: float, mean: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The smoothed gain `(groups, samples)` and the makeup gain of the same, in float64, and the last of the former."""
    *curve, falling, rising, makeup = in_units_of_dynamics(direction, sample_rate, *settings)
    g = _gain_computer(x.double(), curve, _Shape(direction, mean)).g
    smoothed, zf = ballistics(g, falling.expand(g.shape), rising.expand(g.shape), zi)
    return smoothed, makeup, zf
