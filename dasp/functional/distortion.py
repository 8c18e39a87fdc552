"""Waveshapers without memory."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from dasp._checks import check_call, check_choice, control
from dasp._spec import Control, Param, processor
from dasp.functional.level import amplitude

CURVES = ("tanh", "hard", "soft_cubic")
"""Transfer curves: odd, of slope 1 at the origin and at most 1 in magnitude."""


@processor(automation=True)
def distortion(
    x: Tensor,
    sample_rate: float,
    drive_db: Annotated[Control, Param("dB", 0, 48, meaning="Gain before the curve.")] = 0.0,
    curve: str = "tanh",
) -> Tensor:
    r"""Waveshaping distortion: a curve for every sample by itself.

    $$y = f(10^{\mathrm{drive\_db} / 20}\, x)$$

    $f(u)$ is $\tanh u$; "hard" clips $u$ to [-1, 1]; "soft_cubic" is $u - 4 u^3 / 27$, reaching 1 with slope 0 at
    $u = 1.5$ and constant beyond.  All have slope 1 at the origin, so that the drive is the gain of quiet signals.

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        curve: One of `CURVES`.

    Returns:
        Audio as x, within [-1, 1].  Harmonics above half the sample rate alias.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If curve is unknown or drive_db does not match x.

    Domain:
        Any real drive.

    Example:
        >>> F.distortion(torch.tensor([[0.1, 10.0]]), 44100, drive_db=0.0, curve="hard")
        tensor([[0.1000, 1.0000]])
    """
    audio = check_call("distortion", x, sample_rate)
    check_choice("distortion", "curve", curve, CURVES)
    u = audio * amplitude(control("distortion", "drive_db", drive_db, audio))
    if curve == "tanh":
        return torch.tanh(u).to(x.dtype)
    if curve == "hard":
        return u.clamp(-1, 1).to(x.dtype)
    u = u.clamp(-1.5, 1.5)
    return (u - (4 / 27) * u * u * u).to(x.dtype)
