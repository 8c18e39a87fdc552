"""Dynamics: processors whose gain follows the level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from dasp._checks import check_call, check_choice, control, recalled
from dasp._spec import Control, Param, State, processor
from dasp.kernels import dynamics

LINKS = ("max", "mean", "none")
"""How channels share a detector."""

# Natural-logarithm units per dB: levels and gains are computed as logarithms to base e, which saves a multiplication
# per sample on both sides of the smoother.
_NEPER = math.log(10) / 20
# Thresholds act as clamped to this range, beyond any level that 32-bit audio can hold.
_THRESHOLD_DB = 200.0
# A ratio beyond this moves the gain by less than a millionth of a dB, or is cut by the range of an expander.
_EXPANDER_RATIO = 1e4

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


def _run(
    name: str,
    x: Tensor,
    audio: Tensor,
    link: str,
    direction: int,
    curve: Sequence[Tensor],
    poles: Sequence[Tensor],
    makeup: Tensor,
    state: State | None,
) -> Tensor | tuple[Tensor, State]:
    """Runs the kernel on groups of channels that share a detector; `audio` is x in its working type."""
    *batch, channels, samples = audio.shape
    groups = (*batch, channels) if link == "none" else tuple(batch)
    per_group = math.prod(groups), channels if link != "none" else 1

    def expand(values: Sequence[Tensor]) -> Tensor:
        # Linked controls have one channel, unlinked ones get them all.
        wide = (value.squeeze(-1).expand(*batch, channels if link == "none" else 1) for value in values)
        return torch.stack([value.reshape(-1) for value in wide], -1)

    gains = makeup.squeeze(-1).expand(*batch, channels).reshape(per_group)
    start = recalled(name, {} if state is None else state, "smoothed_gain", groups, audio).reshape(per_group[0])
    y, end = dynamics(
        audio.reshape(*per_group, samples), expand(curve), expand(poles), gains, start, direction, link == "mean"
    )
    y = y.reshape(audio.shape).to(x.dtype)
    return y if state is None else (y, {"smoothed_gain": end.reshape(groups)})


def _detector_control(name: str, argument: str, value: Control, x: Tensor, link: str) -> Tensor:
    """A control of the gain computer, which with linked channels has one setting for all of them."""
    tensor = control(name, argument, value, x, dtype=torch.float64)
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
    *,
    state: State | None = None,
) -> Tensor | tuple[Tensor, State]:
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
        state: For audio in blocks, what the call on the block before returned; `{}` at rest.

    Returns:
        Audio as x, without delay; with a state, the pair of that and the next state,
        `{"smoothed_gain": (*batch,)}`, or `(*batch, channels)` if not linked, s in natural-logarithm units.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If link is unknown, a control does not match x or changes with time, a control of the detector has
            one value per channel while channels are linked, or a state does not match x.

    Domain:
        threshold_db acts as clamped to [-200, 200], ratio to [1, inf] (inf limits), knee_db to [0, inf], each with
        gradient 0 outside; a time of 0 ms or less is instantaneous.

    Example:
        >>> y = F.compressor(torch.ones(1, 44100), 44100, threshold_db=-20.0, ratio=4.0)
        >>> (20 * y[0, -1].log10()).round()  # 20 dB over the threshold, of which a quarter is left
        tensor(-15.)
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
    makeup = control("compressor", "makeup_gain_db", makeup_gain_db, audio, dtype=torch.float64) * _NEPER
    curve = (
        threshold.clamp(-_THRESHOLD_DB, _THRESHOLD_DB) * _NEPER,
        1 / slope.clamp_min(1) - 1,
        knee.clamp_min(0) * _NEPER,
        torch.full_like(threshold, math.inf),
    )
    poles = (_pole(attack, sample_rate), _pole(release, sample_rate))
    return _run("compressor", x, audio, link, 1, curve, poles, makeup, state)


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
    *,
    state: State | None = None,
) -> Tensor | tuple[Tensor, State]:
    """Feed-forward downward expander: the mirror of `compressor` below the threshold.

    With L as in `compressor`, g = max((1 - ratio) k(threshold_db - L), -range_db), smoothed from 0 dB with the attack
    while g rises (the expander opens) and the release while it falls (it closes); y = x 10^(s / 20).

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        link: As in `compressor`.
        state: For audio in blocks, what the call on the block before returned; `{}` at rest.

    Returns:
        Audio as x, without delay; with a state, the pair of that and the next state,
        `{"smoothed_gain": (*batch,)}`, or `(*batch, channels)` if not linked, s in natural-logarithm units.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If link is unknown, a control does not match x or changes with time, a control of the detector has
            one value per channel while channels are linked, or a state does not match x.

    Domain:
        threshold_db acts as clamped to [-200, 200], ratio to [1, 10000] (a gate), knee_db and range_db to [0, inf],
        each with gradient 0 outside; a time of 0 ms or less is instantaneous.

    Example:
        >>> y = F.expander(torch.full((1, 44100), 1e-3), 44100, threshold_db=-40.0, ratio=2.0, release_ms=10.0)
        >>> (20 * y[0, -1].log10()).round()  # 20 dB below the threshold, made 40
        tensor(-80.)
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
    curve = (
        threshold.clamp(-_THRESHOLD_DB, _THRESHOLD_DB) * _NEPER,
        1 - slope.clamp(1, _EXPANDER_RATIO),
        knee.clamp_min(0) * _NEPER,
        most.clamp_min(0) * _NEPER,
    )
    poles = (_pole(release, sample_rate), _pole(attack, sample_rate))
    return _run("expander", x, audio, link, -1, curve, poles, torch.zeros_like(threshold), state)
