"""Convolution by partitioned FFT beside the direct sum, with its derivatives, precision and memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from benchmarks.measure import peak_memory
from dasp.kernels import _convolution, convolve
from tests.cases import LAYOUTS, assert_close, leaves
from tests.oracles import array, noise
from tests.strategies import seeds

Tensors = tuple[Tensor, ...]

# Some 15 roundings in each of three transforms, of values no larger than the sum of all products.
FFT_64 = 1e-13


def inputs(
    samples: int,
    taps: int,
    past: int = 0,
    rows: int = 1,
    filters: int = 1,
    channels: int = 1,
    own: int = 1,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((rows, channels, samples), (filters, own, taps), (rows, channels, past))
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes)


def direct(x: Tensor, h: Tensor, zi: Tensor) -> Tensor:
    """The sum as it is written, by torch's convolution of neural networks."""
    signal = torch.cat([zi, x], -1)
    channels = max(x.shape[1], h.shape[1])
    weights = h.repeat_interleave(x.shape[0] // h.shape[0], 0).expand(-1, channels, -1).reshape(-1, 1, h.shape[-1])
    rows = signal.expand(-1, channels, -1).reshape(1, -1, signal.shape[-1])
    padded = torch.nn.functional.pad(rows, (h.shape[-1] - 1, 0))
    y = torch.nn.functional.conv1d(padded, weights.flip(-1), groups=weights.shape[0])
    return y.reshape(x.shape[0], channels, -1)[..., zi.shape[-1] :]


def scale(values: Tensors) -> float:
    """What the rounding of a transform is relative to: the largest sum that a sample could be."""
    x, h, zi = values
    return float(torch.cat([zi, x], -1).abs().amax() * h.abs().sum(-1).amax())


def gradients(run: Callable[..., Tensor], values: Tensors) -> Tensors:
    points = leaves(*values)
    y = run(*points)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64).to(y.dtype)
    return torch.autograd.grad(y, points, weights, materialize_grads=True, allow_unused=True)


