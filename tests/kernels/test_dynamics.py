"""The fused compressor and expander: any number of channels, ties between them, and the edges of the gain computer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dasp.kernels import dynamics
from dasp.kernels._dynamics import unfused
from tests.cases import assert_close, gradients, leaves
from tests.operators import all_gradients, dynamics_inputs


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("mean", [False, True])
def test_any_number_of_channels(channels: int, direction: int, mean: bool) -> None:
    inputs = dynamics_inputs(5, 150, torch.float64, channels, channels, direction)
    got = all_gradients(lambda *v: dynamics(*v, direction, mean), inputs)
    want = all_gradients(lambda *v: unfused(*v, direction, mean), inputs)
    for pair in zip((*got[0], *got[1]), (*want[0], *want[1]), strict=True):
        assert_close(*pair, 1e-13)


def test_one_channel_has_the_same_level_by_maximum_and_mean() -> None:
    inputs = dynamics_inputs(3, 150, torch.float32, 0, 1)
    assert torch.equal(dynamics(*inputs, 1, False)[0], dynamics(*inputs, 1, True)[0])


def test_equally_loud_channels_share_the_gradient_of_the_level() -> None:
    x, *rest = dynamics_inputs(1, 40, torch.float64, 3, 2)
    (both,) = leaves(x[:, :1].expand(1, 2, 40).contiguous())
    curve, poles, makeup, zi = rest
    makeup = makeup[:, :1].expand(1, 2)
    y, _ = dynamics(both, curve, poles, makeup, zi)
    (grad,) = torch.autograd.grad(y.sum(), [both])
    assert torch.equal(grad[:, 0], grad[:, 1])
    (one,) = leaves(x[:, :1])
    y, _ = dynamics(one, curve, poles, makeup[:, :1], zi)
    (alone,) = torch.autograd.grad(2 * y.sum(), [one])
    assert_close(grad.sum(-2), alone[:, 0], 1e-13)


@pytest.mark.parametrize("direction", [1, -1])
def test_silence_and_corners_have_finite_gradients(direction: int) -> None:
    x, curve, poles, makeup, zi = dynamics_inputs(4, 70, torch.float32, 5, 2, direction)
    x[0] = 0
    x[1, :, 10:30] = 0
    curve[2, 2] = 0
    # A level on the corner itself: amplitude 1 and a threshold of 0.
    curve[2, 0] = 0
    x[2] = 1
    curve[3, 3] = 0
    poles[3] = 0
    points = leaves(x, curve, poles, makeup, zi)
    y, _ = dynamics(*points, direction)
    assert bool(y.isfinite().all())
    assert all(bool(grad.isfinite().all()) for grad in gradients(y, points))


def hand(level: float, threshold: float, slope: float, knee: float, least: float) -> float:
    """The gain computer above the threshold, in plain words."""
    over = level - threshold
    if over <= -knee / 2:
        bend = 0.0
    elif over >= knee / 2:
        bend = over
    else:
        bend = (over + knee / 2) ** 2 / (2 * knee)
    return max(slope * bend, -least)


def test_the_gain_computer_is_that_of_the_paper() -> None:
    levels = torch.linspace(-6, 2, 81, dtype=torch.float64)
    x = levels.exp().reshape(1, 1, -1)
    at_once = torch.zeros(1, 2, dtype=torch.float64)

    def gain(threshold: float, slope: float, knee: float, least: float) -> Tensor:
        curve = torch.tensor([[threshold, slope, knee, least]], dtype=torch.float64)
        y, _ = dynamics(x, curve, at_once, torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
        return (y / x).log()[0, 0]

    for setting in ((-2.0, -0.75, 0.0, math.inf), (-2.0, -0.75, 2.0, math.inf), (-3.0, -1.0, 1.0, 2.5)):
        want = torch.tensor([hand(level, *setting) for level in levels.tolist()], dtype=torch.float64)
        assert_close(gain(*setting), want, 1e-13)
