"""Level: gain, polarity and the bus that sums tracks."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from dasp._checks import check_call, control
from dasp._spec import Control, Param, processor
from dasp.kernels import mix


def amplitude(level_db: Tensor) -> Tensor:
    """dB to a factor: 10^(level_db / 20)."""
    # torch.pow of torch 2.13 rounds vectors and their remainders differently: items would not be independent.
    return torch.exp(level_db * (math.log(10) / 20))


def mixed(x: Tensor, gains: Tensor) -> Tensor:
    """y[o] = sum over i of gains[o, i] x[i]: `(*batch, inputs, channels, samples)` to `(*batch, outputs, ...)`.

    `gains` is `(*batch, outputs, inputs)`, with 1 in the batch where it does not vary.
    """
    *batch, inputs, channels, samples = x.shape
    outputs, rows = gains.shape[-2], math.prod(batch)
    matrix = gains.expand(*batch, outputs, inputs).reshape(rows, outputs, inputs)
    return mix(x.reshape(rows, inputs, channels * samples), matrix).reshape(*batch, outputs, channels, samples)


@processor(automation=True, linear=True)
def gain(
    x: Tensor,
    sample_rate: float,
    gain_db: Annotated[Control, Param("dB", -48, 24, meaning="Gain.")] = 0.0,
) -> Tensor:
    r"""Scales audio by a gain in dB.

    $$y = 10^{\mathrm{gain\_db} / 20}\, x$$

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.

    Returns:
        Audio as x.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If gain_db does not match x.

    Domain:
        Any real gain; minus infinity silences.

    Example:
        >>> F.gain(torch.ones(1, 2), 44100, gain_db=20.0)
        tensor([[10., 10.]])
    """
    audio = check_call("gain", x, sample_rate)
    return (audio * amplitude(control("gain", "gain_db", gain_db, audio))).to(x.dtype)


@processor(automation=True, linear=True)
def polarity(
    x: Tensor,
    sample_rate: float,
    invert: Annotated[Control, Param("", 0, 1, meaning="0 keeps the polarity, 1 inverts it.", domain=(0, 1))] = 0.0,
) -> Tensor:
    r"""Inverts polarity.

    $$y = (1 - 2\, \mathrm{invert})\, x$$

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.

    Returns:
        Audio as x.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If invert does not match x.

    Domain:
        [0, 1]; between the ends the two polarities are blended, which is what makes the control learnable.

    Example:
        >>> F.polarity(torch.ones(1, 2), 44100, invert=1.0)
        tensor([[-1., -1.]])
    """
    audio = check_call("polarity", x, sample_rate)
    return (audio * (1 - 2 * control("polarity", "invert", invert, audio))).to(x.dtype)


@processor(automation=True, linear=True, tracks=True)
def stereo_bus(
    x: Tensor,
    sample_rate: float,
    send_db: Annotated[Control, Param("dB", -60, 12, meaning="Level at which each track is sent.")] = 0.0,
) -> Tensor:
    r"""Sums tracks into a bus, each at its level.

    $$y = \sum_{\mathrm{tracks}} 10^{\mathrm{send\_db} / 20}\, x$$

    Args:
        x: Tracks `(*batch, tracks, channels, samples)`.
        sample_rate: Sample rate in Hz.

    Returns:
        The bus `(*batch, channels, samples)`.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If x has no dimension of tracks, or send_db does not match x.

    Domain:
        Any real level; minus infinity leaves a track out.

    Example:
        >>> F.stereo_bus(torch.ones(3, 2, 4), 44100, send_db=torch.tensor([0.0, 0.0, -torch.inf])).shape
        torch.Size([2, 4])
    """
    audio = check_call("stereo_bus", x, sample_rate)
    if audio.ndim < 3:
        raise ValueError(
            f"stereo_bus: x has shape {tuple(x.shape)}, expected (*batch, tracks, channels, samples): "
            f"for one track add a dimension with x[None]"
        )
    level = amplitude(control("stereo_bus", "send_db", send_db, audio))
    if level.shape[-2:] != (1, 1):
        return (audio * level).sum(-3).to(x.dtype)
    # One level for each track: `(*batch, 1, tracks)`.
    tracks = level.reshape(*level.shape[:-2], 1) if level.ndim > 2 else level
    return mixed(audio, tracks.mT.expand(*tracks.shape[:-2], 1, audio.shape[-3])).squeeze(-3).to(x.dtype)
