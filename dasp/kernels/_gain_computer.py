"""`gain_computer(controls, direction, sample_rate) -> (curve, poles, makeup)`: dB and ms in units of `dynamics`."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dasp.kernels._library import library
from dasp.kernels._registration import CHECKPOINTS, Operator, Tensors, nothing, register, transposed

DYNAMICS_CONTROLS = ("threshold_db", "ratio", "knee_db", "range_db", "attack_ms", "release_ms", "makeup_gain_db")
"""The columns that the controls come in."""

# Natural-logarithm units per dB: levels and gains are computed as logarithms to base e, which saves a multiplication
# per sample on both sides of the smoother.
_NEPER = math.log(10) / 20
# Thresholds act as clamped to this range, beyond any level that 32-bit audio can hold.
_THRESHOLD_DB = 200.0
# A ratio beyond this moves the gain by less than a millionth of a dB, or is cut by the range of an expander.
_EXPANDER_RATIO = 1e4
# A time constant of less than this many samples has a pole below 1e-43.
_SHORTEST = 0.01


def reference(direction: int, sample_rate: float, controls: Tensor) -> Tensors:
    """The same in torch: `(rows, 7)` to curve `(rows, 4)`, poles `(rows, 2)` and makeup `(rows, 1)`."""
    columns = in_units_of_dynamics(direction, sample_rate, *controls.unbind(-1))
    return torch.stack(columns[:4], -1), torch.stack(columns[4:6], -1), columns[6].unsqueeze(-1)


def in_units_of_dynamics(
    direction: int,
    sample_rate: float,
    threshold: Tensor,
    ratio: Tensor,
    knee: Tensor,
    limit: Tensor,
    attack: Tensor,
    release: Tensor,
    makeup: Tensor,
) -> Tensors:
    """Controls of any shapes in the order of `DYNAMICS_CONTROLS` to four of the curve, two poles and makeup."""
    # A compressor attacks while its gain falls, an expander while it rises.
    times = (attack, release) if direction == 1 else (release, attack)
    return (
        threshold.clamp(-_THRESHOLD_DB, _THRESHOLD_DB) * _NEPER,
        1 / ratio.clamp_min(1) - 1 if direction == 1 else 1 - ratio.clamp(1, _EXPANDER_RATIO),
        knee.clamp_min(0) * _NEPER,
        limit.clamp_min(0) * _NEPER,
        *(_pole(time, sample_rate) for time in times),
        makeup * _NEPER,
    )


def _pole(time_ms: Tensor, sample_rate: float) -> Tensor:
    """exp(-1 / (t sample_rate)); 0 for times so short that nobody could tell, with gradient 0 and not NaN."""
    samples = time_ms * (sample_rate / 1000)
    audible = samples > _SHORTEST
    return torch.where(audible, torch.exp(-1 / torch.where(audible, samples, 1.0)), 0.0)


_vjp, _jvp = transposed(reference)


def _forward(direction: int, sample_rate: float, controls: Tensor, differentiable: bool = True) -> Tensors:
    if controls.device.type != "cpu" or not library.available() or not controls.numel():
        return *reference(direction, sample_rate, controls), nothing(controls)
    controls = controls.contiguous()
    rows = controls.shape[0]
    results = [controls.new_empty(rows, columns) for columns in (4, 2, 1)]
    slopes = torch.empty_like(controls) if differentiable else None
    limits = (ctypes.c_double * 5)(sample_rate / 1000, _NEPER, _THRESHOLD_DB, _EXPANDER_RATIO, _SHORTEST)
    library.call("gain_computer", [controls, limits, *results, slopes], [rows, direction])
    return *results, nothing(controls) if slopes is None else slopes


def _fake(direction: int, sample_rate: float, controls: Tensor, differentiable: bool = True) -> Tensors:
    compiled = differentiable and controls.device.type == "cpu" and library.available()
    slopes = torch.empty_like(controls, memory_format=torch.contiguous_format) if compiled else nothing(controls)
    return *(controls.new_empty(controls.shape[0], columns) for columns in (4, 2, 1)), slopes


def _backward(
    direction: int, sample_rate: float, inputs: Tensors, saved: Tensors, grads: Tensors, needs: Sequence[bool]
) -> Tensors:
    (slopes,) = saved
    if not slopes.numel():
        return _vjp(direction, sample_rate, inputs, saved, grads)
    gcontrols = torch.empty_like(slopes)
    arrays = [*(grad.contiguous() for grad in grads), slopes, gcontrols]
    library.call("gain_computer_backward", arrays, [slopes.shape[0], direction])
    return (gcontrols,)


_call = register(
    Operator(
        "gain_computer",
        ("controls",),
        ("curve", "poles", "makeup"),
        _forward,
        _fake,
        _backward,
        _vjp,
        _jvp,
        saved=(CHECKPOINTS,),
        settings="int direction, float sample_rate",
        any_device=True,
    )
)


def gain_computer(controls: Tensor, direction: int, sample_rate: float) -> tuple[Tensor, Tensor, Tensor]:
    """Brings the controls of a compressor (direction 1) or expander (-1) to the units of `dynamics`.

    Args:
        controls: `(rows, 7)` in float64, in the order of `DYNAMICS_CONTROLS`.  The threshold acts as clamped to
            [-200, 200], the ratio to [1, inf] or of an expander [1, 10000], knee and range to [0, inf], each with
            gradient 0 outside; a time of 0 ms or less is instantaneous.
        direction: 1 acts above the threshold, -1 below it.
        sample_rate: Sample rate in Hz.

    Returns:
        curve `(rows, 4)`, poles `(rows, 2)` and makeup `(rows, 1)` in float64.
    """
    curve, poles, makeup = _call(controls, direction, float(sample_rate))
    return curve, poles, makeup
