"""A short multitrack mixed with known settings, to show that a fit finds them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import dasp.modules as M
from dasp.mixing.console import DifferentiableMixingConsole
from dasp.mixing.controls import Values
from dasp.mixing.fitting import loud_level_db
from dasp.mixing.presets import DEFAULT_LOCKED
from dasp.mixing.synth import Multitrack, multitrack


@dataclass(frozen=True)
class Demo:
    """A multitrack, the hidden controls, and the mix that they make.

    Attributes:
        song: The multitrack.
        console: The console of the hidden mix.
        controls: The hidden controls, normalised.
        reference: The mix `(2, samples)`.
    """

    song: Multitrack
    console: DifferentiableMixingConsole
    controls: dict[str, Tensor]
    reference: Tensor

    @property
    def values(self) -> Values:
        """The hidden physical controls."""
        return self.console.denormalize(self.controls)


def make(seed: int = 0, seconds: float = 8.0, sample_rate: int = 44100, num_tracks: int = 6) -> Demo:
    """Synthesises a multitrack and mixes it with settings drawn from `seed`, all within usual practice.

    A fit knows none of them: every control of every section is drawn, but for those that a console locks, and the
    reverberation is another noise than a fit's.  One convention makes faders comparable: the gains of an equaliser
    average 0 dB over its bands, since what it does to all frequencies alike is the fader's.
    """
    song = multitrack(seed, seconds, sample_rate, num_tracks)
    hall = M.Chain(M.NoiseShapedReverb(sample_rate, mix=1.0, seed=seed + 1))
    console = DifferentiableMixingConsole(sample_rate, buses={"reverb": hall}, locked=DEFAULT_LOCKED)
    values = console.denormalize(console.default_controls(num_tracks))
    draw = _Draw(torch.Generator().manual_seed(seed))
    track, master = values["track"], values["master"]
    _equalize(track["parametric_eq"], 6.0, draw)
    _equalize(master["parametric_eq"], 2.0, draw)
    # Thresholds below each track's own peaks, so that every compressor has something to do.
    peaks = torch.stack([loud_level_db(part, sample_rate) for part in song.tracks])
    one = torch.zeros(())
    track["compressor"] |= {
        "threshold_db": peaks - draw.even(peaks, 4.0, 16.0),
        "ratio": draw.even(peaks, 1.5, 4.0),
        "attack_ms": draw.log(peaks, 2.0, 30.0),
        "release_ms": draw.log(peaks, 80.0, 300.0),
        "knee_db": draw.even(peaks, 2.0, 12.0),
    }
    master["compressor"] |= {
        "threshold_db": draw.even(one, -18.0, -8.0),
        "ratio": draw.even(one, 1.2, 2.0),
        "attack_ms": draw.log(one, 5.0, 30.0),
        "release_ms": draw.log(one, 80.0, 300.0),
        "knee_db": draw.even(one, 2.0, 12.0),
    }
    track["gain"]["gain_db"] = draw.even(peaks, -12.0, 0.0)
    track["stereo_panner"]["pan"] = draw.even(peaks, -0.8, 0.8)
    track["send"]["reverb_db"] = draw.even(peaks, -30.0, -10.0)
    reverb = values["reverb"]["noise_shaped_reverb"]
    reverb["decay_s"] = torch.linspace(1.6, 0.5, reverb["decay_s"].shape[-1]) * draw.log(one, 0.7, 1.4)
    reverb["band_gain_db"] = reverb["band_gain_db"] + draw.even(reverb["band_gain_db"], -3.0, 3.0)
    controls = console.normalize(values)
    with torch.no_grad():
        reference = console(song.tracks, controls)
    return Demo(song, console, controls, reference)


class _Draw:
    """Random values in the shape of others."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def even(self, like: Tensor, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=self._generator)

    def log(self, like: Tensor, low: float, high: float) -> Tensor:
        return low * (high / low) ** torch.rand(like.shape, generator=self._generator)


def _equalize(equalizer: dict[str, Tensor], most_db: float, draw: _Draw) -> None:
    """Draws gains that average 0 dB, frequencies around the defaults, and Q."""
    gains = draw.even(equalizer["gain_db"], -most_db, most_db)
    equalizer["gain_db"] = gains - gains.mean(-1, keepdim=True)
    equalizer["frequency_hz"] = equalizer["frequency_hz"] * draw.log(gains, 0.6, 1.6)
    equalizer["q"] = draw.log(gains, 0.5, 1.5)
