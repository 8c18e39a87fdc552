"""Fits consoles to mixes whose settings are known, and says how close it comes: `python -m benchmarks.fitting`.

Each seed draws a song of eight tracks and settings of equalisers, compressors, faders and pans that a person might
choose, which the fit does not know.  Figures:

level_db     fader and make-up gain, mean and largest difference over the tracks
pan          mean and largest difference
eq_db        mean difference of the responses of the equalisers, 50 Hz to 16 kHz, without their mean
envelope_db  mean level difference of third-octave bands in 100 ms frames, over left, right, mid and side, where the
             reference is within 50 dB of its loudest

With `--multitrack FOLDER`, or ../shared/multitrack where that is, the command `dasp fit` runs on its stems and
reference_mix.flac, whose settings are another engine's; `--held-out` fits the first two thirds of it and scores the rest.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import scipy.signal
import torch
from torch import Tensor

import dasp.functional as F
import dasp.modules as M
from dasp import io
from dasp.mixing import DifferentiableMixingConsole, fit, multitrack, plausible_controls
from dasp.mixing.controls import Values

SAMPLE_RATE = 44100
TRACKS, SECONDS = 8, 10.0
SEEDS = 5
MULTITRACK = Path(__file__).parents[2] / "shared" / "multitrack"
TARGETS = {"level_db": 0.5, "pan": 0.05, "eq_db": 1.0, "envelope_db": 0.3}


def console(sample_rate: float = SAMPLE_RATE, with_master: bool = False) -> DifferentiableMixingConsole:
    """A console of strips alone, or with the default master."""
    from dasp.mixing.presets import default_master, default_strip

    locked = ["track.compressor.makeup_gain_db"]
    if with_master:
        master, also = default_master(sample_rate), "master.compressor.makeup_gain_db"
    else:
        master, also = M.Chain(M.Gain(sample_rate)), "master.gain.gain_db"
    return DifferentiableMixingConsole(sample_rate, default_strip(sample_rate), {}, master, [*locked, also])


def envelope_db(mix: Tensor, reference: Tensor, sample_rate: float) -> float:
    """Mean level difference of third-octave bands in 100 ms frames, see above, at equal loudness."""
    loudness = [float(F.integrated_loudness(x.double(), sample_rate)) for x in (mix, reference)]
    x, y = mix.double().numpy() * 10 ** ((loudness[1] - loudness[0]) / 20), reference.double().numpy()
    size = 4096
    frequency = np.fft.rfftfreq(size, 1 / sample_rate)
    centres = 1000 * 2.0 ** (np.arange(-13, 13) / 3)
    bank = np.array([(frequency >= c * 2 ** (-1 / 6)) & (frequency < c * 2 ** (1 / 6)) for c in centres], float)

    def levels(signal: np.ndarray) -> np.ndarray:
        hop = int(sample_rate) // 20
        power = bank @ np.abs(scipy.signal.stft(signal, sample_rate, nperseg=size, noverlap=size - hop)[2]) ** 2
        return np.asarray(power[:, 1:] + power[:, :-1])

    rows = np.array([[1, 0], [0, 1], [1, 1], [1, -1]])
    total = []
    for a, b in zip(rows @ x, rows @ y, strict=True):
        have, want = levels(a), levels(b)
        floor = max(want.max(), 1e-12) * 1e-5
        off = np.abs(10 * np.log10(np.maximum(have, floor) / np.maximum(want, floor)))
        total.append(off[want > floor].mean() if (want > floor).any() else 0.0)
    return float(np.mean(total))


def response_db(values: Values, sample_rate: float) -> Tensor:
    """Response of the equaliser of each track without its mean, `(tracks, frequencies)`."""
    equalizer = values["track"]["parametric_eq"]
    frequency = torch.logspace(np.log10(50), np.log10(min(16000, 0.45 * sample_rate)), 200, dtype=torch.float64)
    kinds = ("low_shelf", "peaking", "peaking", "high_shelf")
    bands = [
        F.biquad(kind, sample_rate, *(equalizer[name][:, band].double() for name in ("frequency_hz", "gain_db", "q")))
        for band, kind in enumerate(kinds)
    ]
    level = 20 * torch.stack([F.sosfreqz(sos[:, None], frequency, sample_rate).abs().log10() for sos in bands]).sum(0)
    return level - level.mean(-1, keepdim=True)


def compare(found: Values, true: Values, mix: Tensor, reference: Tensor, sample_rate: float) -> dict[str, float]:
    """The figures of one fit."""

    def level(values: Values) -> Tensor:
        return values["track"]["gain"]["gain_db"] + values["track"]["compressor"]["makeup_gain_db"]

    levels = (level(found) - level(true)).abs()
    pans = (found["track"]["stereo_panner"]["pan"] - true["track"]["stereo_panner"]["pan"]).abs()
    responses = (response_db(found, sample_rate) - response_db(true, sample_rate)).abs().mean(-1)
    return {
        "level_db": float(levels.mean()),
        "level_max_db": float(levels.max()),
        "pan": float(pans.mean()),
        "pan_max": float(pans.max()),
        "eq_db": float(responses.mean()),
        "eq_max_db": float(responses.max()),
        "envelope_db": envelope_db(mix, reference, sample_rate),
    }


def hidden(
    seed: int, seconds: float, sample_rate: int, tracks: int, with_master: bool
) -> tuple[DifferentiableMixingConsole, list[Tensor], dict[str, Tensor]]:
    """A console, the tracks of a song, and settings that are usual for it."""
    song = multitrack(seed, seconds, sample_rate, tracks)
    desk = console(sample_rate, with_master)
    controls = plausible_controls(desk, song.tracks, song.instruments, torch.Generator().manual_seed(seed))
    return desk, list(song.tracks), controls


def run_hidden(
    seed: int,
    seconds: float = SECONDS,
    sample_rate: int = SAMPLE_RATE,
    tracks: int = TRACKS,
    with_master: bool = False,
    steps: int | None = None,
) -> dict[str, float]:
    """Fits one random console."""
    desk, audio, controls = hidden(seed, seconds, sample_rate, tracks, with_master)
    with torch.no_grad():
        reference = desk(audio, controls)
    begin = time.perf_counter()
    result = fit(desk, audio, reference, **({} if steps is None else {"steps": steps}))
    took = time.perf_counter() - begin
    with torch.no_grad():
        mix = desk(audio, result.controls)
    figures = compare(desk.denormalize(result.controls), desk.denormalize(controls), mix, reference, sample_rate)
    return {**figures, "seconds": took}
