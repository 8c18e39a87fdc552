"""A matrix of gains: against the product in float64, with its gradients, over blocks and stretches of samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from dasp.kernels import mix
from tests.cases import LAYOUTS, assert_close, leaves
from tests.operators import all_gradients

# (rows, inputs, outputs, samples): one of each; around blocks of 256 samples; more than one stretch of 16384.
SHAPES = [(1, 1, 1, 1), (2, 1, 2, 255), (3, 8, 1, 257), (2, 3, 4, 1000), (1, 2, 2, 40000)]


def inputs(rows: int, count: int, outputs: int, samples: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(samples)
    x = torch.randn(rows, count, samples, generator=generator, dtype=torch.float64).to(dtype)
    return [x, torch.randn(rows, outputs, count, generator=generator, dtype=torch.float64)]


def run(x: Tensor, gains: Tensor) -> tuple[Tensor]:
    return (mix(x, gains),)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2.0**-23), (torch.float64, 1e-14)])
def test_equals_the_product_in_float64(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    given = inputs(*shape, dtype)
    (y,), grads = all_gradients(run, given)
    exact = [value.double() for value in given]
    (want,), want_grads = all_gradients(lambda x, gains: (torch.bmm(gains, x),), exact)
    assert y.dtype == dtype
    assert_close(y.double(), want, tolerance)
    for grad, value, exact_grad in zip(grads, given, want_grads, strict=True):
        assert grad.dtype == value.dtype
        assert_close(grad.double(), exact_grad, 4 * tolerance)


def test_derivatives_of_any_order_and_mode() -> None:
    given = leaves(*inputs(2, 3, 2, 7))
    assert gradcheck(mix, given, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True)
    assert gradgradcheck(mix, given, check_fwd_over_rev=True)


def test_registration_is_sound() -> None:
    given = inputs(2, 3, 2, 20, torch.float32)
    torch.library.opcheck(torch.ops.dasp.mix.default, leaves(*given))
    torch.library.opcheck(torch.ops.dasp.mix_backward.default, [*given, torch.randn(2, 2, 20), [True, True]])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_in_memory_changes_nothing(layout: str) -> None:
    given = inputs(2, 3, 2, 70, torch.float32)
    got, want = all_gradients(run, [LAYOUTS[layout](value) for value in given]), all_gradients(run, given)
    assert all(torch.equal(*pair) for pair in zip((*got[0], *got[1]), (*want[0], *want[1]), strict=True))


@pytest.mark.usefixtures("threads")
def test_results_do_not_depend_on_threads() -> None:
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        outputs, grads = all_gradients(run, inputs(3, 4, 2, 50000, torch.float32))
        results.append((*outputs, *grads))
    for other in results[1:]:
        assert all(torch.equal(*pair) for pair in zip(results[0], other, strict=True))


def test_bad_values_stay_in_their_item() -> None:
    given = inputs(3, 2, 2, 300, torch.float32)
    clean, clean_grads = all_gradients(run, given)
    for position in range(2):
        bad = [value.clone() for value in given]
        bad[position][1].view(-1)[0] = math.nan
        got, grads = all_gradients(run, bad)
        for part, whole in zip((*got, *grads), (*clean, *clean_grads), strict=True):
            assert torch.equal(part[[0, 2]], whole[[0, 2]])


def test_no_items_and_no_samples() -> None:
    for rows, samples in ((0, 10), (2, 0)):
        (y,), (gx, ggains) = all_gradients(run, inputs(rows, 3, 2, samples, torch.float32))
        assert y.shape == (rows, 2, samples)
        assert gx.shape == (rows, 3, samples)
        assert ggains.shape == (rows, 2, 3)
        assert not bool(ggains.any())
