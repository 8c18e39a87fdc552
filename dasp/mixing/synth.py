"""Synthetic multitrack songs: seeded stems of up to 24 players, for tests, demos and training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import scipy
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from dasp.mixing.instruments import FAMILIES

__all__ = ["INSTRUMENTS", "Multitrack", "multitrack"]

Signal = NDArray[np.float64]
_Choice = TypeVar("_Choice")

_MAJOR = (0, 2, 4, 5, 7, 9, 11)
_MINOR = (0, 2, 3, 5, 7, 8, 10)
# Degrees of one chord per bar.
_PROGRESSIONS = {
    _MAJOR: ((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 4, 3), (5, 3, 0, 4)),
    _MINOR: ((0, 5, 2, 6), (0, 3, 5, 4), (0, 6, 5, 6), (0, 2, 6, 3)),
}
# A song alternates between two sections of this many bars, which differ in chords and patterns.
_SECTION = 4
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
        names: A name for each track: its instrument, numbered where that plays again, as in "guitar 2".
        tracks: Audio (tracks, channels, samples), float32; with two channels, a mono track has the same in both.
        tags: Family of each track: "drums", "bass", "harmony", "melody" or "vocals".
        sample_rate: In Hz.
        tempo: Beats per minute; a bar has four.
        instruments: Instrument of each track, one of `dasp.mixing.instruments.FAMILIES`.
        channels: Number of channels of each track as it was recorded, 1 or 2.

    Example:
        >>> song = dasp.mixing.multitrack(seed=1, seconds=1.0, names=["voice", "guitar"])
        >>> song.names, song.tags, song.tracks.shape
        (('voice', 'guitar'), ('vocals', 'harmony'), torch.Size([2, 1, 44100]))
    """

    names: tuple[str, ...]
    tracks: Tensor
    tags: tuple[str, ...]
    sample_rate: int
    tempo: int
    instruments: tuple[str, ...]
    channels: tuple[int, ...]


class _Note(NamedTuple):
    onset_s: float
    length_s: float
    pitch: float
    velocity: float


@dataclass(frozen=True)
class _Song:
    """What the instruments agree on: the scale in semitones above the key, and the degrees of each section's chords."""

    sample_rate: int
    samples: int
    tempo: int
    key: int
    scale: tuple[int, ...]
    progressions: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def step_s(self) -> float:
        """A sixteenth in seconds."""
        return 15 / self.tempo

    def bars(self) -> Iterator[tuple[float, int, int]]:
        """Onset in seconds, degree of the chord, and section of each bar."""
        count = math.ceil(self.samples / self.sample_rate / (16 * self.step_s))
        for bar in range(count):
            section = bar // _SECTION % 2
            yield bar * 16 * self.step_s, self.progressions[section][bar % _SECTION], section

    def pitch(self, degree: int, lowest: int) -> int:
        """MIDI pitch of a degree of the scale whose keynote is the first from `lowest` up."""
        octave, place = divmod(degree, 7)
        return lowest + (self.key - lowest) % 12 + self.scale[place] + 12 * octave

    def chord(self, degree: int, lowest: int) -> list[int]:
        """MIDI pitches of the triad on a degree, root first, inverted into the octave from `lowest` up."""
        return [lowest + (self.pitch(degree + third, lowest) - lowest) % 12 for third in (0, 2, 4)]


