"""Stereo placement and width."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from dasp._checks import check_call, check_choice, control
from dasp._spec import Control, Param, processor
from dasp.functional.level import mixed

LAWS = ("constant_power", "linear", "-4.5dB")
"""Pan laws, -3, -6 and -4.5 dB at the centre."""


def _side_gain(toward: Tensor, law: str) -> Tensor:
    """Gain of a side at which `toward` is 1, and 0 at the other."""
    if law == "linear":
        return toward
    if law == "constant_power":
        return torch.sin((math.pi / 2) * toward)
    # sqrt(toward sin(pi/2 toward)), the geometric mean of the others, its zero outside the root: finite slope at 0.
    return toward * torch.sqrt((math.pi / 2) * torch.sinc(toward / 2))


def centre_gain(law: str) -> float:
    """The gain that a pan law gives either channel at the centre."""
    return math.pow(2.0, {"linear": -1.0, "constant_power": -0.5, "-4.5dB": -0.75}[law])


@processor(channels=(1, 2), channels_out=2, automation=True, linear=True)
def stereo_panner(
    x: Tensor,
    sample_rate: float,
    pan: Annotated[Control, Param("", -1, 1, meaning="Position from -1, left, to 1, right.", domain=(-1, 1))] = 0.0,
    law: str = "constant_power",
) -> Tensor:
    r"""Places a mono signal between two channels, or balances a stereo one.

    $$y_L = g_L\, x_L, \quad y_R = g_R\, x_R, \quad p = (\mathrm{pan} + 1) / 2$$

    "constant_power" is $g_L = \cos(\pi p / 2)$, $g_R = \sin(\pi p / 2)$, "linear" is $g_L = 1 - p$, $g_R = p$, and
    "-4.5dB" their geometric mean.  Both channels of a mono signal are that signal, so that it and a stereo signal with
    the same in both channels come out alike.

    Args:
        x: Audio `(*batch, 1 or 2, samples)`.
        sample_rate: Sample rate in Hz.
        law: One of `LAWS`.

    Returns:
        Audio `(*batch, 2, samples)`.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If x has more than two channels, law is unknown, or pan does not match x.

    Domain:
        [-1, 1]; the gains at the ends are exactly 1 and 0.

    Example:
        >>> F.stereo_panner(torch.ones(1, 1), 44100, pan=-1.0)
        tensor([[1.],
                [0.]])
    """
    audio = check_call("stereo_panner", x, sample_rate)
    check_choice("stereo_panner", "law", law, LAWS)
    position = control("stereo_panner", "pan", pan, audio)
    gains = [_side_gain((1 - position) / 2, law), _side_gain((1 + position) / 2, law)]
    if position.shape[-2] == 2:
        gains = [gains[0][..., :1, :], gains[1][..., 1:, :]]
    if audio.shape[-2] == 2 or position.shape[-1] > 1:
        return (audio * torch.cat(gains, -2)).to(x.dtype)
    return mixed(audio.unsqueeze(-2), torch.cat(gains, -2)).squeeze(-2).to(x.dtype)


@processor(channels=(2,), automation=True, linear=True)
def stereo_widener(
    x: Tensor,
    sample_rate: float,
    width: Annotated[
        Control, Param("", 0, 2, meaning="0 is mono, 1 unchanged, more is wider.", domain=(0, math.inf))
    ] = 1.0,
) -> Tensor:
    r"""Scales the side signal, half the difference of left and right.

    $$y_L = \frac{x_L + x_R}{2} + \mathrm{width}\, \frac{x_L - x_R}{2}, \quad
    y_R = \frac{x_L + x_R}{2} - \mathrm{width}\, \frac{x_L - x_R}{2}$$

    Args:
        x: Audio `(*batch, 2, samples)`.
        sample_rate: Sample rate in Hz.

    Returns:
        Audio as x; its mono sum is unchanged.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If x does not have two channels, or width does not match x or differs between its channels.

    Domain:
        Any real width; a negative one swaps the sides.

    Example:
        >>> F.stereo_widener(torch.tensor([[1.0], [0.0]]), 44100, width=0.0)
        tensor([[0.5000],
                [0.5000]])
    """
    audio = check_call("stereo_widener", x, sample_rate)
    amount = control("stereo_widener", "width", width, audio)
    if amount.shape[-2] != 1:
        raise ValueError(f"stereo_widener: width has shape {tuple(amount.shape)}, expected one value for both channels")
    left, right = audio[..., :1, :], audio[..., 1:, :]
    mid, side = (left + right) / 2, amount * ((left - right) / 2)
    return torch.cat([mid + side, mid - side], -2).to(x.dtype)
