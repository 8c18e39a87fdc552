"""Training items: what they say they are, the same for any number of workers, from synthetic and recorded songs."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

import dasp.modules as M
from dasp.mixing import DifferentiableMixingConsole, MixDataset, MultitrackFolder, SynthSongs
from dasp.mixing.instruments import FAMILIES

RATE = 16000


@pytest.fixture(scope="module")
def console():
    return DifferentiableMixingConsole(RATE)


@pytest.fixture(scope="module")
def small():
    strip = M.Chain(M.Gain(RATE), M.StereoPanner(RATE))
    return DifferentiableMixingConsole(RATE, strip, {}, M.Chain(M.Gain(RATE)))


def tone(frequency_hz, seconds=2.0, rate=RATE, channels=1):
    t = np.arange(round(seconds * rate)) / rate
    # Rising, so that no two parts are the same.
    return np.repeat((0.4 * (0.2 + t / seconds) * np.sin(2 * np.pi * frequency_hz * t))[:, None], channels, 1)


@pytest.fixture
def folder(tmp_path):
    for song in ("one", "two"):
        (tmp_path / song).mkdir()
        for number, name in enumerate(("kick", "bass", "vocals", "guitar")):
            soundfile.write(tmp_path / song / f"{name}.wav", tone(200 * (1 + number)), RATE, subtype="FLOAT")
        soundfile.write(tmp_path / song / "silence.wav", np.zeros((100, 1)), RATE)
        soundfile.write(tmp_path / song / "mix.wav", tone(777, channels=2), RATE, subtype="FLOAT")
    (tmp_path / "short").mkdir()
    soundfile.write(tmp_path / "short" / "bass.wav", tone(100, seconds=0.1), RATE)
    return MultitrackFolder(tmp_path)


def same(one, two):
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    return torch.equal(one, two)


@pytest.mark.parametrize("recipe", ["target", "reference"])
@pytest.mark.parametrize("stereo", [False, True])
def test_controls_of_an_item_mix_its_tracks_to_the_target(console, recipe, stereo):
    data = MixDataset(SynthSongs(), console, recipe, num_items=3, seconds=1.5, max_tracks=6, stereo=stereo)
    for item in (data[0], data[2]):
        assert item["tracks"].shape == (6, 1 + stereo, 24000)
        assert item["target"].shape == (2, 24000)
        mix = console(item["tracks"], item["controls"], item["mask"])
        # Mono tracks run through the strips in one channel there and in two here: rounding in float32.
        torch.testing.assert_close(mix, item["target"], atol=1e-5, rtol=0)
        assert item["target"].square().mean() > 1e-6


def test_masked_tracks_are_silent_neutral_and_without_instrument(small):
    data = MixDataset(SynthSongs(fewest=1), small, "target", num_items=8, seconds=1.0, max_tracks=10)
    neutral = small.default_controls(10)["track"]
    counts = set()
    for item in map(data.__getitem__, range(8)):
        mask = item["mask"]
        counts.add(int(mask.sum()))
        assert torch.equal(mask, mask.sort(descending=True).values)
        assert (item["tracks"].abs().amax((1, 2)) > 0).equal(mask)
        assert torch.equal(item["controls"]["track"][~mask], neutral[~mask])
        assert (item["instruments"][~mask] == -1).all()
        assert ((item["instruments"][mask] >= 0) & (item["instruments"][mask] < len(FAMILIES))).all()
    assert len(counts) > 3


def test_reference_and_target_are_different_parts_with_one_setting(small):
    data = MixDataset(SynthSongs(), small, "reference", num_items=6, seconds=3.0)
    for item in map(data.__getitem__, range(3)):
        target, reference = item["target"], item["reference"]
        assert not torch.equal(target, reference)
        correlation = (target * reference).sum() / (target.norm() * reference.norm())
        assert correlation.abs() < 0.5
        # Both halves of a song are about as loud.
        assert (10 * (target.square().mean() / reference.square().mean()).log10()).abs() < 9


@pytest.mark.parametrize("recipe", ["target", "reference"])
def test_items_are_the_same_for_any_number_of_workers(small, recipe):
    data = MixDataset(SynthSongs(fewest=2), small, recipe, num_items=4, seconds=0.8, max_tracks=3)
    loaded = [list(DataLoader(data, batch_size=2, num_workers=workers)) for workers in (0, 1, 2)]
    for other in loaded[1:]:
        assert all(same(one, two) for one, two in zip(loaded[0], other, strict=True))
    assert torch.equal(loaded[0][1]["tracks"][1], data[3]["tracks"])
    assert loaded[0][0]["controls"]["track"].shape == (2, 3, small.num_controls("track"))


def test_items_and_seeds_differ_and_global_states_are_untouched(small):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  # the global state is tested
    items = [
        MixDataset(SynthSongs(), small, "target", num_items=2, seconds=0.8, seed=seed)[index]
        for seed, index in ((0, 0), (0, 1), (1, 0))
    ]
    assert len({float(item["target"].square().sum()) for item in items}) == 3
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


@pytest.mark.parametrize("recipe", ["target", "reference"])
def test_items_of_a_folder_are_parts_of_its_songs(small, folder, recipe):
    data = MixDataset(folder, small, recipe, num_items=6, seconds=0.5, max_tracks=8)
    for item in map(data.__getitem__, range(6)):
        # The silent track and the song that is too short are never drawn.
        assert int(item["mask"].sum()) == 4
        torch.testing.assert_close(small(item["tracks"], item["controls"], item["mask"]), item["target"])
        spectra = torch.fft.rfft(item["tracks"][:4, 0]).abs().argmax(-1) * 2
        found = {tuple(FAMILIES)[i]: int(hz) for i, hz in zip(item["instruments"], spectra, strict=False)}
        assert found == {"kick": 200, "bass": 400, "voice": 600, "guitar": 800}


def test_of_many_tracks_some_are_drawn(small, folder):
    data = MixDataset(folder, small, "target", num_items=12, seconds=0.5, max_tracks=2)
    drawn = {tuple(sorted(data[i]["instruments"].tolist())) for i in range(12)}
    assert len(drawn) > 3


def test_own_mixes_are_those_of_the_folder(small, folder):
    data = MixDataset(folder, small, "reference", num_items=3, seconds=0.5, own_mixes=True)
    for item in map(data.__getitem__, range(3)):
        assert "controls" not in item
        for name in ("target", "reference"):
            # Bins of 2 Hz.
            assert int(torch.fft.rfft(item[name][0]).abs().argmax()) in (388, 389)
        # The level rises through the song, so that parts apart differ.
        assert item["target"].std() != item["reference"].std()


def test_tracks_peak_where_they_are_told_to(small, folder):
    for peak_db in (-12.0, -30.0):
        item = MixDataset(folder, small, "target", num_items=1, seconds=0.5, peak_db=peak_db)[0]
        peaks_db = 20 * item["tracks"][:4].abs().amax((1, 2)).log10()
        torch.testing.assert_close(peaks_db, torch.full((4,), peak_db), atol=1e-4, rtol=0)
    item = MixDataset(folder, small, "target", num_items=1, seconds=0.5, peak_db=None)[0]
    assert item["tracks"].abs().amax((1, 2))[:4].std() < 0.02


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"songs": "folder"}, TypeError, "songs is a str"),
        ({"recipe": "both"}, ValueError, "recipe is 'both', expected one of 'target', 'reference'"),
        ({"num_items": 0}, ValueError, "num_items, max_tracks are 0"),
        ({"max_tracks": 0}, ValueError, "num_items, max_tracks are 1, 0"),
        ({"max_tracks": 3}, ValueError, r"max_tracks is 3, expected at least songs.fewest, 4"),
        ({"seconds": 0.0}, ValueError, "seconds is 0"),
        ({"seed": -1}, ValueError, "seed, amount are -1"),
        ({"amount": -1.0}, ValueError, "seed, amount are 0, -1"),
        ({"own_mixes": True}, ValueError, "own_mixes is set, but SynthSongs have no mixes"),
        ({"console": DifferentiableMixingConsole(22050.5)}, ValueError, "console has sample_rate 22050.5"),
    ],
)
def test_mistakes_are_named(small, change, error, text):
    arguments = {"songs": SynthSongs(), "console": small, "recipe": "target", "num_items": 1, **change}
    with pytest.raises(error, match=text):
        MixDataset(**arguments)


def test_songs_that_give_no_item_are_named(small, folder):
    with pytest.raises(ValueError, match=r"in 20 draws of MultitrackFolder.* no part of 5.0 s was audible"):
        MixDataset(folder, small, "target", num_items=1, seconds=5.0)[0]
    with pytest.raises(IndexError, match="index is 1, expected 0 to 0"):
        MixDataset(folder, small, "target", num_items=1)[1]
    with pytest.raises(ValueError, match="fewest is 0"):
        SynthSongs(fewest=0)
    with pytest.raises(ValueError, match="seeds is range"):
        SynthSongs(range(0))
