"""Synthetic multitrack songs: seeded stems of eight instruments that play together, for tests, demos and training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import scipy.signal
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["INSTRUMENTS", "Multitrack", "multitrack"]

Signal = NDArray[np.float64]

_MAJOR = (0, 2, 4, 5, 7, 9, 11)
_MINOR = (0, 2, 3, 5, 7, 8, 10)
# Degrees of one chord per bar.
_PROGRESSIONS = {
    _MAJOR: ((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 4, 3), (5, 3, 0, 4)),
    _MINOR: ((0, 5, 2, 6), (0, 3, 5, 4), (0, 6, 5, 6), (0, 2, 6, 3)),
}
# Steps are sixteenths of a bar.
_KICKS = ((0, 6, 8, 14), (0, 4, 8, 12), (0, 7, 8, 10), (0, 3, 8, 11))
_CHORDS = ((0, 6, 12), (0, 3, 6, 10), (2, 6, 10, 14), (0, 8, 11))
# Steps, and whether the root, the fifth or the octave is played.
_BASSES = (
    ((0, 0), (4, 0), (6, 0), (8, 0), (10, 7), (12, 12), (14, 7)),
    ((0, 0), (3, 0), (6, 12), (8, 0), (11, 0), (14, 7)),
    tuple((step, 12 * (step % 4 == 2)) for step in range(0, 16, 2)),
)
# Centres in Hz and levels in dB of the formants of a, e, i, o (Peterson and Barney 1952, men; the fourth is typical).
_VOWELS = (
    ((730, 1090, 2440, 3500), (0, -4, -18, -24)),
    ((530, 1840, 2480, 3500), (0, -10, -14, -22)),
    ((300, 2290, 3010, 3700), (0, -16, -18, -22)),
    ((570, 840, 2410, 3300), (0, -5, -26, -30)),
)


@dataclass(frozen=True)
class Multitrack:
    """Dry stems of one song.

    Attributes:
        names: Instrument of each track.
        tracks: Audio (tracks, 1, samples), float32.
        tags: Family of each track: "drums", "bass", "harmony", "melody" or "vocals".
        sample_rate: In Hz.
        tempo: Beats per minute; a bar has four.
    """

    names: tuple[str, ...]
    tracks: Tensor
    tags: tuple[str, ...]
    sample_rate: int
    tempo: int


class _Note(NamedTuple):
    onset_s: float
    length_s: float
    pitch: float
    velocity: float


@dataclass(frozen=True)
class _Song:
    """What the instruments agree on: the scale in semitones above the key, and the degree of each bar's chord."""

    sample_rate: int
    samples: int
    tempo: int
    key: int
    scale: tuple[int, ...]
    degrees: tuple[int, ...]

    @property
    def step_s(self) -> float:
        """A sixteenth in seconds."""
        return 15 / self.tempo

    def bars(self) -> Iterator[tuple[float, int]]:
        """Onset in seconds and degree of the chord of each bar."""
        count = math.ceil(self.samples / self.sample_rate / (16 * self.step_s))
        for bar in range(count):
            yield bar * 16 * self.step_s, self.degrees[bar % len(self.degrees)]

    def pitch(self, degree: int, lowest: int) -> int:
        """MIDI pitch of a degree of the scale whose keynote is the first from `lowest` up."""
        octave, place = divmod(degree, 7)
        return lowest + (self.key - lowest) % 12 + self.scale[place] + 12 * octave

    def chord(self, degree: int, lowest: int) -> list[int]:
        """MIDI pitches of the triad on a degree, root first, inverted into the octave from `lowest` up."""
        return [lowest + (self.pitch(degree + third, lowest) - lowest) % 12 for third in (0, 2, 4)]


