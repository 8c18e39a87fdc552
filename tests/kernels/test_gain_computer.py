"""The controls of dynamics in the units of the kernel: the design and its derivatives against the same in torch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from dasp.kernels import gain_computer
from dasp.kernels._gain_computer import DYNAMICS_CONTROLS, reference
from tests.cases import leaves

RATE = 44100.0
each_direction = pytest.mark.parametrize("direction", [1, -1])

# Beyond the limits on both sides.
WIDE = {
    "threshold_db": (-300.0, 300.0),
    "ratio": (-2.0, 20.0),
    "knee_db": (-6.0, 24.0),
    "range_db": (-10.0, 80.0),
    "attack_ms": (-1.0, 200.0),
    "release_ms": (-10.0, 2000.0),
    "makeup_gain_db": (-24.0, 24.0),
}


def controls(ranges: dict[str, tuple[float, float]], rows: int) -> Tensor:
    unit = torch.rand(len(DYNAMICS_CONTROLS), rows, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = [low + (high - low) * u for u, (low, high) in zip(unit, ranges.values(), strict=True)]
    return torch.stack(drawn, -1)


@each_direction
def test_equals_the_reference_with_gradients_within_and_beyond_its_limits(direction: int) -> None:
    ends = torch.tensor([[-200, 1, 0, 0, 0, 0, 0], [200, 1e4, 24, math.inf, 1e-5, 2e-4, 24]], dtype=torch.float64)
    at_infinity = torch.tensor([[-20.0, math.inf, 6.0, math.inf, 10.0, math.inf, 0.0]], dtype=torch.float64)
    (inputs,) = leaves(torch.cat([controls(WIDE, 60), ends, at_infinity]))
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(63, columns, generator=generator, dtype=torch.float64) for columns in (4, 2, 1)]
    weights[0][-2:, 3] = 0  # An infinite range has no derivative.
    results = []
    for outputs in (gain_computer(inputs, direction, RATE), reference(direction, RATE, inputs)):
        finite = [torch.where(output.isfinite(), output, 0) for output in outputs]
        results.append((*(output.detach() for output in outputs), torch.autograd.grad(finite, inputs, weights)[0]))
    # A few roundings each.
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-14, atol=0)
    outside = inputs < torch.tensor([-200.0, 1, 0, 0, 0, 0, -math.inf])
    assert outside.any()
    assert (results[0][-1][outside] == 0).all()


@each_direction
def test_derivatives_of_any_order_and_mode(direction: int) -> None:
    ranges = {
        **WIDE,
        "threshold_db": (-60.0, 0.0),
        "ratio": (1.5, 20.0),
        "knee_db": (1.0, 24.0),
        "range_db": (1.0, 80.0),
    }
    ranges |= {"attack_ms": (0.1, 200.0), "release_ms": (5.0, 2000.0)}
    inputs = leaves(controls(ranges, 3))

    def design(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return gain_computer(values, direction, RATE)

    assert gradcheck(design, inputs, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True)
    assert gradgradcheck(design, inputs, check_fwd_over_rev=True, fast_mode=True)


@each_direction
def test_registration_is_sound(direction: int) -> None:
    torch.library.opcheck(torch.ops.dasp.gain_computer.default, (*leaves(controls(WIDE, 3)), direction, RATE))
