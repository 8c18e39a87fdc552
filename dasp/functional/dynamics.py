"""Dynamics: processors whose gain follows the level."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor

from dasp._checks import as_tensors, check_call, check_choice, control, is_automation, plain_control, recalled
from dasp._spec import Control, Param, State, processor
from dasp.kernels import DYNAMICS_CONTROLS, automated_dynamics, automated_gain, dynamics, gain_computer, numbers

LINKS = ("max", "mean", "none")
"""How channels share a detector."""

# What stands in the place of a control that a processor does not have.
_ABSENT = {"range_db": math.inf, "makeup_gain_db": 0.0}

Threshold = Annotated[Control, Param("dB", -60, 0, meaning="Level at which the processor sets in.")]
Ratio = Annotated[Control, Param("", 1, 20, "log", "Change of level in dB beyond the threshold.", domain=(1, math.inf))]
Attack = Annotated[Control, Param("ms", 0.1, 200, "log", "Attack time constant.", domain=(0, math.inf))]
Release = Annotated[Control, Param("ms", 5, 2000, "log", "Release time constant.", domain=(0, math.inf))]
Knee = Annotated[Control, Param("dB", 0, 24, meaning="Width of the knee.", domain=(0, math.inf))]


def _run(
    name: str,
    x: Tensor,
    audio: Tensor,
    sample_rate: float,
    link: str,
    direction: int,
    controls: Mapping[str, Control],
    state: State | None,
) -> Tensor | tuple[Tensor, State]:
    """Runs the kernel on groups of channels that share a detector; `audio` is x in its working type."""
    values = as_tensors(name, controls, audio)
    *batch, channels, samples = audio.shape
    groups = tuple(batch) if link != "none" else (*batch, channels)
    rows, wide = math.prod(groups), 1 if link == "none" else channels
    start = _shaped(recalled(name, {} if state is None else state, "smoothed_gain", groups, audio), (rows,))
    grouped = _shaped(audio, (rows, wide, samples))
    if any(is_automation(value, audio) for value in values.values()):
        curves = _curves(name, values, audio, link, rows)
        y, end = automated_dynamics(grouped, curves, start, direction, sample_rate, link == "mean")
    else:
        settings = {n: _setting(name, n, value, audio, link, groups) for n, value in values.items()}
        own_gains = settings.get("makeup_gain_db")
        if isinstance(own_gains, Tensor) and own_gains.ndim == 2:
            # Linked channels may be brought to different gains.
            del settings["makeup_gain_db"]
        curve, poles, makeup = gain_computer(_columns(settings, rows, audio), direction, sample_rate)
        if isinstance(own_gains, Tensor) and own_gains.ndim == 2:
            makeup = own_gains * (math.log(10) / 20)
        elif wide > 1:
            makeup = makeup.expand(rows, wide)
        y, end = dynamics(grouped, curve, poles, makeup, start, direction, link == "mean")
    y = _shaped(y, audio.shape).to(x.dtype)
    return y if state is None else (y, {"smoothed_gain": end.reshape(groups)})


def _shaped(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Reshaped, where it is not so already: a view that autograd knows of takes as long as a kernel on short audio."""
    return x if tuple(x.shape) == tuple(shape) else x.reshape(shape)


def _setting(name: str, argument: str, value: Control, x: Tensor, link: str, groups: tuple[int, ...]) -> float | Tensor:
    """A control as a number for all groups, a tensor with one value for each, or makeup gains `(groups, channels)`."""
    setting = plain_control(value, groups)
    if setting is not None:
        return setting
    *batch, channels, _ = x.shape
    tensor = _linked_control(name, argument, value, x, link).squeeze(-1)
    if link == "none":
        return tensor.expand(*batch, channels).reshape(math.prod(groups))
    if tensor.shape[-1] == 1:
        return tensor.expand(*batch, 1).reshape(math.prod(groups))
    return tensor.expand(*batch, channels).reshape(math.prod(groups), channels)