def multitrack(seed: int, seconds: float = 8.0, sample_rate: int = 44100, num_tracks: int = 6) -> Multitrack:
    """Makes a song of up to eight instruments with a common tempo, key and chord progression.

    The instruments, in order: kick, snare, hi-hat, bass, keys, lead, pad, voice. Notes differ in velocity, have attacks
    and decays, and reach high frequencies, so that the settings of an equaliser or a compressor show in the mix. A
    track is the same for any number of tracks.

    Args:
        seed: Chooses the song; no other state is read or changed.
        seconds: Duration. In less than two bars (five seconds) an instrument may not have played yet.
        sample_rate: In Hz, a whole number of at least 8000.
        num_tracks: Number of instruments, 1 to 8.

    Returns:
        Stems that peak between -6 and -3 dBFS, one channel each.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> song = multitrack(seed=1, seconds=2.0, num_tracks=3)
        >>> song.names, tuple(song.tracks.shape)
        (('kick', 'snare', 'hihat'), (3, 1, 88200))
    """
    if not 1 <= num_tracks <= len(INSTRUMENTS):
        raise ValueError(f"multitrack: num_tracks is {num_tracks}, expected 1 to {len(INSTRUMENTS)}")
    if not 0 < seconds < math.inf:
        raise ValueError(f"multitrack: seconds is {seconds}, expected a finite number above 0")
    if sample_rate < 8000 or seed < 0:
        raise ValueError(f"multitrack: sample_rate, seed are {sample_rate}, {seed}, expected at least 8000 and 0")
    song = _compose(np.random.default_rng([seed, 0]), int(sample_rate), round(seconds * sample_rate))
    names = tuple(INSTRUMENTS)[:num_tracks]
    stems = []
    for number, name in enumerate(names, start=1):
        # A generator for each track, so that their number changes none of them.
        rng = np.random.default_rng([seed, number])
        peak = 10 ** (rng.uniform(-6, -3) / 20)
        y = INSTRUMENTS[name][1](song, rng)
        stems.append(y * (peak / max(float(np.abs(y).max(initial=0)), 1e-9)))
    tracks = torch.from_numpy(np.stack(stems)[:, None].astype(np.float32))
    return Multitrack(names, tracks, tuple(INSTRUMENTS[name][0] for name in names), song.sample_rate, song.tempo)


def _compose(rng: Generator, sample_rate: int, samples: int) -> _Song:
    scale = (_MAJOR, _MINOR)[rng.integers(2)]
    choices = _PROGRESSIONS[scale]
    degrees = choices[rng.integers(len(choices))]
    return _Song(sample_rate, samples, int(rng.integers(92, 132)), int(rng.integers(12)), scale, degrees)


def _humanised(song: _Song, rng: Generator, onset_s: float, step: float, velocity: float) -> tuple[float, float]:
    """Onset and velocity as a player meets them: up to 4 ms late and 4 dB soft."""
    onset_s = onset_s + step * song.step_s + rng.uniform(0, 0.004)
    return onset_s, velocity * 10 ** (rng.uniform(-4, 0) / 20)


def _time(song: _Song, length_s: float) -> Signal:
    return np.arange(int(length_s * song.sample_rate)) / song.sample_rate


def _add(y: Signal, song: _Song, onset_s: float, sound: Signal) -> None:
    """Adds a sound where it begins, as far as the song goes."""
    start = round(onset_s * song.sample_rate)
    sound = sound[: max(0, len(y) - start)]
    y[start : start + len(sound)] += sound


def _filter(
    song: _Song, x: Signal, kind: Literal["highpass", "bandpass"], frequency_hz: float | Sequence[float], order: int = 2
) -> Signal:
    """Butterworth filter; frequencies are kept below Nyquist."""
    limits = np.minimum(frequency_hz, 0.45 * song.sample_rate)
    sos = scipy.signal.butter(order, limits, kind, output="sos", fs=song.sample_rate)
    return np.asarray(scipy.signal.sosfilt(sos, x))


def _burst(song: _Song, rng: Generator, decay_s: float, lowest_hz: float) -> Signal:
    """Noise of an attack, down by 70 dB at its end."""
    t = _time(song, 8 * decay_s)
    return _filter(song, rng.standard_normal(len(t)), "highpass", lowest_hz) * np.exp(-t / decay_s)


def _frequency(pitch: float) -> float:
    return float(440 * 2 ** ((pitch - 69) / 12))


