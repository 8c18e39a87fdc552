"""The delay beside a shift and beside Lagrange's polynomials, and its derivatives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.interpolate
import torch
from torch.autograd import gradcheck, gradgradcheck

from dasp.kernels import delay
from tests.cases import leaves
from tests.oracles import array, noise


def test_whole_samples_shift_to_the_bit():
    x = torch.from_numpy(noise(0, 8, 2, 9))
    y = array(delay(x, torch.arange(8, dtype=torch.float64), 12))
    for samples in range(8):
        assert np.array_equal(y[samples], np.pad(array(x)[samples], ((0, 0), (samples, 12)))[:, :12])


@pytest.mark.parametrize("samples", [1.2, 2.5, 3.75, 40.1])
def test_between_samples_four_are_interpolated(samples):
    x = noise(1, 60)
    y = array(delay(torch.from_numpy(x)[None, None], torch.tensor([samples], dtype=torch.float64), 60))[0, 0]
    for n in (50, 55, 59):
        first = n - math.floor(samples) - 2
        polynomial = scipy.interpolate.lagrange(np.arange(4), x[first : first + 4])
        assert y[n] == pytest.approx(polynomial(n - samples - first), abs=1e-12)


@pytest.mark.parametrize("length", [1, 9])
def test_gradients_of_any_order_and_mode(length):
    samples = torch.tensor([0.3, 6.7, 100.5], dtype=torch.float64)
    points = leaves(torch.from_numpy(noise(2, 3, 1, 7)), samples)

    def run(x: torch.Tensor, late: torch.Tensor) -> torch.Tensor:
        return delay(x, late, length)

    assert gradcheck(run, points, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True)
    assert gradgradcheck(run, points, check_fwd_over_rev=True)


def test_registration_is_sound():
    x, samples = torch.from_numpy(noise(3, 3, 2, 9)).float(), torch.tensor([0.0, 1.5, 7.25])
    torch.library.opcheck(torch.ops.dasp.delay.default, (*leaves(x, samples), 11))
    gy = torch.ones(3, 2, 11)
    torch.library.opcheck(torch.ops.dasp.delay_backward.default, (x, samples, gy, 11, [True, True]))


def test_vmap_equals_a_loop():
    x, samples = torch.from_numpy(noise(4, 3, 2, 2, 9)), torch.from_numpy(noise(5, 3, 2)).abs() * 4
    got = torch.func.vmap(lambda a, b: delay(a, b, 12))(x, samples)
    assert torch.equal(got, torch.stack([delay(a, b, 12) for a, b in zip(x, samples, strict=True)]))
