"""Fits consoles to mixes whose settings are known, and says how close it comes: `python -m benchmarks.fitting`.

Each seed draws a song of eight tracks and settings of equalisers, compressors, faders and pans that a person might
choose, which the fit does not know.  Figures:

heard_db     level of what each strip gives, mean and largest difference: equaliser and compressor included
level_db     fader and make-up gain, mean and largest difference over the tracks
pan          mean and largest difference
eq_db        mean difference of the responses of the equalisers, 50 Hz to 16 kHz, without their mean
envelope_db  mean level difference of third-octave bands in 100 ms frames, over left, right, mid and side, where the
             reference is within 50 dB of its loudest

A folder with stems/ and reference_mix.flac, by default ../shared/multitrack where that is, is fitted too, also with its
last third held out: solved on the first two thirds, scored on the rest.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
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
from dasp.mixing.responses import equalizer_response

SAMPLE_RATE = 44100
TRACKS, SECONDS = 8, 10.0
SEEDS, STEPS = 5, 60
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
    controls = {name: value.double() for name, value in values["track"]["parametric_eq"].items()}
    frequency = torch.logspace(np.log10(50), np.log10(min(16000, 0.45 * sample_rate)), 200, dtype=torch.float64)
    kinds = ("low_shelf", "peaking", "peaking", "high_shelf")
    level = 20 * equalizer_response(kinds, controls, sample_rate, frequency).abs().log10()
    return level - level.mean(-1, keepdim=True)


def compare(
    desk: DifferentiableMixingConsole, tracks: Sequence[Tensor], found: dict[str, Tensor], true: dict[str, Tensor]
) -> dict[str, float]:
    """The figures of one fit."""
    with torch.no_grad():
        mix, reference = desk(tracks, found), desk(tracks, true)
        heard = [desk.strips(tracks, desk.denormalize(u)["track"]).square().mean((-1, -2)) for u in (found, true)]
    return _compare(desk.denormalize(found), desk.denormalize(true), mix, reference, desk.sample_rate) | {
        "heard_db": float((10 * (heard[0] / heard[1]).log10()).abs().mean()),
        "heard_max_db": float((10 * (heard[0] / heard[1]).log10()).abs().max()),
    }


def _compare(found: Values, true: Values, mix: Tensor, reference: Tensor, sample_rate: float) -> dict[str, float]:

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
    steps: int = STEPS,
) -> dict[str, float]:
    """Fits one random console."""
    desk, audio, controls = hidden(seed, seconds, sample_rate, tracks, with_master)
    with torch.no_grad():
        reference = desk(audio, controls)
    begin = time.perf_counter()
    result = fit(desk, audio, reference, steps=steps)
    took = time.perf_counter() - begin
    return {**compare(desk, audio, result.controls, controls), "seconds": took}


def run_multitrack(folder: Path, steps: int = STEPS, held_out: bool = False) -> dict[str, float]:
    """Fits the default console to a mix of another engine, or its first two thirds, and scores the rest."""
    stems = io.load_tracks(io.find_stems(folder / "stems"))
    reference = io.load(folder / "reference_mix.flac").samples[..., : stems.tracks[0].shape[-1]]
    end = 2 * reference.shape[-1] // 3 if held_out else reference.shape[-1]
    begin = time.perf_counter()
    desk = DifferentiableMixingConsole(stems.sample_rate)
    result = fit(desk, [t[..., :end] for t in stems.tracks], reference[..., :end], steps=steps, reverb="impulse")
    took = time.perf_counter() - begin
    with torch.no_grad():
        mix = result.console(stems.tracks, result.controls)
    scored = slice(end, None) if held_out else slice(None)
    mix, reference = mix[..., scored], reference[..., scored]

    def width_db(x: Tensor) -> float:
        return float(10 * ((x[0] - x[1]).square().mean() / (x[0] + x[1]).square().mean()).log10())

    return {
        "envelope_db": envelope_db(mix, reference, stems.sample_rate),
        "width_db": abs(width_db(mix) - width_db(reference)),
        "seconds": took,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the figures of every seed, their means, and those of the multitrack, as lines and as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--master", action="store_true", help="hidden masters too: equaliser and compressor")
    parser.add_argument("--quick", action="store_true", help="whether all of it works: one short song of three tracks")
    parser.add_argument("--multitrack", type=Path, default=MULTITRACK)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    given = parser.parse_args(arguments)
    rows: dict[str, dict[str, float]] = {}
    if given.quick:
        rows["quick"] = run_hidden(0, 3.0, 16000, 3, given.master, 5)
    else:
        for seed in range(given.seeds):
            name = f"seed {seed}"
            rows[name] = run_hidden(seed, with_master=given.master, steps=given.steps)
            print(_line(name, rows[name]), flush=True)
        seeds = list(rows.values())
        rows["mean"] = {key: float(np.mean([row[key] for row in seeds])) for key in seeds[0]} if seeds else {}
        if (given.multitrack / "stems").is_dir():
            rows["multitrack"] = run_multitrack(given.multitrack, given.steps)
            rows["multitrack, held out"] = run_multitrack(given.multitrack, given.steps, held_out=True)
    for name, row in rows.items():
        if not name.startswith("seed "):
            print(_line(name, row))
    print("targets: " + ", ".join(f"{key} {value:g}" for key, value in TARGETS.items()))
    if given.json:
        given.json.write_text(json.dumps({"threads": torch.get_num_threads(), "rows": rows}, indent=2) + "\n")


def _line(name: str, row: dict[str, float]) -> str:
    return f"{name:22}" + "  ".join(f"{key} {value:.3f}" for key, value in row.items())


if __name__ == "__main__":
    main()
