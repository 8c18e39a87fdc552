"""`biquads(frequency_hz, gain_db, q, kinds, sample_rate) -> sos`: filters of the Audio EQ Cookbook."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from dasp.kernels._library import library
from dasp.kernels._registration import CHECKPOINTS, Operator, Tensors, in_double, nothing, register, transposed

KINDS = ("lowpass", "highpass", "bandpass", "notch", "allpass", "peaking", "low_shelf", "high_shelf")
"""The eight filters of the Audio EQ Cookbook; the kernel counts them from 0."""

# Beyond these a design has no filter to give: a frequency of 0 Hz or Nyquist puts poles on the unit circle, and Q is a
# divisor.  1 Hz is the lowest of reliable double precision at 192 kHz.
_LOWEST_HZ = 1.0
_HIGHEST_OF_RATE = 0.499
_LOWEST_Q, _HIGHEST_Q = 1e-3, 1e3
_CONTROLS = 3


def limits(scale: float, sample_rate: float) -> ctypes.Array[ctypes.c_double]:
    """What a kernel multiplies frequencies with, and the lowest and the highest frequency and q."""
    return (ctypes.c_double * 5)(scale, _LOWEST_HZ, _HIGHEST_OF_RATE * sample_rate, _LOWEST_Q, _HIGHEST_Q)


def angle_root_q(sample_rate: float, frequency_hz: Tensor, gain_db: Tensor, q: Tensor) -> Tensors:
    """Controls within their limits as the cookbook uses them: w, A and Q."""
    return (
        (2 * math.pi / sample_rate) * frequency_hz.clamp(_LOWEST_HZ, _HIGHEST_OF_RATE * sample_rate),
        torch.exp(gain_db * (math.log(10) / 40)),
        q.clamp(_LOWEST_Q, _HIGHEST_Q),
    )


def reference(kinds: Sequence[int], sample_rate: float, frequency_hz: Tensor, gain_db: Tensor, q: Tensor) -> Tensor:
    """The cookbook in torch: `(rows, bands)` each to `(rows, bands, 5)` as b0 b1 b2 a1 a2."""
    w, root, sharpness = angle_root_q(sample_rate, frequency_hz, gain_db, q)
    cos, sin = torch.cos(w), torch.sin(w)
    alpha = sin / (2 * sharpness)
    # 1 - cos(w) without cancellation, for low-pass filters at low frequencies.
    versine = 2 * torch.sin(w / 2).square()
    columns: list[Tensor] = []
    for band, kind in enumerate(kinds):
        b0, b1, b2, a0, a1, a2 = _cookbook(KINDS[kind], *(term[:, band] for term in (cos, alpha, root, versine)))
        columns.append(torch.stack([b0, b1, b2, a1, a2], -1) / a0.unsqueeze(-1))
    return torch.stack(columns, 1)


def _cookbook(kind: str, cos: Tensor, alpha: Tensor, root: Tensor, versine: Tensor) -> tuple[Tensor, ...]:
    """b0 b1 b2 a0 a1 a2 of the cookbook, before division by a0."""
    if kind in ("low_shelf", "high_shelf"):
        # The high shelf is the low shelf mirrored in frequency: cos changes its sign, and so do b1 and a1.
        mirror = 1 if kind == "low_shelf" else -1
        cos = mirror * cos
        plus, minus, slope = root + 1, root - 1, 2 * torch.sqrt(root) * alpha
        return (
            root * (plus - minus * cos + slope),
            mirror * 2 * root * (minus - plus * cos),
            root * (plus - minus * cos - slope),
            plus + minus * cos + slope,
            mirror * -2 * (minus + plus * cos),
            plus + minus * cos - slope,
        )
    if kind == "peaking":
        numerator = (1 + alpha * root, -2 * cos, 1 - alpha * root)
        return (*numerator, 1 + alpha / root, -2 * cos, 1 - alpha / root)
    if kind == "lowpass":
        numerator = (versine / 2, versine, versine / 2)
    elif kind == "highpass":
        numerator = ((1 + cos) / 2, -(1 + cos), (1 + cos) / 2)
    elif kind == "bandpass":
        numerator = (alpha, torch.zeros_like(alpha), -alpha)
    elif kind == "notch":
        numerator = (torch.ones_like(cos), -2 * cos, torch.ones_like(cos))
    else:
        numerator = (1 - alpha, -2 * cos, 1 + alpha)
    return (*numerator, 1 + alpha, -2 * cos, 1 - alpha)


def _slopes(frequency_hz: Tensor) -> Tensor:
    """Room for the derivatives of the coefficients by the three controls."""
    return frequency_hz.new_empty(*frequency_hz.shape, 5, _CONTROLS, dtype=torch.float64)


_vjp, _jvp = transposed(reference)


def _forward(
    kinds: Sequence[int],
    sample_rate: float,
    frequency_hz: Tensor,
    gain_db: Tensor,
    q: Tensor,
    differentiable: bool = True,
) -> Tensors:
    controls = [value.double().contiguous() for value in (frequency_hz, gain_db, q)]
    # A few operators of torch on another device, for a copy to the CPU and back would wait for it.
    if frequency_hz.device.type != "cpu" or not library.available() or not frequency_hz.numel():
        return reference(kinds, sample_rate, *controls), nothing(controls[0])
    sos = controls[0].new_empty(*frequency_hz.shape, 5)
    slopes = _slopes(frequency_hz) if differentiable else None
    library.call(
        "biquads",
        [*controls, limits(2 * math.pi / sample_rate, sample_rate), sos, slopes],
        [*frequency_hz.shape, *kinds],
    )
    return sos, nothing(sos) if slopes is None else slopes


def _fake(
    kinds: Sequence[int],
    sample_rate: float,
    frequency_hz: Tensor,
    gain_db: Tensor,
    q: Tensor,
    differentiable: bool = True,
) -> Tensors:
    compiled = differentiable and frequency_hz.device.type == "cpu" and library.available()
    sos = frequency_hz.new_empty(*frequency_hz.shape, 5, dtype=torch.float64)
    return sos, _slopes(frequency_hz) if compiled else nothing(sos)


def _backward(
    kinds: Sequence[int], sample_rate: float, inputs: Tensors, saved: Tensors, grads: Tensors, needs: Sequence[bool]
) -> Tensors:
    (slopes,) = saved
    if not slopes.numel():
        return in_double(partial(_vjp, kinds, sample_rate), like=0)(inputs, saved, grads)
    gradients = slopes.new_empty(_CONTROLS, *inputs[0].shape).unbind()
    library.call("biquads_backward", [grads[0].contiguous(), slopes, *gradients], list(inputs[0].shape))
    return tuple(gradient.to(value.dtype) for gradient, value in zip(gradients, inputs, strict=True))


_call = register(
    Operator(
        "biquads",
        ("frequency_hz", "gain_db", "q"),
        ("sos",),
        _forward,
        _fake,
        _backward,
        _vjp,
        _jvp,
        saved=(CHECKPOINTS,),
        settings="int[] kinds, float sample_rate",
        any_device=True,
    )
)


def biquads(frequency_hz: Tensor, gain_db: Tensor, q: Tensor, kinds: Sequence[str], sample_rate: float) -> Tensor:
    """Designs cascades of filters of the Audio EQ Cookbook.

    Args:
        frequency_hz: `(rows, bands)` of any type, acting as clamped to [1 Hz, 0.499 sample_rate].
        gain_db: `(rows, bands)` of any type; kinds without a gain ignore it.
        q: `(rows, bands)` of any type, acting as clamped to [0.001, 1000].
        kinds: The kind of each band, from `KINDS`.
        sample_rate: Sample rate in Hz.

    Returns:
        `(rows, bands, 5)` in float64 as b0 b1 b2 a1 a2, a0 = 1.
    """
    (sos,) = _call(frequency_hz, gain_db, q, [KINDS.index(kind) for kind in kinds], float(sample_rate))
    return sos
