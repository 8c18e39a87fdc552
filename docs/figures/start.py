"""The picture of the start page: what its code does."""

from __future__ import annotations

import numpy as np
import torch
from figures.media import RATE, code_of, names_after, panel, picture
from matplotlib.axes import Axes
from torch import Tensor

import dasp.functional as F

_SIZE = 8192


def third_octaves_db(x: Tensor) -> tuple[np.ndarray, Tensor]:
    """Centres in Hz and mean levels in dB of third-octave bands of audio `(channels, samples)`."""
    frames = x.double().unfold(-1, _SIZE, _SIZE // 2) * torch.hann_window(_SIZE, dtype=torch.float64)
    power = torch.fft.rfft(frames).abs().square().mean((0, 1)) / (_SIZE * _SIZE / 16)
    centres = 1000 * 2.0 ** (np.arange(-13, 13) / 3)
    edges = np.outer(centres, (2 ** (-1 / 6), 2 ** (1 / 6))) * (_SIZE / RATE)
    bands = [power[max(1, round(low)) : max(round(high), round(low) + 1)].sum() for low, high in edges]
    return centres, 10 * torch.stack(bands).clamp_min(1e-9).log10()


def frequency_axis(axes: Axes) -> None:
    axes.set(xscale="log", xlabel="frequency in Hz", ylabel="level in dB")
    axes.set_xticks([100, 1000, 10000], ["100", "1k", "10k"])


@picture(
    "Third-octave spectra of the song before and after, at one loudness: after, there is more above 8 kHz, and less "
    "below, least of all around 600 Hz.",
    "The gain of the compressor over time for kick, bass and lead: it falls with every note, most for the bass, and "
    "recovers.",
)
def chain() -> list[Axes]:
    """The spectrum of the song before and after, at one loudness, and the gain that the compressor gives three of its
    tracks."""
    names = names_after(code_of("index.rst", "start"))
    spectrum, gain = panel(), panel(xlabel="time in s", ylabel="gain in dB")
    for label, audio in (("before", names["x"]), ("after", names["y"])):
        mix = audio.detach().sum(0)
        spectrum.plot(*third_octaves_db(F.gain(mix, RATE, -20 - F.integrated_loudness(mix, RATE))), label=label)
    frequency_axis(spectrum)
    spectrum.legend()
    for track, label in ((0, "kick"), (3, "bass"), (5, "lead")):
        before, after = (names[name][track, 0].detach().double().abs() for name in ("equalized", "compressed"))
        heard = before > 1e-6
        time = np.flatnonzero(heard) / RATE
        level = 20 * (after[heard] / before[heard]).log10()
        gain.plot(time[::100], level[::100], linewidth=1, label=label)
    gain.legend(loc="lower right", ncols=3)
    return [spectrum, gain]
