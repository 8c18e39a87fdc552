"""The branching smoother: closed forms, and what its gradients do at its corners."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch

from dasp.kernels import ballistics
from tests.cases import assert_close
from tests.operators import all_gradients, ballistics_inputs


def rows(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(("target", "pole"), [(-1.0, 0.9), (1.0, 0.6)])
def test_a_step_is_approached_with_the_pole_of_its_direction(target: float, pole: float) -> None:
    g = torch.full((1, 200), target, dtype=torch.float64)
    y, zf = ballistics(g, rows(0.9), rows(0.6), rows(0.0))
    want = target * (1 - pole ** torch.arange(1, 201, dtype=torch.float64))
    assert_close(y[0], want, 1e-13)
    assert float(zf) == float(y[0, -1])


def test_equal_poles_make_a_linear_filter() -> None:
    g, _, pole, zi = ballistics_inputs(3, 500)
    y, _ = ballistics(g, pole, pole, zi)
    for row in range(3):
        a = float(pole[row])
        want, _ = scipy.signal.lfilter([1 - a], [1, -a], g[row].numpy(), zi=[a * float(zi[row])])
        assert_close(y[row], torch.from_numpy(want), 1e-12)


def test_poles_of_zero_follow_the_input_at_once() -> None:
    g, _, _, zi = ballistics_inputs(3, 70, torch.float32)
    zero = torch.zeros(3, dtype=torch.float64)
    y, _ = ballistics(g, zero, zero, zi)
    assert torch.equal(y, g)


def test_poles_of_one_hold_the_state() -> None:
    g, _, _, zi = ballistics_inputs(3, 70)
    one = torch.ones(3, dtype=torch.float64)
    y, zf = ballistics(g, one, one, zi)
    assert_close(y, zi[:, None].expand(3, 70), 1e-13)
    assert_close(zf, zi, 1e-13)


def test_each_sample_moves_one_pole() -> None:
    """While it falls the attack has a gradient and the release has none, and the other way round."""
    down, up = torch.full((1, 50), -1.0, dtype=torch.float64), torch.full((1, 50), 1.0, dtype=torch.float64)
    for g, index in ((down, 1), (up, 2)):
        _, grads = all_gradients(ballistics, (g, rows(0.9), rows(0.6), rows(0.0)))
        assert bool(grads[index])
        assert not bool(grads[3 - index])


def test_a_signal_at_rest_has_the_gradient_of_the_release() -> None:
    """At g = y both branches meet; the release is the one that is taken, as in the reference."""
    rest = torch.zeros(1, 5, dtype=torch.float64)
    g, attack, release, zi = (value.requires_grad_() for value in (rest, rows(0.9), rows(0.6), rows(0.0)))
    y, _ = ballistics(g, attack, release, zi)
    (gg,) = torch.autograd.grad(y[0, -1], [g])
    want = 0.4 * 0.6 ** torch.arange(4, -1, -1, dtype=torch.float64)
    assert_close(gg[0], want, 1e-14)


def test_the_result_stays_between_input_and_state() -> None:
    g, attack, release, zi = ballistics_inputs(8, 1000, torch.float64, 1)
    y, _ = ballistics(g, attack, release, zi)
    low, high = torch.minimum(g.amin(-1), zi), torch.maximum(g.amax(-1), zi)
    assert bool((y >= low[:, None] - 1e-15).all())
    assert bool((y <= high[:, None] + 1e-15).all())


def test_the_branches_are_those_of_a_plain_loop() -> None:
    g, attack, release, zi = ballistics_inputs(2, 400, torch.float64, 2)
    y, _ = ballistics(g, attack, release, zi)
    for row in range(2):
        last, want = float(zi[row]), []
        for value in g[row].tolist():
            pole = float(attack[row] if value < last else release[row])
            last = pole * last + (1 - pole) * value
            want.append(last)
        assert_close(y[row], torch.from_numpy(np.array(want)), 1e-13)