@pytest.fixture(params=[(None, 2**17), (32, 2**17), (32, 64), (128, 500)], ids=str)
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transforms of a fixed length and few values in a call, so that short signals take all ways of long ones."""
    size, values = request.param

    def plan(samples: int, taps: int, past: int) -> _convolution._Plan:
        if size >= taps:
            return _convolution._Plan(size, size - taps + 1, taps, 1)
        return _convolution._Plan(size, size // 2, size // 2, math.ceil(taps / (size // 2)))

    monkeypatch.setattr(_convolution, "_VALUES_ON_CPU", values)
    if size is not None:
        monkeypatch.setattr(_convolution, "_plan", plan)


# Odd, even, prime and single lengths; more taps than samples; less, as much and more past than is heard.
LENGTHS = [
    (1, 1, 0),
    (1, 5, 2),
    (7, 2, 9),
    (64, 64, 63),
    (64, 65, 0),
    (251, 1009, 1008),
    (997, 499, 498),
    (1000, 128, 50),
    (3, 700, 699),
]
# Rows, filters, channels of x and of h.
SHAPES = [(1, 1, 1, 1), (4, 2, 1, 2), (4, 4, 2, 2), (3, 1, 2, 1)]


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_results_and_gradients_are_those_of_the_direct_sum(lengths):
    for shape in SHAPES:
        values = inputs(*lengths, *shape)
        assert_close(convolve(*values), direct(*values), FFT_64, scale(values))
        for got, want in zip(gradients(convolve, values), gradients(direct, values), strict=True):
            assert_close(got, want, 10 * FFT_64)


@given(samples=st.integers(1, 3000), taps=st.integers(1, 3000), past=st.integers(0, 300), seed=seeds)
def test_any_lengths_equal_scipys_direct_convolution(samples, taps, past, seed):
    x, h, zi = inputs(samples, taps, past, seed=seed)
    want = scipy.signal.convolve(array(torch.cat([zi, x], -1))[0, 0], array(h)[0, 0], method="direct")
    got = array(convolve(x, h, zi))[0, 0]
    assert np.abs(got - want[past : past + samples]).max() <= FFT_64 * scale((x, h, zi))


def test_long_audio_equals_overlap_add():
    x, h, zi = inputs(300007, 44101)
    want = scipy.signal.oaconvolve(array(x)[0, 0], array(h)[0, 0])[:300007]
    # Some 17 roundings of random sign, for both.
    assert np.abs(array(convolve(x, h, zi))[0, 0] - want).max() <= 1e-14 * np.abs(want).max()


@pytest.mark.parametrize(("samples", "taps"), [(4096, 100), (65536, 1000), (131072, 65536), (300007, 44101)])
def test_float32_is_as_exact_as_its_transforms(samples, taps):
    """A transform of up to 2^15 values in float32 has an error of -136 dB, measured, rms over rms; three of them -131.

    The largest error is to the largest output as their rms are, give or take 5 dB.
    """
    x, h = torch.from_numpy(noise(0, 1, 1, samples)).float(), torch.from_numpy(noise(1, 1, 1, taps)).float()
    h *= torch.exp(-6.9 * torch.arange(taps) / taps)
    want = scipy.signal.fftconvolve(array(x)[0, 0], array(h)[0, 0])[:samples]
    error = np.abs(array(convolve(x, h, x[..., :0]))[0, 0] - want).max() / np.abs(want).max()
    assert 20 * math.log10(error) <= -126


def test_blocks_equal_the_whole():
    x, h, nothing = inputs(500, 90, rows=2)
    want = convolve(x, h, nothing)
    edges = [0, 1, 2, 90, 91, 300, 300, 499, 500]
    for start, stop in itertools.pairwise(edges):
        y = convolve(x[..., start:stop], h, x[..., max(0, start - 89) : start])
        assert_close(y, want[..., start:stop], FFT_64, scale((x, h, nothing)))


def test_gradients_of_any_order_and_mode():
    for shape in SHAPES:
        points = leaves(*inputs(9, 5, 3, *shape))
        assert gradcheck(
            convolve,
            points,
            check_forward_ad=True,
            check_batched_grad=True,
            check_batched_forward_grad=True,
            fast_mode=True,
        )
        assert gradgradcheck(convolve, points, check_fwd_over_rev=True, fast_mode=True)


def test_jacobians_agree_with_more_taps_than_samples():
    values = inputs(5, 9, 2, 2, 1, 1, 2)
    rows, columns = (
        jacobian(convolve, argnums=(0, 1, 2))(*values) for jacobian in (torch.func.jacrev, torch.func.jacfwd)
    )
    for got, want in zip(rows, columns, strict=True):
        assert_close(got, want, 1e-12)


def test_vmap_equals_a_loop():
    several = [inputs(30, 11, 4, 4, 2, seed=seed) for seed in range(3)]
    stacked = [torch.stack(values) for values in zip(*several, strict=True)]
    want = torch.stack([convolve(*values) for values in several])
    assert_close(torch.func.vmap(convolve)(*stacked), want, 1e-13)
    shared = torch.func.vmap(convolve, in_dims=(0, None, 0))(stacked[0], several[0][1], stacked[2])
    assert_close(shared[0], want[0], 1e-13)


def test_registration_is_sound():
    values = inputs(20, 7, 3, 4, 2, 1, 2, torch.float32)
    torch.library.opcheck(torch.ops.dasp.convolve.default, leaves(*values))
    y = convolve(*values)
    for needs in (True, False):
        torch.library.opcheck(torch.ops.dasp.convolve_backward.default, (*values, torch.randn_like(y), [needs] * 3))


def test_compiled_whole_equals_eager():
    torch._dynamo.reset()
    compiled = torch.compile(convolve, backend="aot_eager", fullgraph=True, dynamic=True)
    for samples in (30, 31, 100):
        values = inputs(samples, 12, 4, 3)
        assert torch.equal(compiled(*values), convolve(*values))
        for got, want in zip(gradients(compiled, values), gradients(convolve, values), strict=True):
            assert torch.equal(got, want)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_in_memory_changes_nothing(layout):
    values = inputs(50, 9, 5, 2, 2, 2, 2)
    arranged = [LAYOUTS[layout](value) for value in values]
    for got, want in zip(
        (convolve(*arranged), *gradients(convolve, tuple(arranged))),
        (convolve(*values), *gradients(convolve, values)),
        strict=True,
    ):
        assert torch.equal(got, want)


@pytest.mark.parametrize(("rows", "filters", "samples"), [(0, 0, 10), (0, 1, 10), (2, 1, 0), (2, 2, 0)])
def test_no_rows_and_no_samples(rows, filters, samples):
    values = inputs(samples, 4, 3, rows, filters)
    assert convolve(*values).shape == values[0].shape
    for grad, value in zip(gradients(convolve, values), values, strict=True):
        assert grad.shape == value.shape
        assert not grad.any()


@pytest.mark.usefixtures("cut")
def test_bad_values_stay_in_their_row():
    clean = inputs(130, 70, 20, 4, 4)
    bad = [value.clone() for value in clean]
    bad[0][1, 0, 60], bad[1][2, 0, 30], bad[2][3, 0, 5] = math.nan, math.inf, -math.inf
    for got, want in zip(
        (convolve(*bad), *gradients(convolve, tuple(bad))),
        (convolve(*clean), *gradients(convolve, clean)),
        strict=True,
    ):
        assert torch.equal(got[0], want[0])


def test_memory_does_not_grow_with_the_audio():
    """Ten minutes of mono and an impulse response of a second: the output and the gradient, and less than a second."""
    x, h = torch.zeros(1, 1, 600 * 44100).requires_grad_(), torch.ones(1, 1, 44100).requires_grad_()
    gy, nothing = torch.ones(1, 1, 600 * 44100), torch.zeros(1, 1, 0)
    with torch.no_grad():
        forward = peak_memory(lambda: convolve(x, h, nothing))
    if forward is None:
        pytest.skip("the system does not tell the memory of a process")
    both = peak_memory(lambda: torch.autograd.grad(convolve(x, h, nothing), (x, h), gy))
    size = 4 * x.numel()
    assert forward <= 1.2 * size
    assert both <= 2.3 * size
