"""Synthetic songs: seeded, playable as music, and rich enough that mixes of them tell settings apart."""

import itertools
import random
import time

import numpy as np
import pytest
import torch

from dasp.mixing.instruments import FAMILIES
from dasp.mixing.synth import INSTRUMENTS, Multitrack, multitrack


@pytest.fixture(scope="module")
def song() -> Multitrack:
    return multitrack(seed=0, num_tracks=8)


@pytest.fixture(scope="module")
def band() -> Multitrack:
    """Every track there is, long enough for both sections."""
    return multitrack(seed=2, seconds=20.0, sample_rate=22050, num_tracks=24, stereo=True)


def power(track: torch.Tensor, size: int = 4096) -> torch.Tensor:
    """Mean power spectrum, of bins 10.8 Hz apart."""
    window = torch.hann_window(size)
    return torch.stft(track, size, size // 2, window=window, return_complex=True).abs().square().mean(-1)[0]


def centroid_hz(track: torch.Tensor) -> float:
    spectrum = power(track)
    return float((spectrum * torch.linspace(0, 22050, len(spectrum))).sum() / spectrum.sum())


def test_song_has_the_declared_shape(song):
    assert song.names == tuple(INSTRUMENTS)[:8] == ("kick", "snare", "hihat", "bass", "keys", "lead", "pad", "voice")
    assert song.tracks.shape == (8, 1, 8 * 44100)
    assert song.tracks.dtype == torch.float32
    assert len(song.tags) == 8
    assert song.instruments == song.names
    assert song.channels == (1,) * 8
    assert song.sample_rate == 44100
    assert multitrack(0, seconds=0.5, sample_rate=16000, num_tracks=3).tracks.shape == (3, 1, 8000)


def test_same_seed_gives_the_same_song(song):
    again = multitrack(seed=0, num_tracks=8)
    assert torch.equal(again.tracks, song.tracks)
    assert again.tempo == song.tempo


def test_seeds_differ(song):
    other = multitrack(seed=1, num_tracks=8)
    for one, two in zip(song.tracks, other.tracks, strict=True):
        correlation = (one * two).sum() / (one.norm() * two.norm())
        assert correlation.abs() < 0.3


def test_tracks_do_not_depend_on_their_number(song):
    assert torch.equal(multitrack(seed=0, num_tracks=3).tracks, song.tracks[:3])


@pytest.mark.parametrize("seed", range(6))
def test_stems_peak_between_6_and_3_db_below_full_scale(seed):
    song = multitrack(seed, num_tracks=8)
    assert torch.isfinite(song.tracks).all()
    peaks_db = 20 * song.tracks.abs().amax((1, 2)).log10()
    assert (peaks_db >= -6.01).all()
    assert (peaks_db <= -2.99).all()
    assert 92 <= song.tempo < 132


@pytest.mark.parametrize("seed", range(3))
def test_instruments_occupy_their_registers(seed):
    song = multitrack(seed, num_tracks=8)
    centroids = dict(zip(song.names, map(centroid_hz, song.tracks), strict=True))
    low = max(centroids[name] for name in ("kick", "bass"))
    middle = [centroids[name] for name in ("keys", "lead", "pad", "voice")]
    assert low < 200 < min(middle)
    assert max(middle) < centroids["hihat"]
    assert low < centroids["snare"] < 4000 < 10000 < centroids["hihat"]


def test_every_instrument_has_treble(song):
    # A shelf at 5 kHz must move something: the loss looks 70 dB down.
    for track in song.tracks:
        spectrum = power(track)
        assert spectrum[464:].sum() > 1e-4 * spectrum.sum()


def test_every_instrument_is_dynamic(song):
    # A compressor must have something to do: 5 ms levels of the loud half of the track spread over 6 dB.
    for name, track in zip(song.names, song.tracks, strict=True):
        frames = track[0, : track.shape[-1] // 220 * 220].reshape(-1, 220)
        levels_db = 10 * frames.square().mean(1).add(1e-9).log10()
        spread_db = levels_db.quantile(0.99) - levels_db.quantile(0.5)
        assert spread_db > (4 if name == "pad" else 6), name


def test_there_are_24_tracks_tagged_with_instrument_and_family(band):
    assert band.tracks.shape == (24, 2, 20 * 22050)
    assert len(set(band.names)) == 24
    for name, instrument, tag in zip(band.names, band.instruments, band.tags, strict=True):
        assert name.rstrip(" 23") == instrument
        assert tag == FAMILIES[instrument]


def test_both_halves_of_a_long_song_sound_on_every_track(band):
    first, second = band.tracks.split(10 * 22050, -1)
    for half in (first, second):
        # Silence would be -inf; the sparsest instruments, toms and snares, are some 30 dB down.
        assert (10 * half.square().mean((1, 2)).log10() > -45).all()


@pytest.mark.parametrize("seed", range(3))
def test_sections_of_a_song_differ_in_their_chords_and_come_back(seed):
    song = multitrack(seed, seconds=33.0, sample_rate=22050, names=["bass", "keys", "pad", "organ"])
    bars = [round(bar * 4 * 60 / song.tempo * song.sample_rate) for bar in (0, 4, 8, 12)]
    for name, track in zip(song.names, song.tracks, strict=True):
        first, second, third = (power(track[:, begin:end]).sqrt() for begin, end in itertools.pairwise(bars))
        alike = torch.nn.functional.cosine_similarity
        assert 1 - alike(first, second, dim=0) > 2 * (1 - alike(first, third, dim=0)), name


def test_players_of_one_instrument_differ(band):
    for name, track in zip(band.names, band.tracks, strict=True):
        if name[-1].isdigit():
            first = band.tracks[band.names.index(name.rstrip(" 23"))]
            correlation = (first[0] * track[0]).sum() / (first[0].norm() * track[0].norm())
            assert correlation.abs() < 0.5, name


def test_stereo_tracks_are_wide_and_mono_tracks_the_same_in_both_channels(band):
    assert {1, 2} == set(band.channels)
    for name, channels, (left, right) in zip(band.names, band.channels, band.tracks, strict=True):
        if channels == 1:
            assert torch.equal(left, right), name
        else:
            side_db = 10 * ((left - right).square().sum() / (left + right).square().sum()).log10()
            assert -25 < side_db < 0, name


def test_the_mean_of_the_channels_is_the_mono_track():
    stereo = multitrack(seed=3, seconds=2.0, num_tracks=9, stereo=True)
    mono = multitrack(seed=3, seconds=2.0, num_tracks=9)
    torch.testing.assert_close(stereo.tracks.mean(1, keepdim=True), mono.tracks, atol=1e-7, rtol=0)


def test_tracks_chosen_by_name_are_those_of_the_whole_song():
    whole = multitrack(seed=5, seconds=1.0, num_tracks=9)
    part = multitrack(seed=5, seconds=1.0, names=["guitar", "bass"])
    assert part.names == ("guitar", "bass")
    assert torch.equal(part.tracks, whole.tracks[[8, 3]])


def test_a_compressor_has_something_to_do_on_every_track(band):
    for name, track in zip(band.names, band.tracks, strict=True):
        frames = track[0, : track.shape[-1] // 110 * 110].reshape(-1, 110)
        levels_db = 10 * frames.square().mean(1).add(1e-9).log10()
        assert levels_db.quantile(0.99) - levels_db.quantile(0.5) > 4, name


def test_low_sample_rates_and_short_songs_are_finite():
    for seconds, sample_rate in ((0.001, 8000), (0.3, 8000), (1.0, 22050), (1.0, 192000)):
        song = multitrack(3, seconds, sample_rate, 24)
        assert torch.isfinite(song.tracks).all()
        assert song.tracks.abs().max() < 1


def test_global_random_states_are_untouched():
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002  # the global state is what is tested
    torch.manual_seed(1)
    multitrack(seed=5, seconds=1.0, num_tracks=8)
    after = random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    assert after == (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002


def test_is_fast():
    # 0.2 s of processor time when measured; the best of three, with room for slow machines.
    def seconds() -> float:
        start = time.process_time()
        multitrack(seed=7, num_tracks=8)
        return time.process_time() - start

    assert min(seconds() for _ in range(3)) < 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"num_tracks": 0}, "num_tracks is 0"),
        ({"num_tracks": 25}, "num_tracks is 25"),
        ({"names": []}, "names is"),
        ({"names": ["kick", "kick"]}, "names is .*different ones"),
        ({"names": ["kazoo"]}, "names is .*kazoo"),
        ({"seconds": 0.0}, "seconds is 0"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"sample_rate": 100}, "sample_rate"),
        ({"seed": -1}, "seed"),
    ],
)
def test_mistakes_are_named(arguments, text):
    with pytest.raises(ValueError, match=text):
        multitrack(**{"seed": 0, **arguments})