def _envelope(t: Signal, attack_s: float, decay_s: float, length_s: float, release_s: float = 0.03) -> Signal:
    """Rises with `attack_s`, decays with `decay_s`, and is released at `length_s` to fade out."""
    held = (1 - np.exp(-t / attack_s)) * np.exp(-t / decay_s)
    return held * np.exp(-np.maximum(t - length_s, 0) / release_s)


def _saw(phase: Signal, brightness: Signal | float) -> Signal:
    """Sum over k of brightness^k sin(k phase) / k in closed form: a sawtooth whose harmonics fade."""
    return np.arctan2(brightness * np.sin(phase), 1 - brightness * np.cos(phase))


def _brightness(song: _Song, frequency_hz: float, wanted: float) -> float:
    """The wanted brightness, less where harmonics would reach Nyquist above -60 dB."""
    harmonics = song.sample_rate / 2 / frequency_hz
    return float(min(wanted, (1e-3 * harmonics) ** (1 / harmonics)))


def _kick(song: _Song, rng: Generator) -> Signal:
    """A falling sine with a click of the beater."""
    y = np.zeros(song.samples)
    pattern = _KICKS[rng.integers(len(_KICKS))]
    low_hz, sweep_hz, sweep_s, decay_s = rng.uniform((44, 120, 0.02, 0.1), (56, 220, 0.04, 0.2))
    t = _time(song, 0.6)
    body = np.sin(2 * np.pi * (low_hz * t + sweep_hz * sweep_s * (1 - np.exp(-t / sweep_s)))) * np.exp(-t / decay_s)
    for bar_s, _ in song.bars():
        for step in pattern:
            onset_s, velocity = _humanised(song, rng, bar_s, step, 1.0 if step in (0, 8) else 0.6)
            _add(y, song, onset_s, velocity * body)
            _add(y, song, onset_s, 0.25 * velocity**2 * _burst(song, rng, 0.004, 1500))
    return y


def _snare(song: _Song, rng: Generator) -> Signal:
    """Two modes of the shell and the noise of the wires, with ghost notes."""
    y = np.zeros(song.samples)
    tone_hz, decay_s = rng.uniform((170, 0.09), (220, 0.16))
    t = _time(song, 0.5)
    shell = np.sin(2 * np.pi * tone_hz * t) + 0.6 * np.sin(2 * np.pi * 1.72 * tone_hz * t)
    for bar_s, _ in song.bars():
        ghosts = [(int(step), 0.2) for step in rng.choice((2, 7, 9, 15), 2, replace=False)]
        for step, strength in [(4, 1.0), (12, 1.0), *ghosts]:
            onset_s, velocity = _humanised(song, rng, bar_s, step, strength)
            wires = _filter(song, rng.standard_normal(len(t)), "bandpass", (700, 7000), order=1)
            sound = shell * np.exp(-t / 0.08) + (0.5 + 0.3 * velocity) * wires * np.exp(-t / decay_s)
            _add(y, song, onset_s, velocity * sound)
    return y


def _hihat(song: _Song, rng: Generator) -> Signal:
    """High noise and inharmonic squares, closed in eighths or sixteenths and sometimes open."""
    t_all = np.arange(song.samples) / song.sample_rate
    partials_hz = rng.uniform(0.9, 1.1) * np.array((2050, 3060, 3690, 5230, 5400, 8000))[:, None]
    metal = np.sign(np.sin(2 * np.pi * partials_hz * t_all)).mean(0)
    metal = _filter(song, 0.5 * metal + 0.5 * rng.standard_normal(song.samples), "highpass", 6500, order=3)
    envelope = np.zeros(song.samples)
    stride = int(rng.choice((1, 2)))
    t = _time(song, 0.8)
    for bar_s, _ in song.bars():
        for step in range(0, 16, stride):
            accent = 1.0 if step % 4 == 0 else 0.6 if step % 2 == 0 else 0.3
            onset_s, velocity = _humanised(song, rng, bar_s, step, accent)
            opened = step % 4 == 2 and rng.random() < 0.2
            decay_s = rng.uniform(0.15, 0.25) if opened else rng.uniform(0.02, 0.05)
            _add(envelope, song, onset_s, velocity * np.exp(-t / decay_s))
    return metal * envelope