def multitrack(
    seed: int,
    seconds: float = 8.0,
    sample_rate: int = 44100,
    num_tracks: int = 6,
    stereo: bool = False,
    names: Sequence[str] | None = None,
) -> Multitrack:
    """Makes a song of up to 24 tracks with a common tempo, key and chords.

    The tracks, in order, are those of `dasp.mixing.synth.INSTRUMENTS`: kick, snare, hihat, bass, keys, lead, pad,
    voice, then guitars, percussion, backing voices, overheads, toms, strings, organ, brass, and second and third
    players of some.  Notes differ in velocity, have attacks and decays, and reach high frequencies, so that the
    settings of an equaliser or a compressor show in the mix.  Every four bars (7 to 10 s) the song changes between two
    sections, with other chords and patterns on the same instruments.  A track is the same whichever others there are.

    Args:
        seed: Chooses the song; no other state is read or changed.
        seconds: Duration. In less than two bars (five seconds) an instrument may not have played yet.
        sample_rate: In Hz, a whole number of at least 8000.
        num_tracks: Number of tracks, 1 to 24.
        stereo: Give two channels: keys, pads, guitars, overheads and other wide instruments in stereo, the mean of
            whose channels is their mono track, and the others the same in both.
        names: The tracks to make, instead of the first `num_tracks`.

    Returns:
        Stems whose mono signals peak between -6 and -3 dBFS.

    Raises:
        ValueError: If an argument is out of its range, or names is empty, has an unknown name or one twice.

    Example:
        >>> song = multitrack(seed=1, seconds=2.0, num_tracks=3)
        >>> song.names, tuple(song.tracks.shape)
        (('kick', 'snare', 'hihat'), (3, 1, 88200))
        >>> multitrack(seed=1, seconds=2.0, stereo=True, names=["voice", "guitar 2"]).channels
        (1, 2)
    """
    if not 1 <= num_tracks <= len(INSTRUMENTS):
        raise ValueError(f"multitrack: num_tracks is {num_tracks}, expected 1 to {len(INSTRUMENTS)}")
    if not 0 < seconds < math.inf:
        raise ValueError(f"multitrack: seconds is {seconds}, expected a finite number above 0")
    if sample_rate < 8000 or seed < 0:
        raise ValueError(f"multitrack: sample_rate, seed are {sample_rate}, {seed}, expected at least 8000 and 0")
    chosen = tuple(INSTRUMENTS)[:num_tracks] if names is None else tuple(names)
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(INSTRUMENTS):
        raise ValueError(f"multitrack: names is {list(chosen)}, expected different ones of {', '.join(INSTRUMENTS)}")
    song = _compose(np.random.default_rng([seed, 0]), int(sample_rate), round(seconds * sample_rate))
    numbers = {name: number for number, name in enumerate(INSTRUMENTS, start=1)}
    tracks = np.empty((len(chosen), 1 + stereo, song.samples), np.float32)
    for track, name in zip(tracks, chosen, strict=True):
        # A generator for each track, so that the others change none of them.
        rng = np.random.default_rng([seed, numbers[name]])
        peak = 10 ** (rng.uniform(-6, -3) / 20)
        y = INSTRUMENTS[name].play(song, rng)
        y *= peak / max(float(np.abs(y).max(initial=0)), 1e-9)
        side = INSTRUMENTS[name].side
        track[:] = y if side is None or not stereo else y + side(song, rng, y) * np.array([[1.0], [-1.0]])
    return Multitrack(
        chosen,
        torch.from_numpy(tracks),
        tuple(FAMILIES[INSTRUMENTS[name].instrument] for name in chosen),
        song.sample_rate,
        song.tempo,
        tuple(INSTRUMENTS[name].instrument for name in chosen),
        tuple(2 if stereo and INSTRUMENTS[name].side is not None else 1 for name in chosen),
    )


def _compose(rng: Generator, sample_rate: int, samples: int) -> _Song:
    scale = (_MAJOR, _MINOR)[rng.integers(2)]
    progressions = _pair(rng, _PROGRESSIONS[scale])
    return _Song(sample_rate, samples, int(rng.integers(92, 132)), int(rng.integers(12)), scale, progressions)


def _pair(rng: Generator, choices: Sequence[_Choice]) -> tuple[_Choice, _Choice]:
    """What the two sections have: two that differ."""
    first = int(rng.integers(len(choices)))
    return choices[first], choices[(first + 1) % len(choices)]


