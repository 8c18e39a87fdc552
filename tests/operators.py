"""The kernels' operators, each with its reference and inputs to test it with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from dasp.kernels import ballistics, dynamics, recurrence, reference, sosfilt, svf
from dasp.kernels._dynamics import unfused

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class KernelCase:
    """An operator.

    Attributes:
        name: Its name in `torch.ops.dasp`.
        run: The function that is called.
        reference: The same as a loop or in elementary steps.
        differentiable: The reference in a form that autograd takes.
        inputs: Makes inputs from `(rows, samples, dtype, seed)`; the first is audio, and each has rows in front, or the
            number of filters, which divides that of rows.
        saved: Which of the operator's results its backward pass gets.
        variant: What tells it from another case of the same operator.
    """

    name: str
    run: Callable[..., Tensors]
    reference: Callable[..., Tensors]
    differentiable: Callable[..., Tensors]
    inputs: Callable[[int, int, torch.dtype, int], Tensors]
    saved: tuple[int, ...] = ()
    variant: str = ""

    def __repr__(self) -> str:
        return f"{self.name}-{self.variant}" if self.variant else self.name

    @property
    def operator(self) -> Any:
        return getattr(torch.ops.dasp, self.name).default

    @property
    def backward_operator(self) -> Any:
        return getattr(torch.ops.dasp, f"{self.name}_backward").default


def stable_sections(filters: int, sections: int, generator: torch.Generator) -> Tensor:
    """`(filters, sections, 5)` with poles at radii up to 0.9."""
    radius, angle = torch.rand(2, filters, sections, generator=generator, dtype=torch.float64)
    radius, angle = 0.9 * radius, torch.pi * angle
    numerator = torch.randn(filters, sections, 3, generator=generator, dtype=torch.float64) / 2
    denominator = torch.stack([-2 * radius * torch.cos(angle), radius * radius], -1)
    return torch.cat([numerator, denominator], -1)


def sosfilt_inputs(
    rows: int,
    samples: int,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    sections: int = 3,
    filters: int | None = None,
) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(rows, samples, generator=generator, dtype=torch.float64).to(dtype),
        stable_sections(rows if filters is None else filters, sections, generator),
        torch.randn(rows, sections, 2, generator=generator, dtype=torch.float64),
    )


def svf_inputs(
    rows: int,
    samples: int,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    sections: int = 3,
    filters: int | None = None,
    frames: int | None = None,
) -> Tensors:
    """Coefficients of every sample are drawn by themselves."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, samples, generator=generator, dtype=torch.float64).to(dtype)
    shape = (rows if filters is None else filters, samples if frames is None else frames, sections)
    g, k = (4 * torch.rand(2, *shape, generator=generator, dtype=torch.float64) - 3).exp().unbind()
    mixed = torch.randn(*shape, 3, generator=generator, dtype=torch.float64) / 2
    coefficients = torch.cat([torch.stack([g, 1 / (1 + g * (g + k))], -1), mixed], -1)
    return x, coefficients, torch.randn(rows, sections, 2, generator=generator, dtype=torch.float64)


def ballistics_inputs(rows: int, samples: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    g = torch.randn(rows, samples, generator=generator, dtype=torch.float64).to(dtype)
    attack, release, zi = torch.rand(3, rows, generator=generator, dtype=torch.float64)
    return g, attack, release, zi


def varying_ballistics_inputs(rows: int, samples: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    g = torch.randn(rows, samples, generator=generator, dtype=torch.float64).to(dtype)
    poles = torch.rand(2, rows, samples, generator=generator, dtype=torch.float64)
    return g, *poles.unbind(), torch.rand(rows, generator=generator, dtype=torch.float64)


def recurrence_inputs(rows: int, samples: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    a, x = torch.randn(2, rows, samples, generator=generator, dtype=torch.float64)
    return a.tanh().to(dtype), x.to(dtype), torch.randn(rows, generator=generator, dtype=torch.float64)


def dynamics_inputs(
    rows: int, samples: int, dtype: torch.dtype = torch.float64, seed: int = 0, channels: int = 2, direction: int = 1
) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, channels, samples, generator=generator, dtype=torch.float64).to(dtype)
    unit = torch.rand(rows, 4, generator=generator, dtype=torch.float64)
    slope = -0.1 - 0.8 * unit[:, 1] if direction == 1 else -0.5 - 4 * unit[:, 1]
    curve = torch.stack([-2 * unit[:, 0], slope, 0.2 + unit[:, 2], 1 + 4 * unit[:, 3]], -1)
    poles = torch.rand(rows, 2, generator=generator, dtype=torch.float64)
    makeup = torch.rand(rows, channels, generator=generator, dtype=torch.float64)
    return x, curve, poles, makeup, -torch.rand(rows, generator=generator, dtype=torch.float64)


def _unfused_in_float64(direction: int, mean: bool, *inputs: Tensor) -> Tensors:
    y, zf = unfused(*(value.double() for value in inputs), direction, mean)
    return y.to(inputs[0].dtype), zf


def _dynamics_case(name: str, direction: int, mean: bool) -> KernelCase:
    elementary = partial(_unfused_in_float64, direction, mean)
    inputs = partial(dynamics_inputs, direction=direction)
    run = lambda *values: dynamics(*values, direction, mean)  # noqa: E731
    return KernelCase(name, run, elementary, elementary, inputs, saved=(2,))


def _sosfilt_out_of_place(x: Tensor, sos: Tensor, zi: Tensor) -> Tensors:
    sos = sos.repeat_interleave(x.shape[0] // max(1, sos.shape[0]), 0)
    final = []
    for section, state in zip(sos.unbind(1), zi.unbind(1), strict=True):
        b0, b1, b2, a1, a2 = section.unbind(-1)
        s1, s2 = state.unbind(-1)
        signal = []
        for u in x.unbind(-1):
            v = b0 * u + s1
            s1, s2 = b1 * u - a1 * v + s2, b2 * u - a2 * v
            signal.append(v)
        x = torch.stack(signal, -1)
        final.append(torch.stack([s1, s2], -1))
    return x, torch.stack(final, 1)


KERNELS = [
    KernelCase("sosfilt", sosfilt, reference.sosfilt, _sosfilt_out_of_place, sosfilt_inputs, saved=(2,)),
    KernelCase("svf", svf, reference.svf, reference.svf, svf_inputs, saved=(2,)),
    KernelCase("ballistics", ballistics, reference.ballistics, reference.ballistics, ballistics_inputs),
    KernelCase(
        "ballistics",
        ballistics,
        reference.ballistics,
        reference.ballistics,
        varying_ballistics_inputs,
        variant="varying",
    ),
    KernelCase("recurrence", recurrence, reference.recurrence, reference.recurrence, recurrence_inputs, saved=(0,)),
    _dynamics_case("compress_max", 1, False),
    _dynamics_case("compress_mean", 1, True),
    _dynamics_case("expand_max", -1, False),
    _dynamics_case("expand_mean", -1, True),
]
each_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=repr)


def all_gradients(run: Callable[..., Tensors], inputs: Sequence[Tensor], seed: int = 9) -> tuple[Tensors, Tensors]:
    """Outputs, and gradients of all inputs with noise as gradients of all outputs."""
    points = [value.detach().requires_grad_() for value in inputs]
    outputs = run(*points)
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype) for out in outputs]
    return tuple(out.detach() for out in outputs), torch.autograd.grad(outputs, points, weights)
