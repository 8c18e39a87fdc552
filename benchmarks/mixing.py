"""How near controllers come to a mix they have not heard, beside simple mixes: `python -m benchmarks.mixing`.

Songs are synthetic and held out: no training has used their seeds.  Without a reference, each system mixes a song, and
what comes out is compared with the mix that is plausible for the instruments.  With a reference, which is the mix of
another section of the song by settings that were drawn, it is compared with the reference's features.  The simple mixes
are the sum, equal loudness and random settings; each is brought to the level of the target, which helps them.  Least
squares, the best that one gain per track and channel can do, hears the target: it is no system but a limit of faders.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.signal
import torch
from torch import Tensor

import dasp.functional as F
from benchmarks import report
from dasp import io
from dasp.mixing import (
    AudioFeatureLoss,
    Controller,
    DifferentiableMixingConsole,
    MixDataset,
    StereoSTFTLoss,
    SynthSongs,
    fit,
)

SCHEMA = 1
"""Changes with the meaning of the JSON's fields."""

_HELD_OUT = range(900_000, 1_000_000)
_SHARED = Path(__file__).resolve().parents[2] / "shared" / "multitrack"
_STIMULI_LUFS = -23.0
# What a system has to reach, relative to another.
_LESS_THAN_SIMPLE, _LESS_WITH_REFERENCE = 0.7, 0.5
_SIMPLE = ("sum", "equal loudness", "random")

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Size:
    """How much is done: the whole evaluation, or a quick one that shows that all of it works."""

    songs: int = 16
    seconds: float = 10.0
    tracks: tuple[int, ...] = (4, 8, 16)
    sample_rates: tuple[int, ...] = (44100, 48000)
    fit_steps: int = 100


QUICK = Size(songs=2, seconds=3.0, fit_steps=5)


# ---- metrics, which are not the losses that anything was trained on


def metrics(mix: Tensor, target: Tensor, sample_rate: int) -> dict[str, float]:
    """Distances of a mix from a target, lower is better; all but the first after both are brought to one loudness.

    Returns:
        loudness_lu: Difference of integrated loudness.
        envelope_db: Mean difference of third-octave levels in frames of 100 ms, of left, right, mid and side.
        mrstft_db: Mean difference of log magnitudes of mid and side, bin by bin, at three sizes.
        band_db: Mean difference of third-octave levels over all, left and right.
        width_db: Difference of the ratio of side to mid.
        crest_db: Difference of crest factors.
    """
    have, want = (float(F.integrated_loudness(x, sample_rate)) for x in (mix, target))
    x = mix.double().numpy() * 10 ** ((want - have) / 20)
    y = target.double().numpy()
    return {
        "loudness_lu": abs(have - want),
        "envelope_db": _envelope(x, y, sample_rate),
        "mrstft_db": _mrstft(x, y),
        "band_db": float(np.abs(_bands(x, sample_rate) - _bands(y, sample_rate)).mean()),
        "width_db": abs(_width(x) - _width(y)),
        "crest_db": abs(_crest(x) - _crest(y)),
    }


def _stft(x: Array, size: int, overlap: int) -> Array:
    window = scipy.signal.get_window("hann", size)
    return np.abs(scipy.signal.stft(x, window=window, nperseg=size, noverlap=overlap)[2])


def _difference_db(a: Array, b: Array, below: float, factor: float) -> float:
    """Mean difference of levels where b is less than `below` under its highest."""
    floor = max(b.max(), 1e-12) * below
    ratio = np.maximum(a, floor) / np.maximum(b, floor)
    return float(np.abs(factor * np.log10(ratio))[b > floor].mean())


