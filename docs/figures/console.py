"""The picture of the page about the console: what is heard along the way."""

from __future__ import annotations

import numpy as np
from figures.media import RATE, code_of, names_after, panel, picture
from matplotlib.axes import Axes

import dasp.functional as F


@picture(
    "Gain reduction of the six compressors over time: each falls with the notes of its track, by up to 12 dB.",
    "Momentary loudness of the six strips over time, and of the mix, which is above them all, near -19 LUFS.",
)
def signals() -> list[Axes]:
    """What ``heard`` holds: ``gain_db["track.compressor"]``, and the loudness of ``strips`` and ``mix``."""
    names = names_after(code_of("console.rst", "desk"))
    heard, tracks = names["heard"], names["song"].names
    gain, level = panel(xlabel="time in s", ylabel="gain in dB"), panel(xlabel="time in s", ylabel="loudness in LUFS")
    for track, (name, own) in enumerate(zip(tracks, heard.gain_db["track.compressor"], strict=True)):
        line = {"linewidth": 1.0, "color": f"C{track % 5}", "linestyle": "-" if track < 5 else "--", "label": name}
        gain.plot(np.arange(own.shape[-1])[::200] / RATE, own[0, ::200], **line)
        loudness = F.momentary_loudness(heard.strips[track], RATE)
        level.plot(0.4 + 0.1 * np.arange(len(loudness)), loudness, **line)
    loudness = F.momentary_loudness(heard.mix, RATE)
    level.plot(0.4 + 0.1 * np.arange(len(loudness)), loudness, color="black", label="mix")
    gain.set_ylim(1.5 * gain.get_ylim()[0], 1)
    level.set_ylim(-75, -10)
    for axes in (gain, level):
        axes.legend(loc="lower center", ncols=4)
    return [gain, level]
