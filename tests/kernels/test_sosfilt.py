"""The cascade of second-order sections: against scipy, for any number of sections and any sharing of filters."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor

from dasp.kernels import reference, sosfilt
from tests.cases import assert_close
from tests.operators import all_gradients, sosfilt_inputs


def by_scipy(x: Tensor, sos: Tensor, zi: Tensor) -> tuple[Tensor, Tensor]:
    """Row by row, in float64."""
    sos = sos.repeat_interleave(x.shape[0] // sos.shape[0], 0)
    full = np.insert(sos.numpy(), 3, 1.0, axis=-1)
    rows = [
        scipy.signal.sosfilt(sections, signal, zi=state)
        for sections, signal, state in zip(full, x.double().numpy(), zi.numpy(), strict=True)
    ]
    y, zf = (torch.from_numpy(np.stack(values)) for values in zip(*rows, strict=True))
    return y.to(x.dtype), zf


# Six sections are filtered in one pass; more in several.
@pytest.mark.parametrize("sections", [1, 2, 3, 4, 5, 6, 7, 12, 13])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2.0**-23), (torch.float64, 1e-12)])
def test_equals_scipy(sections: int, dtype: torch.dtype, tolerance: float) -> None:
    for rows in (1, 3, 8):
        inputs = sosfilt_inputs(rows, 1000, dtype, sections, sections)
        y, zf = sosfilt(*inputs)
        want, want_zf = by_scipy(*inputs)
        assert_close(y, want, tolerance)
        assert_close(zf, want_zf, 1e-12)


@pytest.mark.parametrize("sections", [7, 13])
def test_gradients_of_more_sections_than_one_pass(sections: int) -> None:
    x, sos, zi = sosfilt_inputs(3, 100, torch.float64, 0, sections)
    _, (gx, gsos, gzi) = all_gradients(sosfilt, (x, sos, zi))

    def one_by_one(x: Tensor, sos: Tensor, zi: Tensor) -> tuple[Tensor, Tensor]:
        final = []
        for k in range(sections):
            x, zf = sosfilt(x, sos[:, k : k + 1], zi[:, k : k + 1])
            final.append(zf)
        return x, torch.cat(final, 1)

    _, wants = all_gradients(one_by_one, (x, sos, zi))
    for got, want in zip((gx, gsos, gzi), wants, strict=True):
        assert_close(got, want, 1e-12)


def test_no_sections_pass_the_signal() -> None:
    x, sos, zi = sosfilt_inputs(3, 20, torch.float32, 0, 0)
    (y, zf), (gx, gsos, gzi) = all_gradients(sosfilt, (x, sos, zi))
    assert torch.equal(y, x)
    assert y.data_ptr() != x.data_ptr()
    assert zf.shape == gzi.shape == (3, 0, 2)
    assert gsos.shape == (3, 0, 5)
    assert bool(gx.any())


@pytest.mark.parametrize("filters", [1, 2, 3, 6])
def test_consecutive_rows_share_a_filter(filters: int) -> None:
    x, sos, zi = sosfilt_inputs(6, 150, torch.float64, 0, 2, filters)
    apart = sos.repeat_interleave(6 // filters, 0)
    (y, zf), (gx, gsos, gzi) = all_gradients(sosfilt, (x, sos, zi))
    (want, want_zf), (want_gx, per_row, want_gzi) = all_gradients(sosfilt, (x, apart, zi))
    assert torch.equal(y, want)
    assert torch.equal(zf, want_zf)
    assert torch.equal(gx, want_gx)
    assert torch.equal(gzi, want_gzi)
    assert_close(gsos, per_row.reshape(filters, -1, 2, 5).sum(1), 1e-15)


@pytest.mark.parametrize("needed", ["x", "sos", "zi"])
def test_one_gradient_alone_equals_it_among_all(needed: str) -> None:
    names = ("x", "sos", "zi")
    values = sosfilt_inputs(3, 150, torch.float32)
    _, everything = all_gradients(sosfilt, values)
    inputs = [value.clone().requires_grad_(name == needed) for name, value in zip(names, values, strict=True)]
    generator = torch.Generator().manual_seed(9)
    outputs = sosfilt(*inputs)
    weights = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype) for out in outputs]
    (grad,) = torch.autograd.grad(outputs, [inputs[names.index(needed)]], weights)
    assert torch.equal(grad, everything[names.index(needed)])


def test_unstable_filters_overflow_as_in_the_reference() -> None:
    x, sos, zi = sosfilt_inputs(2, 100, torch.float64, 0, 1)
    sos[0, 0, 3:] = torch.tensor([-3.0, 2.0])
    y, _ = sosfilt(x, sos, zi)
    want, _ = reference.sosfilt(x, sos, zi)
    assert_close(y[0], want[0], 1e-12)
    assert_close(y[1], want[1], 1e-12)


def test_the_lowest_and_sharpest_filters_keep_float64() -> None:
    """Peaks at 20 Hz with Q 10: coefficients or state in float32 would be 60 to 90 dB off."""
    w = 2 * np.pi * 20 / 44100
    alpha, gain = np.sin(w) / 20, 10 ** (12 / 40)
    a0 = 1 + alpha / gain
    section = np.array([1 + alpha * gain, -2 * np.cos(w), 1 - alpha * gain, -2 * np.cos(w), 1 - alpha / gain]) / a0
    sos = torch.from_numpy(section).reshape(1, 1, 5)
    x = torch.randn(4, 44100, generator=torch.Generator().manual_seed(0))
    zi = torch.zeros(4, 1, 2, dtype=torch.float64)
    y, _ = sosfilt(x, sos, zi)
    exact, _ = by_scipy(x.double(), sos, zi)
    # Half a unit in the last place of the output, and what the order of sums does to a state of 1e5 times its input.
    assert_close(y.double(), exact, 2.0**-24 + 1e-10)


# A few long rows are cut into pieces that are filtered side by side and joined: lengths with and without a remainder,
# slow poles, whose state reaches across many pieces, and more threads than one.
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("rows", "samples", "sections"), [(1, 40001, 6), (2, 65536, 1), (3, 50000, 16), (1, 33000, 17)]
)
def test_few_long_rows_equal_many(rows: int, samples: int, sections: int, threads: int) -> None:
    x, sos, zi = sosfilt_inputs(rows, samples, torch.float64, 3, sections)
    # Poles at 100 Hz of 48 kHz with q = 2, which remember thousands of samples.
    angle = 2 * np.pi * 100 / 48000
    sos[:, 0, 3:] = torch.tensor([-2 * (1 - angle / 4) * np.cos(angle), (1 - angle / 4) ** 2], dtype=torch.float64)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        outputs, gradients = all_gradients(sosfilt, (x, sos, zi))
    finally:
        torch.set_num_threads(before)
    for got, want in zip(outputs, by_scipy(x, sos, zi), strict=True):
        assert_close(got, want, 1e-12)
    # Enough rows leave nothing to cut, with the same noise as gradients of all outputs.
    copies = 64

    def repeated(*inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = sosfilt(*(value.repeat(copies, *(1,) * (value.ndim - 1)) for value in inputs))
        return tuple(out.unflatten(0, (copies, rows)).mean(0) for out in outputs)

    _, wants = all_gradients(repeated, (x, sos, zi))
    for got, want in zip(gradients, wants, strict=True):
        assert_close(got, want, 1e-11)


def test_a_nan_in_a_long_row_spares_what_comes_before_it() -> None:
    x, sos, zi = sosfilt_inputs(1, 40000, torch.float32, 0, 2)
    x[0, 30000] = torch.nan
    y, zf = sosfilt(x, sos, zi)
    assert torch.isfinite(y[0, :30000]).all()
    assert torch.isnan(y[0, 30000:]).all()
    assert torch.isnan(zf).all()