def _mrstft(x: Array, y: Array) -> float:
    pairs = ((x[0] + x[1], y[0] + y[1]), (x[0] - x[1], y[0] - y[1]))
    sizes = (512, 2048, 8192)
    found = [
        _difference_db(_stft(a, size, size * 3 // 4), _stft(b, size, size * 3 // 4), 1e-3, 20)
        for a, b in pairs
        for size in sizes
    ]
    return statistics.mean(found)


def _third_octaves(frequency: Array) -> Array:
    centres = 1000 * 2.0 ** (np.arange(-13, 13) / 3)[:, None]
    return ((frequency >= centres * 2 ** (-1 / 6)) & (frequency < centres * 2 ** (1 / 6))).astype(float)


def _envelope(x: Array, y: Array, sample_rate: int, size: int = 4096) -> float:
    bank = _third_octaves(np.fft.rfftfreq(size, 1 / sample_rate))

    def levels(s: Array) -> Array:
        power: Array = bank @ _stft(s, size, size - sample_rate // 20) ** 2
        return power[:, 1:] + power[:, :-1]

    def signals(s: Array) -> list[Array]:
        return [s[0], s[1], s[0] + s[1], s[0] - s[1]]

    pairs = zip(signals(x), signals(y), strict=True)
    return statistics.mean(_difference_db(levels(a), levels(b), 1e-5, 10) for a, b in pairs)


def _bands(x: Array, sample_rate: int) -> Array:
    frequency, power = scipy.signal.welch(x, sample_rate, nperseg=16384)
    levels: Array = 10 * np.log10(power @ _third_octaves(frequency).T + 1e-14)
    return levels


def _width(x: Array) -> float:
    mid, side = x[0] + x[1], x[0] - x[1]
    return float(10 * np.log10((np.mean(side**2) + 1e-12) / (np.mean(mid**2) + 1e-12)))


def _crest(x: Array) -> float:
    return float(20 * np.log10(np.abs(x).max() / np.sqrt(np.mean(x**2))))


# ---- systems


def simple(tracks: Tensor, target: Tensor, console: DifferentiableMixingConsole, seed: int) -> dict[str, Tensor]:
    """Mixes without a model, at the level of the target."""
    rate = console.sample_rate
    flat = tracks.mean(-2)
    level_db = F.integrated_loudness(flat[:, None], rate).clamp_min(-70)
    drawn = console.random_controls(len(tracks), torch.Generator().manual_seed(seed))
    gains = torch.linalg.lstsq(flat.T.double(), target.T.double()).solution
    mixes = {
        "sum": flat.sum(0).expand(2, -1),
        "equal loudness": (flat * 10 ** ((-30 - level_db[:, None]) / 20)).sum(0).expand(2, -1),
        "random": console(tracks, drawn),
        "least squares": (flat.T.double() @ gains).T.float(),
    }
    power = target.square().mean()
    return {name: x * (power / x.square().mean().clamp_min(1e-12)).sqrt() for name, x in mixes.items()}


def _mixed(controller: Controller, tracks: Tensor, reference: Tensor | None = None) -> Tensor:
    return controller.console(tracks, controller(tracks, reference=reference))


def _fitted(console: DifferentiableMixingConsole, tracks: Tensor, target: Tensor, steps: int) -> Tensor:
    with torch.enable_grad():
        found = fit(console, list(tracks), target, steps=steps)
    return console(tracks, found.controls)


class Stimuli:
    """Mixes of one song at one loudness, as files to listen to and compare; quieter together if one would clip."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def write(self, song: str, mixes: dict[str, Tensor], sample_rate: int) -> None:
        """Writes each mix of a song."""
        if self.folder is None:
            return
        loud = {
            n: x * 10 ** ((_STIMULI_LUFS - float(F.integrated_loudness(x, sample_rate))) / 20) for n, x in mixes.items()
        }
        peak = max(float(x.abs().max()) for x in loud.values())
        folder = self.folder / song
        folder.mkdir(parents=True, exist_ok=True)
        for name, x in loud.items():
            io.save(folder / f"{name}.wav", x / max(1.0, peak), sample_rate, subtype="PCM_24", force=True)


# ---- evaluation


def without_reference(
    controller: Controller, tracks: int, size: Size, stimuli: Stimuli, with_fit: bool
) -> list[dict[str, Any]]:
    """Distances of each system's mixes from plausible ones."""
    console = controller.console
    rate = int(console.sample_rate)
    data = _songs(console, tracks, "target", size)
    stft, features = StereoSTFTLoss(resolutions=(2048,)), AudioFeatureLoss(rate)
    rows = []
    for index in range(size.songs):
        item = data[index]
        x, y = item["tracks"][item["mask"]], item["target"]
        mixes = {**simple(x, y, console, index), "controller": _mixed(controller, x)}
        if with_fit:
            mixes["fit"] = _fitted(console, x, y, size.fit_steps)
        stimuli.write(f"{tracks} tracks {rate} Hz {index}", {"target": y, **mixes}, rate)
        for name, mix in mixes.items():
            found = {"stft_db": float(stft(mix, y)), "features": float(features(mix, y)), **metrics(mix, y, rate)}
            rows.append(
                {"task": "target", "system": name, "tracks": tracks, "sample_rate": rate, "song": index, **found}
            )
    return rows


def with_reference(controller: Controller, tracks: int, size: Size, stimuli: Stimuli) -> list[dict[str, Any]]:
    """Distances of mixes, with the reference heard and not, from the features of the reference."""
    console = controller.console
    rate = int(console.sample_rate)
    data = _songs(console, tracks, "reference", size)
    features = AudioFeatureLoss(rate)
    rows = []
    for index in range(size.songs):
        item = data[index]
        x, reference, y = item["tracks"][item["mask"]], item["reference"], item["target"]
        neutral = console(x, console.default_controls(len(x)))
        mixes = {
            "neutral": neutral,
            "without reference": _mixed(controller, x),
            "with reference": _mixed(controller, x, reference),
            "true settings": y,
        }
        stimuli.write(f"reference {tracks} tracks {rate} Hz {index}", {"reference": reference, **mixes}, rate)
        for name, mix in mixes.items():
            terms = {f"features_{term}": float(value) for term, value in features.terms(mix, reference).items()}
            found = {"features": float(features(mix, reference)), **terms, **metrics(mix, y, rate)}
            rows.append(
                {"task": "reference", "system": name, "tracks": tracks, "sample_rate": rate, "song": index, **found}
            )
    return rows


def _songs(console: DifferentiableMixingConsole, tracks: int, recipe: Any, size: Size) -> MixDataset:
    songs = SynthSongs(_HELD_OUT, tracks)
    return MixDataset(songs, console, recipe, size.songs, size.seconds, tracks, seed=tracks)


def recorded(
    controller: Controller, folder: Path, stimuli: Stimuli, with_fit: bool, size: Size
) -> list[dict[str, Any]]:
    """The same of a song that was recorded, with a mix made on another engine."""
    rate = int(controller.console.sample_rate)
    target = io.load(folder / "reference_mix.flac")
    loaded = io.load_tracks(io.find_stems(folder / "stems"), rate)
    y = io.resample(target.samples, target.sample_rate, rate)
    end = min(y.shape[-1], loaded.tracks[0].shape[-1])
    x, y = torch.stack([track.mean(0, keepdim=True)[..., :end] for track in loaded.tracks]), y[..., :end]
    mixes = {**simple(x, y, controller.console, 0), "without reference": _mixed(controller, x)}
    if controller.config["reference"]:
        mixes["with reference"] = _mixed(controller, x, y)
    if with_fit:
        mixes["fit"] = _fitted(controller.console, x, y, size.fit_steps)
    stimuli.write("recorded", {"reference": y, **mixes}, rate)
    features = AudioFeatureLoss(rate)
    return [
        {"task": "recorded", "system": name, "tracks": len(x), "sample_rate": rate, "song": 0}
        | {"features": float(features(mix, y)), **metrics(mix, y, rate)}
        for name, mix in mixes.items()
    ]


def permutation(controller: Controller, size: Size) -> float:
    """Highest difference of a sample when the tracks come in another order, relative to the peak of the mix."""
    item = _songs(controller.console, 8, "target", size)[0]
    x = item["tracks"][item["mask"]]
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    mix = _mixed(controller, x)
    return float((_mixed(controller, x[order]) - mix).abs().max() / mix.abs().max())


def speed(controller: Controller, size: Size) -> dict[str, float]:
    """Seconds that controls and mix of 8 tracks take, and how many times faster than real time both are."""
    item = _songs(controller.console, 8, "target", size)[0]
    x = item["tracks"][item["mask"]]

    def median_s(call: Callable[[], object]) -> float:
        durations = []
        for _ in range(5):
            start = time.perf_counter()
            call()
            durations.append(time.perf_counter() - start)
        return statistics.median(durations)

    controls = controller(x)
    found = {
        "controller_s": median_s(lambda: controller(x)),
        "mix_s": median_s(lambda: controller.console(x, controls)),
    }
    return {**found, "times_real_time": size.seconds / sum(found.values()), "threads": torch.get_num_threads()}


# ---- report


_ID = ("task", "system", "tracks", "sample_rate", "song")


def summary(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over songs, a row for each task, system, number of tracks and sample rate."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in _ID[:-1]), []).append(row)
    means = []
    for key, members in groups.items():
        names = [name for name in members[0] if name not in _ID]
        figures = {name: statistics.mean(member[name] for member in members) for name in names}
        means.append({**dict(zip(_ID[:-1], key, strict=True)), "songs": len(members), **figures})
    return means


def complaints(means: Sequence[dict[str, Any]]) -> list[str]:
    """What is missed of what the controller is to reach on held-out songs."""
    found = []
    by_place: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in means:
        by_place.setdefault((row["task"], row["tracks"], row["sample_rate"]), {})[row["system"]] = row
    for (task, tracks, rate), systems in by_place.items():
        where = f"{tracks} tracks at {rate} Hz"
        if task == "target":
            for figure in ("stft_db", "features"):
                best = min(systems[name][figure] for name in _SIMPLE)
                have = systems["controller"][figure]
                if have > _LESS_THAN_SIMPLE * best:
                    found.append(f"{where}: {figure} is {have:.3g}, the best simple mix has {best:.3g}")
        elif task == "reference":
            have, best = systems["with reference"]["features"], systems["without reference"]["features"]
            if have > _LESS_WITH_REFERENCE * best:
                found.append(f"{where}: features are {have:.3g} with a reference, {best:.3g} without")
    return found


def table(means: Sequence[dict[str, Any]]) -> str:
    """The means as text."""
    columns = ("stft_db", "features", "loudness_lu", "envelope_db", "mrstft_db", "band_db", "width_db", "crest_db")
    lines = ["".join([f"{'task':10}{'tracks':>7}{'rate':>7}  {'system':18}", *(f"{name:>12}" for name in columns)])]
    for row in means:
        figures = (f"{row[name]:12.3f}" if name in row else f"{'':12}" for name in columns)
        head = f"{row['task']:10}{row['tracks']:>7}{row['sample_rate']:>7}  {row['system']:18}"
        lines.append("".join([head, *figures]))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the evaluation; returns the exit status, 1 if the controller misses what it is to reach."""
    parser = argparse.ArgumentParser("python -m benchmarks.mixing", description=__doc__)
    parser.add_argument("--model", type=Path, help="a controller.safetensors (default: that of dasp)")
    parser.add_argument("--quick", action="store_true", help="few short songs, to see that all works")
    parser.add_argument("--songs", type=int, help="songs of each number of tracks")
    parser.add_argument("--fit", action="store_true", help="fit the console to each target, too, which hears it")
    parser.add_argument("--stimuli", type=Path, metavar="FOLDER", help="write the mixes at one loudness, to listen to")
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args(arguments)
    size = QUICK if options.quick else Size()
    if options.songs is not None:
        size = Size(options.songs, size.seconds, size.tracks, size.sample_rates, size.fit_steps)
    start = time.perf_counter()
    stimuli = Stimuli(options.stimuli)
    rows: list[dict[str, Any]] = []
    with torch.no_grad():
        for position, rate in enumerate(size.sample_rates):
            controller = _controller(options.model, rate)
            # Another sample rate is shown at one number of tracks.
            for tracks in size.tracks if position == 0 else size.tracks[1:2]:
                rows += without_reference(controller, tracks, size, stimuli, options.fit and position == 0)
                if controller.config["reference"]:
                    rows += with_reference(controller, tracks, size, stimuli)
        controller = _controller(options.model, size.sample_rates[0])
        if _SHARED.is_dir():
            rows += recorded(controller, _SHARED, stimuli, options.fit, size)
        permuted, timing = permutation(controller, size), speed(controller, size)
    means = summary(rows)
    print(table(means))
    print(f"another order of tracks changes the mix by {permuted:.1e} of its peak")
    print(
        "controls in {controller_s:.3f} s, mix in {mix_s:.3f} s: {times_real_time:.0f} times real time".format(**timing)
    )
    seconds = time.perf_counter() - start
    if options.json is not None:
        run = {"seconds": seconds, "model": options.model and options.model.name, **asdict(size)}
        content = {"schema": SCHEMA, "run": run, "environment": report.environment(), "permutation": permuted}
        report.write_json(options.json, {**content, "speed": timing, "means": means, "rows": rows})
    wrong = complaints(means)
    for complaint in wrong:
        print(complaint, file=sys.stderr)
    return 1 if wrong else 0


def _controller(path: Path | None, sample_rate: int) -> Controller:
    if path is None:
        return Controller.pretrained(sample_rate=sample_rate)
    return Controller.load(path, sample_rate=sample_rate)


if __name__ == "__main__":
    sys.exit(main())