def _linked_control(name: str, argument: str, value: Control, x: Tensor, link: str) -> Tensor:
    """A control in float64, of which linked channels have one setting, but that makeup gains may differ."""
    tensor = control(name, argument, value, x, dtype=torch.float64)
    if link != "none" and tensor.shape[-2] > 1 and argument != "makeup_gain_db":
        shape = tuple(value.shape) if isinstance(value, Tensor) else tuple(tensor.shape)
        raise ValueError(f"{name}: {argument} has shape {shape}: one value per channel needs link='none'")
    return tensor


def _curves(name: str, values: Mapping[str, float | Tensor], x: Tensor, link: str, rows: int) -> list[Tensor]:
    """Controls that may change with time, as `automated_dynamics` takes them."""
    *batch, channels, _ = x.shape
    curves = []
    for argument in DYNAMICS_CONTROLS:
        if argument in values:
            tensor = _linked_control(name, argument, values[argument], x, link)
        else:
            tensor = torch.full((1, 1), _ABSENT[argument], dtype=torch.float64, device=x.device)
        own = channels if link == "none" else tensor.shape[-2]
        tensor = tensor.expand(*batch, own, tensor.shape[-1])
        tensor = tensor.reshape(rows, 1 if link == "none" else own, tensor.shape[-1])
        curves.append(tensor if argument == "makeup_gain_db" else tensor.squeeze(-2))
    return curves


def _columns(settings: Mapping[str, float | Tensor], rows: int, x: Tensor) -> Tensor:
    """Numbers and tensors `(rows,)` as the columns of a matrix in float64."""
    ordered = [settings[name] if name in settings else _ABSENT[name] for name in DYNAMICS_CONTROLS]
    tensors = [setting for setting in ordered if isinstance(setting, Tensor)]
    # Converted all at once where all are of one type, and the numbers are in it exactly.
    plain = [setting for setting in ordered if not isinstance(setting, Tensor)]
    if not tensors:
        return numbers(plain, x).expand(rows, len(plain))
    same = all(tensor.dtype == tensors[0].dtype for tensor in tensors)
    at_once = same and all(number in (0.0, math.inf) for number in plain)
    dtype = tensors[0].dtype if at_once else torch.float64
    columns = [
        setting.to(dtype) if isinstance(setting, Tensor) else tensors[0].new_full((rows,), setting, dtype=dtype)
        for setting in ordered
    ]
    return torch.stack(columns, -1).to(torch.float64)


@processor(automation=True)
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
    r"""Feed-forward compressor in the log domain with smooth branching (Giannoulis, Massberg and Reiss 2012).

    From the level $L = 20 \log_{10} \max(|x|, 10^{-8})$ of the linked channels follows a gain (their equation 4),

    $$g = (1 / \mathrm{ratio} - 1)\, k(L - \mathrm{threshold\_db})$$

    where $k(o)$ is 0 below the knee, $o$ above it, and $(o + \mathrm{knee\_db} / 2)^2 / (2\, \mathrm{knee\_db})$
    within.  It is smoothed from a start of 0 dB (equation 17),

    $$s[n] = a\, s[n - 1] + (1 - a)\, g[n], \quad a = e^{-1 / (t\, \mathrm{sample\_rate})}$$

    with $t$ the attack while $g[n] < s[n - 1]$ and the release otherwise, and applied:

    $$y = 10^{(s + \mathrm{makeup\_gain\_db}) / 20}\, x$$

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
        ValueError: If link is unknown, a control does not match x, a control of the detector has one value per channel
            while channels are linked, or a state does not match x.

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
    values = {
        "threshold_db": threshold_db,
        "ratio": ratio,
        "attack_ms": attack_ms,
        "release_ms": release_ms,
        "knee_db": knee_db,
        "makeup_gain_db": makeup_gain_db,
    }
    return _run("compressor", x, audio, sample_rate, link, 1, values, state)


@processor(automation=True)
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
    r"""Feed-forward downward expander: the mirror of `compressor` below the threshold.

    With $L$ and $k$ as in `compressor`,

    $$g = \max\{(1 - \mathrm{ratio})\, k(\mathrm{threshold\_db} - L),\, -\mathrm{range\_db}\}$$

    smoothed from 0 dB to $s$ with the attack while $g$ rises (the expander opens) and the release while it falls (it
    closes), and applied:

    $$y = 10^{s / 20}\, x$$

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
        ValueError: If link is unknown, a control does not match x, a control of the detector has one value per channel
            while channels are linked, or a state does not match x.

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
    values = {
        "threshold_db": threshold_db,
        "ratio": ratio,
        "attack_ms": attack_ms,
        "release_ms": release_ms,
        "knee_db": knee_db,
        "range_db": range_db,
    }
    return _run("expander", x, audio, sample_rate, link, -1, values, state)


