"""Console settings by instrument and at random: in range, known, and as an engineer would have them."""

from __future__ import annotations

import math

import pytest
import torch

import dasp.modules as M
from dasp.mixing import DifferentiableMixingConsole, controls_around, multitrack, plausible_controls
from dasp.mixing.fitting import loud_level_db
from dasp.mixing.instruments import FAMILIES

RATE = 22050


@pytest.fixture(scope="module")
def console():
    return DifferentiableMixingConsole(RATE)


@pytest.fixture(scope="module")
def song():
    return multitrack(seed=1, seconds=6.0, sample_rate=RATE, num_tracks=12)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def controls_of(console, song, seed=0, variation=1.0, scale=1.0):
    return plausible_controls(console, scale * song.tracks, song.instruments, generator(seed), variation)


def test_every_instrument_gets_finite_controls_in_range_whatever_the_variation(console):
    tracks = 0.1 * torch.randn(len(FAMILIES), 1, RATE, generator=generator())
    for variation in (0.0, 1.0, 5.0):
        controls = plausible_controls(console, tracks, list(FAMILIES), generator(), variation)
        assert {section: u.shape[-1] for section, u in controls.items()} == {
            section: console.num_controls(section) for section in console.sections()
        }
        for u in controls.values():
            assert ((u >= 0) & (u <= 1)).all()


def test_the_same_seed_gives_the_same_settings_and_another_does_not(console, song):
    first, again, other = (controls_of(console, song, seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[section], again[section]) for section in first)
    assert not torch.equal(first["track"], other["track"])
    assert torch.equal(controls_of(console, song, 1, 0.0)["track"], controls_of(console, song, 2, 0.0)["track"])


def test_a_track_that_is_louder_gets_a_lower_fader_and_a_higher_threshold(console, song):
    usual = console.denormalize(controls_of(console, song, variation=0.0, scale=0.5))["track"]
    louder = console.denormalize(controls_of(console, song, variation=0.0))["track"]
    change_db = 20 * math.log10(2)
    # The thresholds of none of these tracks are at an end of their range.
    for (stage, control), sign in {("gain", "gain_db"): -1, ("compressor", "threshold_db"): 1}.items():
        moved = louder[stage][control] - usual[stage][control]
        # Controls in float32 over ranges of 72 dB.
        torch.testing.assert_close(moved, torch.full_like(moved, sign * change_db), atol=1e-4, rtol=0)


def test_faders_bring_peaks_to_levels_of_practice(song):
    # Without compressors there is nothing that the faders do not know.
    strip = M.Chain(M.ParametricEQ(RATE), M.Gain(RATE), M.StereoPanner(RATE))
    console = DifferentiableMixingConsole(RATE, strip, {}, M.Chain(M.Gain(RATE)))
    values = console.denormalize(controls_of(console, song, variation=0.0))["track"]
    values["stereo_panner"]["pan"] = torch.zeros(12)
    peaks_db = torch.stack([loud_level_db(y, RATE) for y in console.strips(song.tracks, values)])
    level = dict(zip(song.names, peaks_db.tolist(), strict=True))
    assert level["guitar"] == pytest.approx(level["guitar 2"], abs=1e-3)
    assert level["kick"] - level["hihat"] == pytest.approx(13, abs=1e-3)
    assert level["voice"] - level["keys"] == pytest.approx(9, abs=1e-3)


def test_instruments_stand_in_their_places(console, song):
    values = console.denormalize(controls_of(console, song, variation=0.0))["track"]
    pan = dict(zip(song.names, values["stereo_panner"]["pan"].tolist(), strict=True))
    send = dict(zip(song.names, values["send"]["reverb_db"].tolist(), strict=True))
    assert all(abs(pan[name]) < 1e-6 for name in ("kick", "snare", "bass", "voice"))
    assert pan["guitar"] == pytest.approx(-pan["guitar 2"], abs=1e-6)
    assert abs(pan["guitar"]) > 0.5
    assert send["kick"] == send["bass"] == -60
    assert send["voice"] < send["backing voice"]


def test_the_voice_is_the_loudest_of_the_melodic_tracks(console, song):
    values = console.denormalize(controls_of(console, song))["track"]
    levels = console.strips(song.tracks, values).square().mean((-2, -1))
    level = dict(zip(song.names, levels.tolist(), strict=True))
    assert level["voice"] > max(level[name] for name in ("keys", "lead", "pad", "guitar", "backing voice"))


@pytest.mark.parametrize("count", [1, 4, 8, 24])
def test_mixes_stay_near_full_scale_for_any_number_of_tracks(console, count):
    for seed in range(2):
        song = multitrack(seed, seconds=4.0, sample_rate=RATE, num_tracks=count)
        peak_db = 20 * math.log10(float(console(song.tracks, controls_of(console, song, seed)).abs().max()))
        assert -20 < peak_db < 3


def test_compressors_reduce_what_is_dynamic_and_nothing_by_much(console, song):
    values = console.denormalize(controls_of(console, song))["track"]
    off = {**values, "compressor": {**values["compressor"], "ratio": torch.ones(len(song.names))}}
    powers = [console.strips(song.tracks, v).square().mean((-2, -1)) for v in (values, off)]
    reduction_db = 10 * (powers[1] / powers[0]).log10()
    assert (reduction_db > 0).all()
    assert (reduction_db < 6).all()
    for name in ("kick", "snare", "bass", "voice"):
        assert reduction_db[song.names.index(name)] > 1


