"""The linear recurrence: against scipy for a constant coefficient, and closed forms for one that changes."""

from __future__ import annotations

import pytest
import scipy.signal
import torch

from dasp.kernels import recurrence
from tests.cases import assert_close
from tests.operators import all_gradients, recurrence_inputs


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2.0**-23), (torch.float64, 1e-12)])
@pytest.mark.parametrize("pole", [0.0, -0.5, 0.999, 1.0])
def test_a_constant_coefficient_equals_scipy(pole: float, dtype: torch.dtype, tolerance: float) -> None:
    _, x, zi = recurrence_inputs(3, 1000, dtype)
    # A pole that float32 holds, so that both filter with the same.
    a = torch.full((3, 1000), pole, dtype=dtype)
    y, zf = recurrence(a, x, zi)
    exact = float(a[0, 0])
    for row in range(3):
        want, _ = scipy.signal.lfilter([1], [1, -exact], x[row].double().numpy(), zi=[exact * float(zi[row])])
        assert_close(y[row], torch.from_numpy(want).to(dtype), tolerance)
        assert_close(zf[row], torch.tensor(want[-1]), 1e-12)


def test_without_input_it_is_a_running_product() -> None:
    a, x, zi = recurrence_inputs(4, 60)
    y, _ = recurrence(a, torch.zeros_like(x), zi)
    assert_close(y, a.cumprod(-1) * zi[:, None], 1e-13)


def test_a_coefficient_of_zero_forgets_the_past() -> None:
    a, x, zi = recurrence_inputs(2, 100)
    a[:, 70] = 0
    y, _ = recurrence(a, x, zi)
    later, _ = recurrence(a[:, 70:], x[:, 70:], torch.full_like(zi, 1e6))
    assert torch.equal(y[:, 70:], later)


def test_the_adjoint_is_the_transpose() -> None:
    """<w, R x> = <R^T w, x> for the linear map from inputs and state to outputs and state."""
    a, x, zi = recurrence_inputs(3, 200)
    generator = torch.Generator().manual_seed(9)
    weights = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((3, 200), (3,))]
    (y, zf), (_, gx, gzi) = all_gradients(recurrence, (a, x, zi))
    ahead = (weights[0] * y).sum() + (weights[1] * zf).sum()
    back = (gx * x).sum() + (gzi * zi).sum()
    assert_close(ahead, back, 1e-12)