def _bass(song: _Song, rng: Generator) -> Signal:
    """A plucked string: a sawtooth that darkens, a sine below it and the noise of the finger."""
    y = np.zeros(song.samples)
    pattern = _BASSES[rng.integers(len(_BASSES))]
    wanted, decay_s = rng.uniform((0.96, 0.3), (0.99, 0.7))
    for bar_s, degree in song.bars():
        for (step, interval), (end, _) in zip(pattern, [*pattern[1:], (16, 0)], strict=True):
            onset_s, velocity = _humanised(song, rng, bar_s, step, 1.0 if step % 8 == 0 else 0.7)
            length_s = (end - step) * song.step_s * 0.9
            hz = _frequency(song.chord(degree, 28)[0] + interval)
            t = _time(song, length_s + 0.15)
            phase = 2 * np.pi * hz * t
            bright = _brightness(song, hz, wanted) * (0.6 + 0.4 * velocity * np.exp(-t / 0.12))
            sound = _saw(phase, bright) + 0.5 * np.sin(phase)
            _add(y, song, onset_s, velocity * _envelope(t, 0.003, decay_s, length_s) * sound)
            _add(y, song, onset_s, 0.3 * velocity**2 * _burst(song, rng, 0.008, 900))
    return y


def _keys(song: _Song, rng: Generator) -> Signal:
    """An electric piano by frequency modulation, in chords."""
    y = np.zeros(song.samples)
    pattern = _CHORDS[rng.integers(len(_CHORDS))]
    index, tine, decay_s = rng.uniform((1.4, 0.2, 0.5), (2.4, 0.4, 1.0))
    for bar_s, degree in song.bars():
        for step, end in zip(pattern, [*pattern[1:], 16], strict=True):
            length_s = (end - step) * song.step_s * 0.95
            t = _time(song, length_s + 0.2)
            for pitch in song.chord(degree, 53):
                onset_s, velocity = _humanised(song, rng, bar_s, step, 1.0 if step % 8 == 0 else 0.65)
                phase = 2 * np.pi * _frequency(pitch) * t
                modulator = index * velocity * np.exp(-t / 0.35) * np.sin(phase)
                # The tine strikes at the fourteenth harmonic, the hammer is noise.
                strike = tine * velocity * np.exp(-t / 0.07) * np.sin(14 * phase)
                sound = np.sin(phase + modulator) + strike
                _add(y, song, onset_s, velocity * _envelope(t, 0.002, decay_s, length_s, 0.05) * sound)
                _add(y, song, onset_s, 0.2 * velocity**2 * _burst(song, rng, 0.008, 1200))
    return y


def _pad(song: _Song, rng: Generator) -> Signal:
    """Detuned sawtooths that swell through each chord under a slow tremolo."""
    y = np.zeros(song.samples)
    wanted, detune, rate_hz = rng.uniform((0.9, 0.05, 0.3), (0.96, 0.12, 0.8))
    length_s = 16 * song.step_s
    t = _time(song, length_s + 0.6)
    swell = _envelope(t, 0.35, 6.0, length_s, 0.15) * (0.7 + 0.3 * np.minimum(t / length_s, 1))
    for bar_s, degree in song.bars():
        tremolo = 1 + 0.25 * np.sin(2 * np.pi * rate_hz * (t + bar_s))
        for pitch in song.chord(degree, 57):
            for side in (-detune, detune):
                hz = _frequency(pitch + side)
                phase = 2 * np.pi * (hz * t + rng.random())
                _add(y, song, bar_s, swell * tremolo * _saw(phase, _brightness(song, hz, wanted)))
    return y


