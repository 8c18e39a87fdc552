"""The choice of excerpts, and the offset of a mix."""

from __future__ import annotations

import itertools

import pytest
import torch

from dasp.mixing import multitrack
from dasp.mixing.alignment import find_offset, shifted
from dasp.mixing.excerpts import choose_excerpts


def test_excerpts_hear_every_track():
    tracks = [torch.zeros(1, 1000) for _ in range(3)]
    tracks[0][0, 100:200] = 1.0
    tracks[1][0, 500:600] = 0.1
    tracks[2][0, 800:900] = 0.01
    begins = choose_excerpts(tracks, 100, 3)
    assert begins == [100, 500, 800]


def test_the_excerpt_with_all_tracks_comes_first():
    tracks = [torch.zeros(2, 1000) for _ in range(3)]
    for position, track in enumerate(tracks):
        track[:, 600:700] = 0.5
        track[:, 200 + 100 * position : 300 + 100 * position] = 0.5
    assert choose_excerpts(tracks, 100, 1) == [600]


def test_excerpts_lie_on_the_grid_within_the_song_and_do_not_overlap():
    tracks = list(torch.rand(4, 1, 9973, generator=torch.Generator().manual_seed(0)))
    begins = choose_excerpts(tracks, 1000, 5, grid=64)
    assert len(begins) == 5
    assert all(begin % 64 == 0 and begin + 1000 <= 9973 for begin in begins)
    assert all(b - a >= 1000 for a, b in itertools.pairwise(begins))


@pytest.mark.parametrize("samples", [1, 50])
def test_a_short_or_silent_song_has_one_excerpt(samples):
    assert choose_excerpts([torch.zeros(1, samples)], 100, 3) == [0]


@pytest.mark.parametrize("samples", [0, 1, 441, -1000, 15000])
def test_an_offset_is_found_to_the_sample(samples):
    song = multitrack(seed=2, seconds=6.0, sample_rate=16000, num_tracks=5)
    gains = torch.tensor([0.3, 1.0, 0.6, 0.2, 0.8])[:, None, None]
    mix = shifted((gains * song.tracks).sum(0).expand(2, -1).clone(), samples)
    assert find_offset(list(song.tracks), mix, 16000) == samples


def test_no_offset_is_found_of_another_song():
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 2, 32000, generator=draw)
    assert find_offset([noise[0]], noise[1], 16000) is None
    assert find_offset([torch.zeros(1, 32000)], noise[1], 16000) is None


def test_shifting_there_and_back_keeps_the_middle():
    x = torch.arange(8.0)[None]
    assert shifted(x, 3).tolist() == [[0, 0, 0, 0, 1, 2, 3, 4]]
    assert shifted(x, -3).tolist() == [[3, 4, 5, 6, 7, 0, 0, 0]]
    assert not shifted(x, 9).any()
