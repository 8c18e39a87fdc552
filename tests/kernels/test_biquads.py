"""The design of filters in both forms: the kernels and their derivatives against the cookbook in torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from dasp.kernels import KINDS, _biquads, _prototypes
from tests.cases import leaves

RATE = 44100.0
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def controls(low_hz: float, high_hz: float, low_q: float, high_q: float, rows: int = 40) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    f, g, q = torch.rand(3, rows, len(KINDS), generator=generator, dtype=torch.float64)
    return low_hz * (high_hz / low_hz) ** f, 48 * g - 24, low_q * (high_q / low_q) ** q


Design = Callable[..., Tensor]


def biquads(*values: Tensor) -> Tensor:
    return _biquads.biquads(*values, KINDS, RATE)


def prototypes(*values: Tensor) -> Tensor:
    return _prototypes.prototypes(*values, KINDS, RATE)


each_design = pytest.mark.parametrize("design", [biquads, prototypes])


@pytest.mark.parametrize(("design", "reference"), [(biquads, _biquads.reference), (prototypes, _prototypes.reference)])
def test_equals_the_cookbook_with_gradients_within_and_beyond_its_limits(design: Design, reference: Design) -> None:
    inputs = leaves(*controls(0.1, 40000.0, 1e-4, 1e4))
    weights = torch.randn(40, len(KINDS), 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    results = []
    for make in (design, lambda *values: reference(range(len(KINDS)), RATE, *values)):
        sos = make(*inputs)
        results.append((sos.detach(), *torch.autograd.grad(sos, inputs, weights)))
    # Roundings of terms of the size of 1, which a0 divides; derivatives are relative to the largest of their control.
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-12 * want.abs().max().item())
    outside = (inputs[0] < 1) | (inputs[0] > 0.499 * RATE)
    assert outside.any()
    assert (results[0][1][outside] == 0).all()


@each_design
def test_derivatives_of_any_order_and_mode(design: Design) -> None:
    inputs = leaves(*controls(50.0, 15000.0, 0.1, 10.0, rows=2))
    assert gradcheck(design, inputs, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True)
    assert gradgradcheck(design, inputs, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("name", ["biquads", "prototypes"])
def test_registration_is_sound(name: str) -> None:
    operator = getattr(torch.ops.dasp, name).default
    inputs = leaves(*controls(50.0, 15000.0, 0.1, 10.0, rows=3))
    torch.library.opcheck(operator, (*inputs, list(range(len(KINDS))), RATE))
    torch.library.opcheck(operator, (*(value.detach().float() for value in inputs), list(range(len(KINDS))), RATE))


@each_design
def test_gradients_have_the_types_of_their_controls(design: Design) -> None:
    inputs = [v.to(t).requires_grad_() for v, t in zip(controls(50.0, 15000.0, 0.1, 10.0), DTYPES, strict=True)]
    out = design(*inputs)
    assert out.dtype == torch.float64
    assert [grad.dtype for grad in torch.autograd.grad(out.sum(), inputs)] == DTYPES


def test_no_gain_passes_to_the_bit() -> None:
    f, g, q = controls(20.0, 20000.0, 0.1, 10.0)
    b0, b1, b2, a1, a2 = biquads(f, torch.zeros_like(g), q)[:, KINDS.index("peaking") :].unbind(-1)
    assert (b0 == 1).all()
    assert torch.equal(b1, a1)
    assert torch.equal(b2, a2)
    m0, m1, m2 = prototypes(f, torch.zeros_like(g), q)[:, KINDS.index("peaking") :, 2:].unbind(-1)
    assert (m0 == 1).all()
    assert not m1.any()
    assert not m2.any()
