"""Training items for mixing controllers, with and without a reference mix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import Dataset

from dasp._checks import check_choice
from dasp.mixing.console import DifferentiableMixingConsole
from dasp.mixing.folders import MultitrackFolder
from dasp.mixing.instruments import FAMILIES
from dasp.mixing.practice import controls_around, plausible_controls
from dasp.mixing.synth import INSTRUMENTS, multitrack

__all__ = ["MixDataset", "SynthSongs"]

# A track whose peak is below this is left out.
_SILENCE = 1e-3
# Songs and places in them that are tried until one has an audible track.
_ATTEMPTS = 20
# The eight tracks of a small band are drawn more often than others.
_BAND, _BAND_WEIGHT = 8, 3.0


@dataclass(frozen=True)
class SynthSongs:
    """Synthetic songs to draw training items from, see `multitrack`.

    Attributes:
        seeds: Seeds of the songs; disjoint ranges make songs for training and for validation.
        fewest: Fewest tracks of a song that is drawn.
        cached: Keep the tracks that have been made, four bytes per sample, since making a song takes longer than
            mixing it: for a few hundred seeds whose songs are drawn again and again, with other tracks and settings.

    Example:
        >>> training, validation = dasp.mixing.SynthSongs(range(100, 1000)), dasp.mixing.SynthSongs(range(100))
        >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
        >>> dasp.mixing.MixDataset(training, console, "reference", num_items=1, seconds=0.5)[0]["tracks"].shape[1:]
        torch.Size([1, 22050])
    """

    seeds: range = range(1_000_000)
    fewest: int = 4
    cached: bool = False
    _kept: dict[tuple[int, float, int, bool, str], _Made] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"SynthSongs: seeds is {self.seeds}, expected numbers from 0 up")
        if not 1 <= self.fewest <= len(INSTRUMENTS):
            raise ValueError(f"SynthSongs: fewest is {self.fewest}, expected 1 to {len(INSTRUMENTS)}")

    def tracks(self, seed: int, seconds: float, sample_rate: int, stereo: bool, names: Sequence[str]) -> list[_Made]:
        """Tracks of a song by their names, each as it was recorded."""
        keys = {name: (seed, seconds, sample_rate, stereo, name) for name in names}
        # A track is the same whichever others there are.
        wanted = [name for name in names if keys[name] not in self._kept]
        found = {name: self._kept[keys[name]] for name in names if name not in wanted}
        if wanted:
            song = multitrack(seed, seconds, sample_rate, stereo=stereo, names=wanted)
            parts = zip(wanted, song.tracks, song.channels, song.instruments, strict=True)
            found |= {name: _Made(x[:channels].clone(), kind) for name, x, channels, kind in parts}
        if self.cached:
            self._kept.update({keys[name]: track for name, track in found.items()})
        return [found[name] for name in names]


class _Made(NamedTuple):
    """A synthesised track (channels, samples) and its instrument."""

    audio: Tensor
    instrument: str


class _Drawn(NamedTuple):
    """Sections of a song: of each the tracks, (channels, samples), and its mix if that is asked for."""

    sections: list[list[Tensor]]
    mixes: list[Tensor]
    instruments: list[str]


class MixDataset(Dataset[dict[str, Any]]):
    """Items to train mixing controllers on, made of songs and settings that are drawn.

    Recipes:

    - "target", without a reference: a part of a song and the mix of it that is plausible for its instruments
      (`plausible_controls`).
    - "reference": two parts of one song, mixed by one setting (`controls_around`): the mix of the second is the
      reference, and that of the first the target.

    An item is a dict, which torch collates: "tracks" (max_tracks, channels, samples); "mask" (max_tracks,), False where
    there is none; "instruments" (max_tracks,), positions in `dasp.mixing.instruments.FAMILIES` or -1; "target" (2,
    samples); "reference" (2, samples) in its recipe; and "controls", a dict of the console's sections, which mix the
    tracks to the target, with neutral settings where there is no track.  With `own_mixes` target and reference are
    parts of the song's own mix instead, and there are no "controls".

    Item i is drawn from (seed, i) alone, by any worker in any order.  Silent tracks are left out; of more than
    `max_tracks`, some are drawn.  Sections of a synthetic song are its first and second half; those of songs in folders
    lie anywhere, the two of an item apart.

    Args:
        songs: `SynthSongs`, or a `MultitrackFolder`.
        console: Makes the mixes; its sample rate is that of the items.
        recipe: "target" or "reference".
        num_items: Number of items.
        seconds: Duration of a part.
        max_tracks: Number of tracks that items are filled up to.
        stereo: Give tracks of two channels, mono ones the same in both; else all of one channel.
        seed: Chooses the items.
        amount: Variation of `plausible_controls`, or spread of `controls_around`.
        peak_db: Peak in dBFS that every track is brought to, over both sections; None leaves tracks as they are.
        own_mixes: Take the mixes of a folder, of songs that have one and at most `max_tracks` tracks.

    Raises:
        TypeError: If songs is of another kind.
        ValueError: If an argument is out of its range; when an item is drawn, if no song is long enough or audible.

    Example:
        >>> console = dasp.mixing.DifferentiableMixingConsole(44100)
        >>> data = dasp.mixing.MixDataset(dasp.mixing.SynthSongs(), console, "reference", num_items=8, seconds=2.0)
        >>> item = data[0]
        >>> item["tracks"].shape, item["reference"].shape, item["controls"]["track"].shape
        (torch.Size([8, 1, 88200]), torch.Size([2, 88200]), torch.Size([8, 21]))
        >>> batches = torch.utils.data.DataLoader(data, batch_size=4, num_workers=2)
    """

    def __init__(
        self,
        songs: SynthSongs | MultitrackFolder,
        console: DifferentiableMixingConsole,
        recipe: Literal["target", "reference"],
        num_items: int,
        seconds: float = 6.0,
        max_tracks: int = 8,
        stereo: bool = False,
        seed: int = 0,
        amount: float = 1.0,
        peak_db: float | None = -12.0,
        own_mixes: bool = False,
    ) -> None:
        name = type(self).__name__
        if not isinstance(songs, (SynthSongs, MultitrackFolder)):
            raise TypeError(f"{name}: songs is a {type(songs).__name__}, expected SynthSongs or a MultitrackFolder")
        check_choice(name, "recipe", recipe, ("target", "reference"))
        if num_items < 1 or max_tracks < 1:
            raise ValueError(f"{name}: num_items, max_tracks are {num_items}, {max_tracks}, expected at least 1")
        if not 0 < seconds < math.inf:
            raise ValueError(f"{name}: seconds is {seconds}, expected a finite number above 0")
        if seed < 0 or not 0 <= amount < math.inf:
            raise ValueError(f"{name}: seed, amount are {seed}, {amount}, expected finite numbers from 0 up")
        if console.sample_rate != int(console.sample_rate):
            raise ValueError(f"{name}: console has sample_rate {console.sample_rate}, expected a whole number")
        if isinstance(songs, SynthSongs) and own_mixes:
            raise ValueError(f"{name}: own_mixes is set, but SynthSongs have no mixes")
        if isinstance(songs, SynthSongs) and songs.fewest > max_tracks:
            raise ValueError(f"{name}: max_tracks is {max_tracks}, expected at least songs.fewest, {songs.fewest}")
        self.songs, self.console, self.recipe, self.num_items = songs, console, recipe, num_items
        self.seconds, self.max_tracks, self.stereo, self.seed = seconds, max_tracks, stereo, seed
        self.amount, self.peak_db, self.own_mixes = amount, peak_db, own_mixes

    def __len__(self) -> int:
        return self.num_items

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.num_items:
            raise IndexError(f"{type(self).__name__}: index is {index}, expected 0 to {self.num_items - 1}")
        rng = np.random.default_rng([self.seed, index])
        drawn = self._drawn(rng)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        first, count = drawn.sections[0], len(drawn.instruments)
        codes = [tuple(FAMILIES).index(instrument) for instrument in drawn.instruments]
        item: dict[str, Any] = {
            "tracks": _filled(torch.stack([self._wide(track) for track in first]), self.max_tracks),
            "mask": torch.arange(self.max_tracks) < count,
            "instruments": torch.tensor(codes + [-1] * (self.max_tracks - count)),
        }
        if self.own_mixes:
            mixes = drawn.mixes
        else:
            with torch.no_grad():
                if self.recipe == "target":
                    controls = plausible_controls(self.console, first, drawn.instruments, generator, self.amount)
                else:
                    controls = controls_around(self.console, count, generator, self.amount)
                mixes = [self.console(tracks, controls) for tracks in drawn.sections]
            neutral = self.console.default_controls(self.max_tracks)["track"]
            item["controls"] = {**controls, "track": torch.cat([controls["track"], neutral[count:]])}
        item["target"] = mixes[0]
        if self.recipe == "reference":
            item["reference"] = mixes[1]
        return item

    def _wide(self, track: Tensor) -> Tensor:
        return track.expand(2, -1) if self.stereo else track

    def _drawn(self, rng: Generator) -> _Drawn:
        for _ in range(_ATTEMPTS):
            drawn = self._draw_from(self.songs, rng)
            if drawn is not None:
                return drawn
        what = f"{type(self).__name__}: in {_ATTEMPTS} draws of {self.songs!r} no part of {self.seconds} s was audible"
        raise ValueError(f"{what}, or songs are too short" + (" or have no mix to use" if self.own_mixes else ""))

    def _draw_from(self, songs: SynthSongs | MultitrackFolder, rng: Generator) -> _Drawn | None:
        return self._synthesised(songs, rng) if isinstance(songs, SynthSongs) else self._read(songs, rng)

    def _parts(self) -> int:
        return 2 if self.recipe == "reference" else 1

    def _synthesised(self, songs: SynthSongs, rng: Generator) -> _Drawn | None:
        parts, rate = self._parts(), int(self.console.sample_rate)
        names = list(INSTRUMENTS)
        weights = np.where(np.arange(len(names)) < _BAND, _BAND_WEIGHT, 1.0)
        count = int(rng.integers(songs.fewest, min(self.max_tracks, len(names)) + 1))
        chosen = rng.choice(names, count, replace=False, p=weights / weights.sum()).tolist()
        seed = songs.seeds[int(rng.integers(len(songs.seeds)))]
        samples = round(self.seconds * rate)
        tracks = songs.tracks(seed, parts * samples / rate, rate, self.stereo, chosen)
        order = rng.permutation(parts)
        sections = [[track.audio[:, part * samples : (part + 1) * samples] for track in tracks] for part in order]
        return self._audible(sections, [], [track.instrument for track in tracks])

    def _read(self, folder: MultitrackFolder, rng: Generator) -> _Drawn | None:
        song = folder.songs[int(rng.integers(len(folder.songs)))]
        if self.own_mixes and (song.mix is None or len(song.tracks) > self.max_tracks):
            return None
        rate, parts = int(self.console.sample_rate), self._parts()
        samples = round(self.seconds * rate)
        spare = song.length * rate // song.sample_rate - parts * samples
        if spare < 0:
            return None
        # Starts in order, as far apart as a part is long, each as likely as any.
        starts = np.sort(rng.integers(0, spare + 1, parts)) + samples * np.arange(parts)
        starts = rng.permutation(starts)
        sections: list[list[Tensor]] = [[] for _ in range(parts)]
        instruments: list[str] = []
        for position in rng.permutation(len(song.tracks)):
            track = song.tracks[position]
            read = [track.excerpt(int(start), samples, rate) for start in starts]
            if max(float(x.abs().max()) for x in read) < _SILENCE:
                continue
            instruments.append(track.instrument)
            for section, x in zip(sections, read, strict=True):
                section.append(x if self.stereo else x.mean(0, keepdim=True))
            if len(instruments) == self.max_tracks:
                break
        mixes = [song.mix_excerpt(int(start), samples, rate) for start in starts] if self.own_mixes else []
        return self._audible(sections, [mix for mix in mixes if mix is not None], instruments)

    def _audible(self, sections: list[list[Tensor]], mixes: list[Tensor], instruments: Sequence[str]) -> _Drawn | None:
        """Without silent tracks, at their peaks; None if a section is silent altogether."""
        peaks = [max(float(x.abs().max()) for x in versions) for versions in zip(*sections, strict=True)]
        heard = [position for position, peak in enumerate(peaks) if peak >= _SILENCE]
        gains = [1.0 if self.peak_db is None else 10 ** (self.peak_db / 20) / max(peak, _SILENCE) for peak in peaks]
        kept = [[section[position] * gains[position] for position in heard] for section in sections]
        if not all(any(float(x.abs().max()) >= _SILENCE for x in section) for section in kept):
            return None
        return _Drawn(kept, mixes, [instruments[position] for position in heard])


def _filled(tracks: Tensor, count: int) -> Tensor:
    """Tracks, and silence up to a number of them."""
    return torch.cat([tracks, tracks.new_zeros(count - len(tracks), *tracks.shape[1:])])