def _melody(song: _Song, rng: Generator, lowest: int, steps: Sequence[int], rest: float) -> list[_Note]:
    """A walk over the scale that meets the chord on the beats; `steps` are the lengths to choose from."""
    notes = []
    place = 4
    for bar_s, degree in song.bars():
        step = 0
        while step < 16:
            length = min(int(rng.choice(steps)), 16 - step)
            place = int(np.clip(place + rng.integers(-2, 3), 0, 9))
            if step % 8 == 0:
                place = min((p for p in range(10) if (p - degree) % 7 in (0, 2, 4)), key=lambda p: abs(p - place))
            if step == 0 or rng.random() > rest:
                onset_s, velocity = _humanised(song, rng, bar_s, step, rng.uniform(0.5, 1.0))
                notes.append(_Note(onset_s, length * song.step_s * 0.92, song.pitch(place, lowest), velocity))
            step += length
    return notes


def _lead(song: _Song, rng: Generator) -> Signal:
    """A synthesiser: a sawtooth with vibrato whose brightness follows the velocity and decays."""
    y = np.zeros(song.samples)
    wanted, vibrato_hz, decay_s = rng.uniform((0.86, 4.5, 0.4), (0.94, 6.0, 0.9))
    for note in _melody(song, rng, 65, (1, 2, 2, 3, 4), 0.25):
        t = _time(song, note.length_s + 0.2)
        hz = _frequency(note.pitch)
        vibrato = 0.006 * hz / vibrato_hz * np.minimum(t / 0.3, 1) * np.sin(2 * np.pi * vibrato_hz * t)
        bright = _brightness(song, hz, wanted) * (0.6 + 0.4 * note.velocity * np.exp(-t / 0.25))
        sound = _saw(2 * np.pi * (hz * t + vibrato), bright)
        _add(y, song, note.onset_s, note.velocity * _envelope(t, 0.006, decay_s, note.length_s, 0.05) * sound)
    return y


def _voice(song: _Song, rng: Generator) -> Signal:
    """A sung line: pulses and breath through the formants of a vowel, with consonants before some notes."""
    y = np.zeros(song.samples)
    for note in _melody(song, rng, 48, (2, 3, 4, 6, 8), 0.3):
        t = _time(song, note.length_s + 0.25)
        hz = _frequency(note.pitch)
        # Sung notes are approached from half a semitone below, and vibrate once they stand.
        approach = 0.03 * hz * 0.06 * np.exp(-t / 0.06)
        vibrato = 0.012 * hz / 5.5 * np.clip((t - 0.15) / 0.3, 0, 1) * np.sin(2 * np.pi * 5.5 * t)
        source = _saw(2 * np.pi * (hz * t + approach + vibrato), _brightness(song, hz, 0.97))
        source += 0.15 * rng.standard_normal(len(t))
        sound = _vowel(song, source, int(rng.integers(len(_VOWELS))))
        _add(y, song, note.onset_s, note.velocity * _envelope(t, 0.03, 2.5, note.length_s, 0.06) * sound)
        if rng.random() < 0.6:
            consonant = _burst(song, rng, 0.02, 4500)
            _add(y, song, max(0.0, note.onset_s - 0.04), 0.15 * note.velocity * consonant)
    return y


def _vowel(song: _Song, source: Signal, number: int) -> Signal:
    # Singers are not as dull above their formants as four resonators are.
    y = 0.05 * _filter(song, source, "highpass", 2500, order=1)
    for centre_hz, level_db in zip(*_VOWELS[number], strict=True):
        b, a = scipy.signal.iirpeak(centre_hz, centre_hz / (60 + 0.04 * centre_hz), fs=song.sample_rate)
        y += 10 ** (level_db / 20) * scipy.signal.lfilter(b, a, source)
    return y


# Family and synthesis of each instrument, in the order in which tracks are added.
INSTRUMENTS: dict[str, tuple[str, Callable[[_Song, Generator], Signal]]] = {
    "kick": ("drums", _kick),
    "snare": ("drums", _snare),
    "hihat": ("drums", _hihat),
    "bass": ("bass", _bass),
    "keys": ("harmony", _keys),
    "lead": ("melody", _lead),
    "pad": ("harmony", _pad),
    "voice": ("vocals", _voice),
}
