"""`prototypes(frequency_hz, gain_db, q, kinds, sample_rate) -> coefficients`: the cookbook in state-variable form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from dasp.kernels._biquads import KINDS, angle_root_q, limits
from dasp.kernels._library import advised, library
from dasp.kernels._registration import Operator, Tensors, in_double, register, transposed


def reference(kinds: Sequence[int], sample_rate: float, frequency_hz: Tensor, gain_db: Tensor, q: Tensor) -> Tensor:
    """In torch: `(rows, bands)` each to `(rows, bands, 5)` as g d m0 m1 m2."""
    w, root, sharpness = angle_root_q(sample_rate, frequency_hz, gain_db, q)
    tangent, bandwidth = torch.tan(w / 2), 1 / sharpness
    bands: list[Tensor] = []
    for band, kind in enumerate(kinds):
        g, k, *mixed = _prototype(KINDS[kind], *(term[:, band] for term in (tangent, bandwidth, root)))
        bands.append(torch.stack([g, 1 / (1 + g * (g + k)), *mixed], -1))
    return torch.stack(bands, 1)


def _prototype(kind: str, g: Tensor, k: Tensor, a: Tensor) -> tuple[Tensor, ...]:
    """g k m0 m1 m2 from g and k of the poles of a filter without gain, and A."""
    zero, one = torch.zeros_like(g), torch.ones_like(g)
    if kind == "low_shelf":
        return g / torch.sqrt(a), k, one, k * (a - 1), a * a - 1
    if kind == "high_shelf":
        return g * torch.sqrt(a), k, a * a, k * a * (1 - a), 1 - a * a
    if kind == "peaking":
        return g, k / a, one, k / a * (a * a - 1), zero
    if kind == "lowpass":
        return g, k, zero, zero, one
    if kind == "highpass":
        return g, k, one, -k, -one
    if kind == "bandpass":
        return g, k, zero, k, zero
    # Notch and all-pass.
    return g, k, one, -k if kind == "notch" else -2 * k, zero


def _compiled(controls: Sequence[Tensor]) -> bool:
    return controls[0].device.type == "cpu" and controls[0].numel() > 0 and library.available()


_vjp, _jvp = transposed(reference)


def _forward(kinds: Sequence[int], sample_rate: float, *inputs: Tensor) -> Tensors:
    controls = [value.double().contiguous() for value in inputs]
    if not _compiled(controls):
        return (reference(kinds, sample_rate, *controls),)
    coefficients = advised(controls[0].new_empty(*controls[0].shape, 5))
    given = limits(1 / sample_rate, sample_rate)
    library.call("prototypes", [*controls, given, coefficients, None, None, None], [*controls[0].shape, *kinds])
    return (coefficients,)


def _fake(kinds: Sequence[int], sample_rate: float, frequency_hz: Tensor, gain_db: Tensor, q: Tensor) -> Tensors:
    return (frequency_hz.new_empty(*frequency_hz.shape, 5, dtype=torch.float64),)


def _backward(
    kinds: Sequence[int], sample_rate: float, inputs: Tensors, saved: Tensors, grads: Tensors, needs: Sequence[bool]
) -> Tensors:
    if not _compiled(inputs):
        return in_double(partial(_vjp, kinds, sample_rate), like=0)(inputs, saved, grads)
    controls = [value.double().contiguous() for value in inputs]
    gradients = [advised(torch.empty_like(value)) for value in controls]
    given = limits(1 / sample_rate, sample_rate), grads[0].contiguous()
    library.call("prototypes_backward", [*controls, *given, *gradients], [*controls[0].shape, *kinds])
    return tuple(gradient.to(value.dtype) for gradient, value in zip(gradients, inputs, strict=True))


_call = register(
    Operator(
        "prototypes",
        ("frequency_hz", "gain_db", "q"),
        ("coefficients",),
        _forward,
        _fake,
        _backward,
        _vjp,
        _jvp,
        settings="int[] kinds, float sample_rate",
        any_device=True,
    )
)


def prototypes(frequency_hz: Tensor, gain_db: Tensor, q: Tensor, kinds: Sequence[str], sample_rate: float) -> Tensor:
    """Designs the filters of `biquads` in state-variable form.

    A section has the response m0 + (m1 s + m2) / (s^2 + k s + 1), s = (1 / g) (1 - z^-1) / (1 + z^-1).

    Args:
        frequency_hz: `(rows, bands)` of any type; each control acts as clamped as in `biquads`.
        gain_db: `(rows, bands)` of any type; kinds without a gain ignore it.
        q: `(rows, bands)` of any type.
        kinds: The kind of each band, from `KINDS`.
        sample_rate: Sample rate in Hz.

    Returns:
        `(rows, bands, 5)` in float64 as g d m0 m1 m2, d = 1 / (1 + g (g + k)).
    """
    (coefficients,) = _call(frequency_hz, gain_db, q, [KINDS.index(kind) for kind in kinds], float(sample_rate))
    return coefficients
