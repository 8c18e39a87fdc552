"""A picture of a fitted console: equaliser curves, faders, pans and sends, and the loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

import dasp.functional as F
from dasp.mixing.console import DifferentiableMixingConsole
from dasp.mixing.controls import SEND, Values

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 400
_LOWEST_HZ = 20.0


def draw(
    path: str | Path,
    console: DifferentiableMixingConsole,
    values: Values,
    names: Sequence[str],
    losses: Sequence[float] = (),
) -> None:
    """Draws what a fit found; the decay of an impulse response too, if there is one.

    Args:
        path: The file to write; its suffix is the format, such as .png or .svg.
        console: The console.
        values: Physical controls of one mix, as `console.denormalize` gives them.
        names: A name for each track.
        losses: Loss of each step in dB.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-(len(names) + 1) // 4)
    figure = Figure(figsize=(13, 2.3 * rows + 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = np.asarray(figure.subfigures(2, 1, height_ratios=[2.3 * rows, 3.4]))
    curves = top.subplots(rows, 4, sharex=True, sharey=True, squeeze=False).reshape(-1)
    frequency = np.geomspace(_LOWEST_HZ, 0.49 * console.sample_rate, _POINTS)
    for position, (axes, name) in enumerate(zip(curves, names, strict=False)):
        controls = {k: v[position] for k, v in values["track"].get("parametric_eq", {}).items()}
        _draw_curve(axes, name, _response_db(console, "track", controls, frequency), frequency)
    master = values["master"].get("parametric_eq", {})
    _draw_curve(curves[len(names)], "master", _response_db(console, "master", master, frequency), frequency)
    for axes in curves[len(names) + 1 :]:
        axes.set_visible(False)
    room = next((bus for bus in console.buses if _response(console, bus) is not None), None)
    faders, pans, sends, *decay, loss = bottom.subplots(1, 4 if room is None else 5)
    if room is not None:
        _draw_decay(decay[0], room, _response(console, room), console.sample_rate)
    _draw_bars(faders, "fader (dB)", names, values["track"].get("gain", {}).get("gain_db"))
    _draw_bars(pans, "pan", names, values["track"].get("stereo_panner", {}).get("pan"), (-1.05, 1.05))
    send = next(iter(values["track"]["send"].values()), None)
    _draw_bars(sends, "send (dB)", names, send, (SEND.low, SEND.high), foot=SEND.low)
    loss.plot(np.arange(1, len(losses) + 1), losses, linewidth=1)
    loss.set(title="loss of each step (dB)", xlabel="step")
    loss.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def _response(console: DifferentiableMixingConsole, bus: str) -> Tensor | None:
    """The impulse response of a bus, if it has one."""
    stages = console.sections()[bus].stages()
    return stages["convolution_reverb"].get_buffer("impulse_response") if "convolution_reverb" in stages else None


def _draw_decay(axes: Axes, bus: str, response: Tensor | None, sample_rate: float) -> None:
    """What is left of the energy of an impulse response after each time (Schroeder 1965)."""
    if response is None:
        return
    power = response.detach().double().square().sum(0)
    left = power.flip(0).cumsum(0).flip(0)
    level_db = 10 * torch.log10((left / left[0].clamp_min(1e-30)).clamp_min(1e-8))
    time = np.arange(len(left)) / sample_rate
    axes.plot(time, level_db.numpy(), linewidth=1)
    axes.set(title=f"decay of {_plain(bus)} (dB)", xlabel="s", ylim=(-80, 5))
    axes.grid(alpha=0.3)


def _response_db(
    console: DifferentiableMixingConsole, section: str, controls: dict[str, Tensor], frequency: np.ndarray
) -> np.ndarray:
    """Response of the equaliser of a section in dB; flat without one."""
    stage = console.sections()[section].stages().get("parametric_eq")
    if stage is None or not controls:
        return np.zeros_like(frequency)
    bands = zip(stage.options["kinds"], *(controls[name] for name in ("frequency_hz", "gain_db", "q")), strict=True)
    sos = torch.stack([F.biquad(kind, console.sample_rate, *band) for kind, *band in bands])
    response = F.sosfreqz(sos, torch.from_numpy(frequency), console.sample_rate)
    return np.asarray(20 * response.abs().clamp_min(1e-6).log10())


def _draw_curve(axes: Axes, name: str, level_db: np.ndarray, frequency: np.ndarray) -> None:
    axes.semilogx(frequency, level_db)
    axes.axhline(0, color="gray", linewidth=0.5)
    axes.set(xlim=(frequency[0], frequency[-1]), ylim=(-20, 20))
    axes.set_title(_plain(name), fontsize=10)
    axes.set_xticks([100, 1000, 10000], ["100", "1k", "10k"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)


def _draw_bars(
    axes: Axes,
    title: str,
    names: Sequence[str],
    level: Tensor | None,
    limits: tuple[float, float] | None = None,
    foot: float = 0.0,
) -> None:
    """Bars from `foot` to each track's level."""
    positions = np.arange(len(names))[::-1]
    if level is not None:
        axes.barh(positions, level.detach().double().numpy() - foot, left=foot, height=0.6)
    axes.set_yticks(positions, [_plain(name) for name in names], fontsize=8)
    axes.axvline(foot, color="gray", linewidth=0.8)
    axes.set_title(title)
    if limits is not None:
        axes.set_xlim(*limits)
    axes.grid(alpha=0.3, axis="x")


def _plain(name: str) -> str:
    """A track name as plain text: matplotlib would read formulas between dollar signs."""
    return name[:24].replace("$", r"\$")