def test_locked_controls_and_silent_tracks_stay_neutral(console, song):
    tracks = song.tracks.clone()
    tracks[3] = 0
    controls = plausible_controls(console, tracks, song.instruments, generator())
    neutral = console.default_controls(len(song.names))
    assert torch.equal(controls["track"][3], neutral["track"][3])
    for section, u in controls.items():
        locked = ~console.free(section)
        assert locked.any()
        assert torch.equal(u[..., locked], neutral[section][..., locked])


def test_consoles_of_other_processors_are_set_as_far_as_they_go(song):
    strip = M.Chain(M.Highpass(RATE, frequency_hz=30.0), M.Gain(RATE), M.StereoPanner(RATE))
    console = DifferentiableMixingConsole(RATE, strip, {"wide": M.Chain(M.StereoWidener(RATE))}, M.Chain(M.Gain(RATE)))
    controls = plausible_controls(console, song.tracks, song.instruments, generator())
    neutral, values = console.default_controls(12), console.denormalize(controls)
    assert torch.equal(controls["wide"], neutral["wide"])
    assert torch.equal(controls["master"], neutral["master"])
    assert (values["track"]["send"]["wide_db"] == -60).all()
    assert values["track"]["gain"]["gain_db"].std() > 1
    assert console(song.tracks, controls).isfinite().all()


def test_no_spread_is_neutral_and_a_given_centre_is_kept(console):
    neutral = console.default_controls(3)
    for section, u in controls_around(console, 3, generator(), spread=0.0).items():
        assert torch.equal(u, neutral[section])
    centre = controls_around(console, 3, generator(1))
    for section, u in controls_around(console, 3, generator(2), spread=0.0, around=centre).items():
        assert torch.equal(u, centre[section])


def test_deviations_are_those_that_are_declared(console):
    values = console.denormalize(controls_around(console, 4000, generator()))["track"]
    # A normal distribution cut at two deviations has 0.880 of the deviation; 4000 draws tell it to 3 %.
    cut = 0.880
    assert values["gain"]["gain_db"].std() == pytest.approx(6.0 * cut, rel=0.03)
    assert values["gain"]["gain_db"].abs().max() <= 12.01
    assert values["stereo_panner"]["pan"].std() == pytest.approx(0.35 * cut, rel=0.03)
    octaves = values["parametric_eq"]["frequency_hz"][:, 1].log2()
    assert octaves.std() == pytest.approx(0.5 * cut, rel=0.03)
    ratio = values["compressor"]["ratio"]
    assert ratio.min() >= 1
    assert ratio.max() <= 4.01
    assert values["send"]["reverb_db"].mean() == pytest.approx(-24, abs=0.5)


def test_half_the_spread_is_half_the_way():
    # At a rate where no control is near enough to an end of its range to be reflected there.
    console = DifferentiableMixingConsole(44100)
    whole, half = (controls_around(console, 5, generator(4), spread)["track"] for spread in (1.0, 0.5))
    neutral = console.default_controls(5)["track"]
    torch.testing.assert_close(half - neutral, (whole - neutral) / 2, atol=1e-6, rtol=0)


def test_draws_around_neutral_leave_locked_controls_and_have_batches(console):
    controls = controls_around(console, 3, generator(), spread=4.0, batch=(2,))
    neutral = console.default_controls(3, (2,))
    for section, u in controls.items():
        assert u.shape == neutral[section].shape
        assert ((u >= 0) & (u <= 1)).all()
        assert torch.equal(u[..., ~console.free(section)], neutral[section][..., ~console.free(section)])
        assert (u != neutral[section])[..., console.free(section)].float().mean() > 0.9


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"instruments": ["kick"]}, ValueError, "instruments has length 1, expected 2"),
        ({"instruments": ["kick", "kazoo"]}, ValueError, "instruments has 'kazoo', expected one of kick"),
        ({"variation": -1.0}, ValueError, "variation is -1.0"),
        ({"tracks": torch.zeros(2, 3, 100)}, ValueError, r"tracks\[0\] has shape \(3, 100\)"),
        ({"tracks": torch.zeros(2, 1, 1, 100)}, ValueError, r"tracks\[0\] has 3 dimensions"),
        ({"tracks": torch.zeros(2, 1, 100, dtype=torch.int32)}, TypeError, "tracks"),
    ],
)
def test_mistakes_of_plausible_controls_are_named(console, change, error, text):
    arguments = {"tracks": torch.zeros(2, 1, 100), "instruments": ["kick", "bass"], "variation": 1.0, **change}
    with pytest.raises(error, match=text):
        plausible_controls(console, generator=generator(), **arguments)


@pytest.mark.parametrize("spread", [-0.1, math.nan, math.inf])
def test_mistakes_of_controls_around_are_named(console, spread):
    with pytest.raises(ValueError, match="controls_around: spread is"):
        controls_around(console, 2, generator(), spread)
