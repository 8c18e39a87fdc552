"""Dynamics: processors whose gain follows the level."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from dasp._checks import check_call, check_choice, control
from dasp._spec import Control, Param, processor
from dasp.kernels import ballistics

LINKS = ("max", "mean", "none")
"""How channels share a detector."""

# Natural-logarithm units per dB: levels and gains are computed as logarithms to base e, which saves a multiplication
# per sample on both sides of the smoother.
_NEPER = math.log(10) / 20
# Silence is read as this amplitude, -160 dB.
_FLOOR = 1e-8
# Thresholds act as clamped to this range, beyond any level that 32-bit audio can hold.
_THRESHOLD_DB = 200.0
# A ratio beyond this moves the gain by less than a millionth of a dB, or is cut by the range of an expander.
_EXPANDER_RATIO = 1e4
# A knee narrower than this is a corner.
_KNEE_DB = 1e-6

Threshold = Annotated[Control, Param("dB", -60, 0, meaning="Level at which the processor sets in.")]
Ratio = Annotated[Control, Param("", 1, 20, "log", "Change of level in dB beyond the threshold.", domain=(1, math.inf))]
Attack = Annotated[Control, Param("ms", 0.1, 200, "log", "Attack time constant.", domain=(0, math.inf))]
Release = Annotated[Control, Param("ms", 5, 2000, "log", "Release time constant.", domain=(0, math.inf))]
Knee = Annotated[Control, Param("dB", 0, 24, meaning="Width of the knee.", domain=(0, math.inf))]


def _pole(time_ms: Tensor, sample_rate: float) -> Tensor:
    """exp(-1 / (t sample_rate)); 0 for times so short that it is less than 1e-43, with gradient 0 and not NaN."""
    samples = time_ms * (sample_rate / 1000)
    audible = samples > 0.01
    return torch.where(audible, torch.exp(-1 / torch.where(audible, samples, 1.0)), 0.0)


def _knee(over: Tensor, width: Tensor) -> Tensor:
    """max(over, 0) with its corner rounded by a parabola over `width`, without a division by a zero width."""
    corner = width < _KNEE_DB * _NEPER
    width = torch.where(corner, 0.0, width)
    inside = torch.clamp(over + width / 2, min=torch.zeros_like(width), max=width)
    return inside * inside * (0.5 / torch.where(corner, 1.0, width)) + torch.relu(over - width / 2)


def _level(x: Tensor, link: str) -> Tensor:
    """Logarithm of the linked amplitude, `(*batch, channels or 1, samples)`."""
    amplitude = x.abs()
    if link != "none" and x.shape[-2] > 1:
        amplitude = amplitude.amax(-2, keepdim=True) if link == "max" else amplitude.mean(-2, keepdim=True)
    return torch.log(amplitude.clamp_min(_FLOOR))


def _smooth(g: Tensor, falling: Tensor, rising: Tensor) -> Tensor:
    """Runs the branching smoother on `(*batch, channels, samples)` from a start of 0 dB."""
    rows = g.reshape(math.prod(g.shape[:-1]), g.shape[-1])
    down, up = (pole.expand(*g.shape[:-1], 1).reshape(-1) for pole in (falling, rising))
    start = torch.zeros(rows.shape[0], dtype=torch.float64, device=g.device)
    return ballistics(rows, down, up, start)[0].reshape(g.shape)


def _detector_control(name: str, argument: str, value: Control, x: Tensor, link: str) -> Tensor:
    """A control of the gain computer, which with linked channels has one setting for all of them."""
    tensor = control(name, argument, value, x)
    if link != "none" and tensor.shape[-2] > 1:
        raise ValueError(f"{name}: {argument} has shape {tuple(tensor.shape)}: one value per channel needs link='none'")
    return tensor


@processor
def compressor(
    x: Tensor,
    sample_rate: float,
    threshold_db: Threshold = -24.0,
    ratio: Ratio = 4.0,
    attack_ms: Attack = 10.0,
    release_ms: Release = 100.0,
    knee_db: Knee = 6.0,
    makeup_gain_db: Annotated[Control, Param("dB", 0, 24, meaning="Gain after compression.")] = 0.0,
    link: str = "max",
) -> Tensor:
    """Feed-forward compressor in the log domain with smooth branching (Giannoulis, Massberg and Reiss 2012).

    With L = 20 log10 max(|x|, 1e-8) of the linked channels, the gain computer gives g = (1 / ratio - 1) k(L -
    threshold_db), where k(o) is 0 below the knee, o above it, and (o + knee_db / 2)^2 / (2 knee_db) within (their
    equation 4).  Its smoothing, from 0 dB, is s[n] = a s[n-1] + (1 - a) g[n], a = exp(-1 / (t sample_rate)), with t the
    attack while g[n] < s[n-1] and the release otherwise (equation 17); y = x 10^((s + makeup_gain_db) / 20).

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        link: What the detector hears: "max", the loudest channel; "mean", the mean amplitude of all; "none", each
            channel by itself.

    Returns:
        Audio as x, without delay.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If link is unknown, a control does not match x or changes with time, or a control of the detector
            has one value per channel while channels are linked.

    Domain:
        threshold_db acts as clamped to [-200, 200], ratio to [1, inf] (inf limits), knee_db to [0, inf], each with
        gradient 0 outside; a time of 0 ms or less is instantaneous.

    Example:
        >>> y = F.compressor(torch.ones(1, 44100), 44100, threshold_db=-20.0, ratio=4.0)
        >>> 20 * y[0, -1].log10()  # 20 dB over the threshold, of which a quarter is left
        tensor(-15.0000)
    """
    audio = check_call("compressor", x, sample_rate)
    check_choice("compressor", "link", link, LINKS)
    threshold, slope, attack, release, knee = (
        _detector_control("compressor", argument, value, audio, link)
        for argument, value in (
            ("threshold_db", threshold_db),
            ("ratio", ratio),
            ("attack_ms", attack_ms),
            ("release_ms", release_ms),
            ("knee_db", knee_db),
        )
    )
    makeup = control("compressor", "makeup_gain_db", makeup_gain_db, audio)
    over = _level(audio, link) - threshold.clamp(-_THRESHOLD_DB, _THRESHOLD_DB) * _NEPER
    g = (1 / slope.clamp_min(1) - 1) * _knee(over, knee * _NEPER)
    smoothed = _smooth(g, _pole(attack.double(), sample_rate), _pole(release.double(), sample_rate))
    return (audio * torch.exp(smoothed + makeup * _NEPER)).to(x.dtype)


@processor
def expander(
    x: Tensor,
    sample_rate: float,
    threshold_db: Threshold = -40.0,
    ratio: Ratio = 2.0,
    attack_ms: Attack = 5.0,
    release_ms: Release = 100.0,
    knee_db: Knee = 6.0,
    range_db: Annotated[Control, Param("dB", 0, 80, meaning="Most attenuation.", domain=(0, math.inf))] = 40.0,
    link: str = "max",
) -> Tensor:
    """Feed-forward downward expander: the mirror of `compressor` below the threshold.

    With L as in `compressor`, g = max((1 - ratio) k(threshold_db - L), -range_db), smoothed from 0 dB with the attack
    while g rises (the expander opens) and the release while it falls (it closes); y = x 10^(s / 20).

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        link: As in `compressor`.

    Returns:
        Audio as x, without delay.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If link is unknown, a control does not match x or changes with time, or a control of the detector
            has one value per channel while channels are linked.

    Domain:
        threshold_db acts as clamped to [-200, 200], ratio to [1, 10000] (a gate), knee_db and range_db to [0, inf], each
        with gradient 0 outside; a time of 0 ms or less is instantaneous.

    Example:
        >>> y = F.expander(torch.full((1, 44100), 1e-3), 44100, threshold_db=-40.0, ratio=2.0, release_ms=10.0)
        >>> 20 * y[0, -1].log10()  # 20 dB below the threshold, made 40
        tensor(-80.0000)
    """
    audio = check_call("expander", x, sample_rate)
    check_choice("expander", "link", link, LINKS)
    threshold, slope, attack, release, knee, most = (
        _detector_control("expander", argument, value, audio, link)
        for argument, value in (
            ("threshold_db", threshold_db),
            ("ratio", ratio),
            ("attack_ms", attack_ms),
            ("release_ms", release_ms),
            ("knee_db", knee_db),
            ("range_db", range_db),
        )
    )
    under = threshold.clamp(-_THRESHOLD_DB, _THRESHOLD_DB) * _NEPER - _level(audio, link)
    g = (1 - slope.clamp(1, _EXPANDER_RATIO)) * _knee(under, knee * _NEPER)
    g = torch.maximum(g, -most.clamp_min(0) * _NEPER)
    smoothed = _smooth(g, _pole(release.double(), sample_rate), _pole(attack.double(), sample_rate))
    return (audio * torch.exp(smoothed)).to(x.dtype)