def _gain_db(
    name: str, x: Tensor, sample_rate: float, link: str, direction: int, controls: Mapping[str, Control]
) -> Tensor:
    """The smoothed gain of a processor in dB, `(*batch, 1 or channels, samples)`, through the steps of automation."""
    audio = check_call(name, x, sample_rate)
    check_choice(name, "link", link, LINKS)
    values = as_tensors(name, controls, audio)
    *batch, channels, samples = audio.shape
    own, wide = (channels, 1) if link == "none" else (1, channels)
    rows = math.prod(batch) * own
    curves = _curves(name, values, audio, link, rows)
    rest = torch.zeros(rows, dtype=torch.float64, device=audio.device)
    grouped = audio.reshape(rows, wide, samples)
    smoothed, _, _ = automated_gain(grouped, curves, rest, direction, sample_rate, link == "mean")
    return (smoothed * (20 / math.log(10))).to(x.dtype).reshape(*batch, own, samples)


def compressor_gain(
    x: Tensor,
    sample_rate: float,
    threshold_db: Control = -24.0,
    ratio: Control = 4.0,
    attack_ms: Control = 10.0,
    release_ms: Control = 100.0,
    knee_db: Control = 6.0,
    link: str = "max",
) -> Tensor:
    """The gain that `compressor` applies before its makeup gain, s of its equations: what a meter of it shows.

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        threshold_db: As in `compressor`.
        ratio: As in `compressor`.
        attack_ms: As in `compressor`.
        release_ms: As in `compressor`.
        knee_db: As in `compressor`.
        link: As in `compressor`.

    Returns:
        Gain in dB, 0 or less, `(*batch, 1, samples)`, or `(*batch, channels, samples)` if channels are not linked.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If link is unknown, or a control does not match x.

    Example:
        >>> F.compressor_gain(torch.ones(1, 44100), 44100, threshold_db=-20.0, ratio=4.0)[0, -1].round()
        tensor(-15.)
    """
    values = {
        "threshold_db": threshold_db,
        "ratio": ratio,
        "attack_ms": attack_ms,
        "release_ms": release_ms,
        "knee_db": knee_db,
    }
    return _gain_db("compressor", x, sample_rate, link, 1, values)


def expander_gain(
    x: Tensor,
    sample_rate: float,
    threshold_db: Control = -40.0,
    ratio: Control = 2.0,
    attack_ms: Control = 5.0,
    release_ms: Control = 100.0,
    knee_db: Control = 6.0,
    range_db: Control = 40.0,
    link: str = "max",
) -> Tensor:
    """The gain that `expander` applies, s of its equations.

    Args:
        x: Audio `(*batch, channels, samples)`.
        sample_rate: Sample rate in Hz.
        threshold_db: As in `expander`.
        ratio: As in `expander`.
        attack_ms: As in `expander`.
        release_ms: As in `expander`.
        knee_db: As in `expander`.
        range_db: As in `expander`.
        link: As in `expander`.

    Returns:
        Gain in dB, 0 or less, `(*batch, 1, samples)`, or `(*batch, channels, samples)` if channels are not linked.

    Raises:
        TypeError: If x is not floating-point audio.
        ValueError: If link is unknown, or a control does not match x.

    Example:
        >>> x = torch.full((1, 44100), 1e-3)
        >>> F.expander_gain(x, 44100, threshold_db=-40.0, ratio=2.0, release_ms=10.0)[0, -1].round()
        tensor(-20.)
    """
    values = {
        "threshold_db": threshold_db,
        "ratio": ratio,
        "attack_ms": attack_ms,
        "release_ms": release_ms,
        "knee_db": knee_db,
        "range_db": range_db,
    }
    return _gain_db("expander", x, sample_rate, link, -1, values)
