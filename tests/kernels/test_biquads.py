"""The design of filters: the kernel and its derivatives against the cookbook in torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from dasp.kernels import KINDS, biquads
from dasp.kernels._biquads import reference
from tests.cases import leaves

RATE = 44100.0


def controls(low_hz: float, high_hz: float, low_q: float, high_q: float, rows: int = 40) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    f, g, q = torch.rand(3, rows, len(KINDS), generator=generator, dtype=torch.float64)
    return low_hz * (high_hz / low_hz) ** f, 48 * g - 24, low_q * (high_q / low_q) ** q


def design(*values: Tensor) -> Tensor:
    return biquads(*values, KINDS, RATE)


def test_equals_the_cookbook_with_gradients_within_and_beyond_its_limits() -> None:
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


def test_derivatives_of_any_order_and_mode() -> None:
    inputs = leaves(*controls(50.0, 15000.0, 0.1, 10.0, rows=2))
    assert gradcheck(design, inputs, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True)
    assert gradgradcheck(design, inputs, check_fwd_over_rev=True, fast_mode=True)


def test_registration_is_sound() -> None:
    inputs = leaves(*controls(50.0, 15000.0, 0.1, 10.0, rows=3))
    torch.library.opcheck(torch.ops.dasp.biquads.default, (*inputs, list(range(len(KINDS))), RATE))


def test_no_gain_passes_to_the_bit() -> None:
    f, g, q = controls(20.0, 20000.0, 0.1, 10.0)
    b0, b1, b2, a1, a2 = design(f, torch.zeros_like(g), q)[:, KINDS.index("peaking") :].unbind(-1)
    assert (b0 == 1).all()
    assert torch.equal(b1, a1)
    assert torch.equal(b2, a2)