def _humanised(song: _Song, rng: Generator, onset_s: float, step: float, velocity: float) -> tuple[float, float]:
    """Onset and velocity as a player meets them: up to 4 ms late and 4 dB soft."""
    onset_s = onset_s + step * song.step_s + rng.uniform(0, 0.004)
    return onset_s, velocity * 10 ** (rng.uniform(-4, 0) / 20)


def _time(song: _Song, length_s: float) -> Signal:
    return np.arange(int(length_s * song.sample_rate)) / song.sample_rate


def _steps(pattern: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Begin and end of each note of a pattern, which lasts until the next or the end of the bar."""
    return zip(pattern, [*pattern[1:], 16], strict=True)


def _add(y: Signal, song: _Song, onset_s: float, sound: Signal) -> None:
    """Adds a sound where it begins, as far as the song goes."""
    start = round(onset_s * song.sample_rate)
    sound = sound[: max(0, len(y) - start)]
    y[start : start + len(sound)] += sound


def _filter(
    song: _Song, x: Signal, kind: Literal["highpass", "bandpass"], frequency_hz: float | Sequence[float], order: int = 2
) -> Signal:
    """Butterworth filter; frequencies are kept below Nyquist."""
    limits = tuple(np.minimum(frequency_hz, 0.45 * song.sample_rate).reshape(-1).tolist())
    return np.asarray(scipy.signal.sosfilt(_butterworth(kind, limits, order, song.sample_rate), x))


@lru_cache(maxsize=256)
def _butterworth(kind: str, limits: tuple[float, ...], order: int, sample_rate: int) -> Signal:
    limit = limits if len(limits) > 1 else limits[0]
    return np.asarray(scipy.signal.butter(order, limit, kind, output="sos", fs=sample_rate))


@lru_cache(maxsize=256)
def _resonator(centre_hz: float, sample_rate: int) -> tuple[Signal, Signal]:
    b, a = scipy.signal.iirpeak(centre_hz, centre_hz / (60 + 0.04 * centre_hz), fs=sample_rate)
    return np.asarray(b), np.asarray(a)


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


def _sin(phase: Signal) -> Signal:
    """Sine; torch's takes a third of the time of numpy's in float64."""
    return torch.from_numpy(phase).sin().numpy()


def _cos(phase: Signal) -> Signal:
    return torch.from_numpy(phase).cos().numpy()


def _saw(phase: Signal, brightness: Signal | float) -> Signal:
    """Sum over k of brightness^k sin(k phase) / k in closed form: a sawtooth whose harmonics fade."""
    return np.arctan2(brightness * _sin(phase), 1 - brightness * _cos(phase))


def _brightness(song: _Song, frequency_hz: float, wanted: float) -> float:
    """The wanted brightness, less where harmonics would reach Nyquist above -60 dB."""
    harmonics = song.sample_rate / 2 / frequency_hz
    return float(min(wanted, (1e-3 * harmonics) ** (1 / harmonics)))


def _kick(song: _Song, rng: Generator) -> Signal:
    """A falling sine with a click of the beater."""
    y = np.zeros(song.samples)
    patterns = _pair(rng, _KICKS)
    low_hz, sweep_hz, sweep_s, decay_s = rng.uniform((44, 120, 0.02, 0.1), (56, 220, 0.04, 0.2))
    t = _time(song, 0.6)
    body = _sin(2 * np.pi * (low_hz * t + sweep_hz * sweep_s * (1 - np.exp(-t / sweep_s)))) * np.exp(-t / decay_s)
    for bar_s, _, section in song.bars():
        for step in patterns[section]:
            onset_s, velocity = _humanised(song, rng, bar_s, step, 1.0 if step in (0, 8) else 0.6)
            _add(y, song, onset_s, velocity * body)
            _add(y, song, onset_s, 0.25 * velocity**2 * _burst(song, rng, 0.004, 1500))
    return y


def _snare(song: _Song, rng: Generator) -> Signal:
    """Two modes of the shell and the noise of the wires, with ghost notes."""
    y = np.zeros(song.samples)
    tone_hz, decay_s = rng.uniform((170, 0.09), (220, 0.16))
    t = _time(song, 0.5)
    shell = _sin(2 * np.pi * tone_hz * t) + 0.6 * _sin(2 * np.pi * 1.72 * tone_hz * t)
    for bar_s, _, section in song.bars():
        ghosts = [(int(step), 0.2 + 0.3 * section) for step in rng.choice((2, 7, 9, 15), 2, replace=False)]
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
    cycles = partials_hz * t_all
    metal = np.where(cycles - np.floor(cycles) < 0.5, 1.0, -1.0).mean(0)
    metal = _filter(song, 0.5 * metal + 0.5 * rng.standard_normal(song.samples), "highpass", 6500, order=3)
    envelope = np.zeros(song.samples)
    strides = _pair(rng, (1, 2))
    t = _time(song, 0.8)
    for bar_s, _, section in song.bars():
        for step in range(0, 16, strides[section]):
            accent = 1.0 if step % 4 == 0 else 0.6 if step % 2 == 0 else 0.3
            onset_s, velocity = _humanised(song, rng, bar_s, step, accent)
            opened = step % 4 == 2 and rng.random() < 0.2
            decay_s = rng.uniform(0.15, 0.25) if opened else rng.uniform(0.02, 0.05)
            _add(envelope, song, onset_s, velocity * np.exp(-t / decay_s))
    return metal * envelope


def _bass(song: _Song, rng: Generator) -> Signal:
    """A plucked string: a sawtooth that darkens, a sine below it and the noise of the finger."""
    y = np.zeros(song.samples)
    patterns = _pair(rng, _BASSES)
    wanted, decay_s = rng.uniform((0.96, 0.3), (0.99, 0.7))
    for bar_s, degree, section in song.bars():
        pattern = patterns[section]
        for (step, interval), (end, _) in zip(pattern, [*pattern[1:], (16, 0)], strict=True):
            onset_s, velocity = _humanised(song, rng, bar_s, step, 1.0 if step % 8 == 0 else 0.7)
            length_s = (end - step) * song.step_s * 0.9
            hz = _frequency(song.chord(degree, 28)[0] + interval)
            t = _time(song, length_s + 0.15)
            phase = 2 * np.pi * hz * t
            bright = _brightness(song, hz, wanted) * (0.6 + 0.4 * velocity * np.exp(-t / 0.12))
            sound = _saw(phase, bright) + 0.5 * _sin(phase)
            _add(y, song, onset_s, velocity * _envelope(t, 0.003, decay_s, length_s) * sound)
            _add(y, song, onset_s, 0.3 * velocity**2 * _burst(song, rng, 0.008, 900))
    return y


def _keys(song: _Song, rng: Generator) -> Signal:
    """An electric piano by frequency modulation, in chords."""
    y = np.zeros(song.samples)
    patterns = _pair(rng, _CHORDS)
    index, tine, decay_s = rng.uniform((1.4, 0.2, 0.5), (2.4, 0.4, 1.0))
    for bar_s, degree, section in song.bars():
        for step, end in _steps(patterns[section]):
            length_s = (end - step) * song.step_s * 0.95
            t = _time(song, length_s + 0.2)
            for pitch in song.chord(degree, 53):
                onset_s, velocity = _humanised(song, rng, bar_s, step, 1.0 if step % 8 == 0 else 0.65)
                phase = 2 * np.pi * _frequency(pitch) * t
                modulator = index * velocity * np.exp(-t / 0.35) * _sin(phase)
                # The tine strikes at the fourteenth harmonic, the hammer is noise.
                strike = tine * velocity * np.exp(-t / 0.07) * _sin(14 * phase)
                sound = _sin(phase + modulator) + strike
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
    for bar_s, degree, _ in song.bars():
        tremolo = 1 + 0.25 * _sin(2 * np.pi * rate_hz * (t + bar_s))
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
    for bar_s, degree, _ in song.bars():
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
        vibrato = 0.006 * hz / vibrato_hz * np.minimum(t / 0.3, 1) * _sin(2 * np.pi * vibrato_hz * t)
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
        vibrato = 0.012 * hz / 5.5 * np.clip((t - 0.15) / 0.3, 0, 1) * _sin(2 * np.pi * 5.5 * t)
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
        b, a = _resonator(centre_hz, song.sample_rate)
        y += 10 ** (level_db / 20) * scipy.signal.lfilter(b, a, source)
    return y


def _guitar(song: _Song, rng: Generator) -> Signal:
    """Strummed strings that darken as they ring, clean or overdriven."""
    y = np.zeros(song.samples)
    patterns = _pair(rng, _CHORDS)
    lowest = int(rng.choice((45, 52, 57)))
    wanted, decay_s, drive, strum_s = rng.uniform((0.88, 0.35, -2.0, 0.004), (0.95, 1.0, 3.0, 0.016))
    for bar_s, degree, section in song.bars():
        chord = song.chord(degree, lowest)
        for step, end in _steps(patterns[section]):
            length_s = (end - step) * song.step_s * rng.uniform(0.5, 0.95)
            onset_s, velocity = _humanised(song, rng, bar_s, step, 1.0 if step % 8 == 0 else 0.6)
            t = _time(song, length_s + 0.15)
            envelope = velocity * _envelope(t, 0.002, decay_s, length_s, 0.03)
            for string, pitch in enumerate(sorted([*chord, chord[0] + 12])):
                hz = _frequency(pitch + rng.normal(0, 0.03))
                bright = _brightness(song, hz, wanted) * (0.55 + 0.45 * velocity * np.exp(-t / 0.15))
                _add(y, song, onset_s + string * strum_s, envelope * _saw(2 * np.pi * hz * t, bright))
            _add(y, song, onset_s, 0.4 * velocity**2 * _burst(song, rng, 0.006, 2000))
    # An overdriven amplifier compresses; half of all guitars are clean.
    return np.asarray(np.tanh(drive * y)) if drive > 0.5 else y


def _percussion(song: _Song, rng: Generator) -> Signal:
    """A shaker, a tambourine or congas."""
    kind = int(rng.integers(3))
    if kind == 2:
        return _congas(song, rng)
    noise = rng.standard_normal(song.samples)
    if kind == 1:
        # Jingles are narrow bands of noise.
        centres_hz = np.minimum(rng.uniform((5500, 8000), (7000, 10500)), 0.4 * song.sample_rate)
        jingles = [_filter(song, noise, "bandpass", (0.97 * hz, 1.03 * hz), 1) for hz in centres_hz]
        noise = 0.3 * noise + 4 * np.sum(jingles, 0)
    band = _filter(song, noise, "highpass", 3500 + 1000 * kind)
    envelope = np.zeros(song.samples)
    t = _time(song, 0.4)
    strides = _pair(rng, (1, 2))
    attack_s, decay_s = (
        rng.uniform((0.006, 0.02), (0.02, 0.05)) if kind == 0 else rng.uniform((0.001, 0.04), (0.002, 0.09))
    )
    shape = (1 - np.exp(-t / attack_s)) * np.exp(-t / decay_s)
    for bar_s, _, section in song.bars():
        for step in range(0, 16, strides[section]):
            onset_s, velocity = _humanised(song, rng, bar_s, step, (1.0, 0.35, 0.6, 0.35)[step % 4])
            _add(envelope, song, onset_s, velocity * shape)
    return band * envelope


def _congas(song: _Song, rng: Generator) -> Signal:
    y = np.zeros(song.samples)
    tones_hz = np.sort(rng.uniform(160, 420, 2))
    t = _time(song, 0.35)
    drums = [_sin(2 * np.pi * hz * (t + 0.006 * (1 - np.exp(-t / 0.02)))) * np.exp(-t / 0.09) for hz in tones_hz]
    patterns = _pair(rng, ((0, 3, 6, 8, 11, 14), (2, 4, 7, 10, 12, 15), (0, 4, 6, 10, 12, 14)))
    for bar_s, _, section in song.bars():
        for step in patterns[section]:
            onset_s, velocity = _humanised(song, rng, bar_s, step, 1.0 if step % 4 == 0 else 0.6)
            _add(y, song, onset_s, velocity * drums[int(rng.integers(2))])
            _add(y, song, onset_s, 0.5 * velocity**2 * _burst(song, rng, 0.005, 1500))
    return y


def _toms(song: _Song, rng: Generator) -> Signal:
    """Three drums that fall in pitch, in fills at the end of every second bar and now and then between."""
    y = np.zeros(song.samples)
    low_hz, decay_s = rng.uniform((75, 0.15), (105, 0.28))
    t = _time(song, 0.9)
    drums = [
        _sin(2 * np.pi * low_hz * ratio * (t + 0.3 * 0.03 * (1 - np.exp(-t / 0.03)))) * np.exp(-t / decay_s)
        for ratio in (1.9, 1.4, 1.0)
    ]
    for bar, (bar_s, _, section) in enumerate(song.bars()):
        fill = range(16 - 4 * (1 + section), 16) if bar % 2 else ()
        steps = [*fill, *(int(step) for step in rng.choice((3, 6, 7, 10), 1))]
        for position, step in enumerate(steps):
            onset_s, velocity = _humanised(song, rng, bar_s, step, 0.6 + 0.4 * position / len(steps))
            drum = drums[min(2, position * 3 // len(steps))]
            _add(y, song, onset_s, velocity * drum)
            _add(y, song, onset_s, 0.3 * velocity**2 * _burst(song, rng, 0.008, 1200))
    return y


def _overheads(song: _Song, rng: Generator) -> Signal:
    """A ride cymbal in quarters or eighths, and a crash where a section begins."""
    partials_hz = rng.uniform(0.85, 1.2) * np.array((1310, 2270, 3480, 4170, 5810, 7150, 9240))[:, None]
    # Two seconds of metal, of which every stroke has its own piece.
    t = _time(song, 2.0)
    phases = 2 * np.pi * rng.random((7, 1))
    metal = _sin(2 * np.pi * partials_hz * t + phases).mean(0)
    ride_s, crash_s = rng.uniform((0.25, 0.5), (0.45, 0.9))
    noise = _filter(song, rng.standard_normal(len(t)), "highpass", 4000)
    ride = (metal + 0.5 * noise) * (0.25 * np.exp(-t / ride_s) + 0.75 * np.exp(-t / 0.03))
    crash = (metal + 1.5 * noise) * (1 - np.exp(-t / 0.004)) * np.exp(-t / crash_s)
    y = np.zeros(song.samples)
    strides = _pair(rng, (2, 4))
    for bar, (bar_s, _, section) in enumerate(song.bars()):
        for step in range(0, 16, strides[section]):
            onset_s, velocity = _humanised(song, rng, bar_s, step, 0.6 if step % 8 == 4 else 0.4)
            _add(y, song, onset_s, velocity * ride)
        if bar % _SECTION == 0:
            _add(y, song, *_struck(song, rng, bar_s, crash))
    return y


def _struck(song: _Song, rng: Generator, onset_s: float, sound: Signal) -> tuple[float, Signal]:
    onset_s, velocity = _humanised(song, rng, onset_s, 0, 1.0)
    return onset_s, velocity * sound


def _backing(song: _Song, rng: Generator) -> Signal:
    """Voices in chords on one vowel, a swell to each half bar."""
    y = np.zeros(song.samples)
    lowest, vowel = int(rng.choice((50, 55, 60))), int(rng.integers(len(_VOWELS)))
    patterns = _pair(rng, ((0, 8), (0, 12), (0,), (2, 8)))
    for bar_s, degree, section in song.bars():
        for step, end in _steps(patterns[section]):
            length_s = (end - step) * song.step_s * 0.85
            t = _time(song, length_s + 0.3)
            onset_s, velocity = _humanised(song, rng, bar_s, step, 1.0 if step == 0 else 0.7)
            source = 0.2 * rng.standard_normal(len(t))
            for pitch in song.chord(degree, lowest):
                hz = _frequency(pitch + rng.normal(0, 0.06))
                vibrato_hz = rng.uniform(4.8, 5.8)
                vibrato = 0.008 * hz / vibrato_hz * _sin(2 * np.pi * vibrato_hz * t)
                source += _saw(2 * np.pi * (hz * t + vibrato), _brightness(song, hz, 0.96))
            sound = _envelope(t, 0.07, 1.5, length_s, 0.08) * _vowel(song, source, vowel)
            _add(y, song, onset_s + rng.uniform(0, 0.015), velocity * sound)
    return y


def _strings(song: _Song, rng: Generator) -> Signal:
    """A section of players on a slow line, each slightly out of tune."""
    y = np.zeros(song.samples)
    wanted, attack_s = rng.uniform((0.9, 0.05), (0.95, 0.15))
    for note in _melody(song, rng, int(rng.choice((60, 65))), (4, 4, 6, 8), 0.1):
        t = _time(song, note.length_s + 0.3)
        section = np.zeros(len(t))
        for _ in range(3):
            hz = _frequency(note.pitch + rng.normal(0, 0.07))
            vibrato_hz = rng.uniform(4.5, 6.0)
            vibrato = 0.005 * hz / vibrato_hz * _sin(2 * np.pi * (vibrato_hz * t + rng.random()))
            section += _saw(2 * np.pi * (hz * t + vibrato + rng.random()), _brightness(song, hz, wanted))
        _add(y, song, note.onset_s, note.velocity * _envelope(t, attack_s, 1.5, note.length_s, 0.12) * section)
    return y


def _brass(song: _Song, rng: Generator) -> Signal:
    """Stabs of a horn section, which brighten as they are blown."""
    y = np.zeros(song.samples)
    patterns = _pair(rng, ((0, 3, 11), (6, 8), (0, 10, 14), (4, 7, 12)))
    wanted, decay_s = rng.uniform((0.92, 0.3), (0.97, 0.6))
    for bar_s, degree, section in song.bars():
        for step, end in _steps(patterns[section]):
            length_s = min(end - step, int(rng.choice((2, 3, 6)))) * song.step_s * 0.8
            t = _time(song, length_s + 0.1)
            onset_s, velocity = _humanised(song, rng, bar_s, step, rng.uniform(0.6, 1.0))
            blown = velocity * _envelope(t, 0.02, decay_s, length_s, 0.03)
            for pitch in song.chord(degree, 55):
                hz = _frequency(pitch + rng.normal(0, 0.04))
                bright = _brightness(song, hz, wanted) * np.minimum(0.5 + 0.6 * blown, 1)
                _add(y, song, onset_s, blown * _saw(2 * np.pi * hz * t, bright))
            _add(y, song, onset_s, 0.5 * velocity * _burst(song, rng, 0.01, 1500))
    return y


def _organ(song: _Song, rng: Generator) -> Signal:
    """Drawbars on held chords, with the click of the keys and a rotating loudspeaker."""
    y = np.zeros(song.samples)
    bars = rng.uniform(0.2, 1.0, 5) * (1.0, 0.8, 0.6, 0.5, 0.4)
    rate_hz = rng.uniform(5.5, 7.0)
    patterns = _pair(rng, ((0, 8), (0, 6, 12), (0, 3, 8, 11)))
    for bar_s, degree, section in song.bars():
        for step, end in _steps(patterns[section]):
            length_s = (end - step) * song.step_s * 0.9
            t = _time(song, length_s + 0.08)
            onset_s, velocity = _humanised(song, rng, bar_s, step, 0.9)
            rotation = 1 + 0.25 * _sin(2 * np.pi * rate_hz * (t + onset_s))
            envelope = velocity * rotation * _envelope(t, 0.004, 4.0, length_s, 0.01)
            for pitch in song.chord(degree, 55):
                # Harmonics 1, 2, 3, 4 and 6 from powers of one sine and cosine.
                c, s = _cos(phase := 2 * np.pi * _frequency(pitch) * t), _sin(phase)
                second, third = 2 * s * c, s * (4 * c * c - 1)
                fourth, sixth = second * (4 * c * c - 2), 2 * third * (c * (4 * c * c - 3))
                tone = bars[0] * s + bars[1] * second + bars[2] * third + bars[3] * fourth + bars[4] * sixth
                _add(y, song, onset_s, envelope * tone)
            _add(y, song, onset_s, 0.8 * velocity * _burst(song, rng, 0.006, 1500))
    return y


def _ensemble(song: _Song, rng: Generator, y: Signal) -> Signal:
    """Side signal that decorrelates the channels above the bass: the track, late and without its lows."""
    delay = round(rng.uniform(0.009, 0.019) * song.sample_rate)
    late = np.concatenate([np.zeros(min(delay, len(y))), y[: max(0, len(y) - delay)]])
    return rng.uniform(0.35, 0.6) * _filter(song, late, "highpass", 200, 1)


def _tremolo(song: _Song, rng: Generator, y: Signal) -> Signal:
    """Side signal of a stereo tremolo, which moves the track to and fro."""
    rate_hz, depth = rng.uniform((1.5, 0.3), (4.5, 0.6))
    t = np.arange(len(y)) / song.sample_rate
    return np.asarray(depth * y * _sin(2 * np.pi * rate_hz * t))


class _Player(NamedTuple):
    """What plays a track: the instrument, its synthesis, and the side signal of one that is recorded in stereo."""

    instrument: str
    play: Callable[[_Song, Generator], Signal]
    side: Callable[[_Song, Generator, Signal], Signal] | None = None


# The players by the names of their tracks, in the order in which these are added.
INSTRUMENTS: dict[str, _Player] = {
    "kick": _Player("kick", _kick),
    "snare": _Player("snare", _snare),
    "hihat": _Player("hihat", _hihat),
    "bass": _Player("bass", _bass),
    "keys": _Player("keys", _keys, _tremolo),
    "lead": _Player("lead", _lead),
    "pad": _Player("pad", _pad, _ensemble),
    "voice": _Player("voice", _voice),
    "guitar": _Player("guitar", _guitar),
    "percussion": _Player("percussion", _percussion),
    "backing voice": _Player("backing voice", _backing, _ensemble),
    "guitar 2": _Player("guitar", _guitar, _ensemble),
    "overheads": _Player("overheads", _overheads, _ensemble),
    "tom": _Player("tom", _toms, _ensemble),
    "strings": _Player("strings", _strings, _ensemble),
    "organ": _Player("organ", _organ, _tremolo),
    "brass": _Player("brass", _brass),
    "percussion 2": _Player("percussion", _percussion),
    "backing voice 2": _Player("backing voice", _backing),
    "lead 2": _Player("lead", _lead),
    "guitar 3": _Player("guitar", _guitar),
    "keys 2": _Player("keys", _keys),
    "pad 2": _Player("pad", _pad, _ensemble),
    "percussion 3": _Player("percussion", _percussion, _ensemble),
}
