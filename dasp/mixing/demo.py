"""A short multitrack mixed with known settings, to show that a fit finds them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dasp.mixing.console import DifferentiableMixingConsole, Values
from dasp.mixing.fitting import starting_point
from dasp.mixing.synth import Multitrack, multitrack

# The range of each hidden control: what a mixing engineer would do, and no more.
_HIDDEN = {
    ("gain", "gain_db"): (-12.0, 0.0),
    ("stereo_panner", "pan"): (-0.8, 0.8),
    ("parametric_eq", "gain_db"): (-6.0, 6.0),
    ("compressor", "ratio"): (1.5, 4.0),
    ("compressor", "attack_ms"): (2.0, 30.0),
    ("compressor", "release_ms"): (80.0, 300.0),
    ("send", "reverb_db"): (-30.0, -10.0),
}


@dataclass(frozen=True)
class Demo:
    """A multitrack, the hidden controls, and the mix that they make.

    Attributes:
        song: The multitrack.
        console: The console of the hidden mix.
        values: The hidden physical controls.
        reference: The mix `(2, samples)`.
    """

    song: Multitrack
    console: DifferentiableMixingConsole
    values: Values
    reference: Tensor


def make(seed: int = 0, seconds: float = 8.0, sample_rate: int = 44100, num_tracks: int = 6) -> Demo:
    """Synthesises a multitrack and mixes it with settings drawn from `seed`.

    What `_HIDDEN` does not name, thresholds and equaliser frequencies among it, is as a fit starts: a fit knows it.
    """
    song = multitrack(seed, seconds, sample_rate, num_tracks)
    console = DifferentiableMixingConsole(sample_rate)
    tracks = list(song.tracks)
    # Thresholds at each track's own level, so that every compressor has something to do.
    values = starting_point(console, tracks, song.tracks.sum(0).expand(2, -1))
    generator = torch.Generator().manual_seed(seed)
    for (stage, control), (low, high) in _HIDDEN.items():
        value = values["track"][stage][control]
        values["track"][stage][control] = low + (high - low) * torch.rand(value.shape, generator=generator)
    # What an equaliser does to all frequencies alike is the fader's.
    gains = values["track"]["parametric_eq"]["gain_db"]
    values["track"]["parametric_eq"]["gain_db"] = gains - gains.mean(-1, keepdim=True)
    decay = torch.linspace(1.6, 0.5, values["reverb"]["noise_shaped_reverb"]["decay_s"].shape[-1])
    values["reverb"]["noise_shaped_reverb"]["decay_s"] = decay
    with torch.no_grad():
        reference = console.mix(song.tracks, values)
    return Demo(song, console, values, reference)
