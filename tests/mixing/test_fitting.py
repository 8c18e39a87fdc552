"""Fitting: the starting point in closed form, and descent to known settings."""

from __future__ import annotations

import math

import pytest
import torch

import dasp.modules as M
from dasp.mixing import DifferentiableMixingConsole, fit, multitrack
from dasp.mixing.demo import make
from dasp.mixing.fitting import starting_point

RATE = 16000


@pytest.fixture(scope="module")
def song():
    return multitrack(seed=1, seconds=4.0, sample_rate=RATE, num_tracks=4)


def linear_console():
    return DifferentiableMixingConsole(RATE, M.Chain(M.Gain(RATE), M.StereoPanner(RATE)), {}, M.Chain(M.Gain(RATE)))


def test_start_of_a_linear_console_is_exact(song):
    console = linear_console()
    values = console.denormalize(console.default_controls(4))
    values["track"]["gain"]["gain_db"] = torch.tensor([-3.0, -9.0, 0.0, 4.0])
    values["track"]["stereo_panner"]["pan"] = torch.tensor([-0.5, 0.8, 0.0, -0.9])
    start = starting_point(console, list(song.tracks), console.mix(song.tracks, values))
    # Least squares in float64 of audio in float32.
    torch.testing.assert_close(start["track"]["gain"]["gain_db"], values["track"]["gain"]["gain_db"], atol=1e-2, rtol=0)
    torch.testing.assert_close(
        start["track"]["stereo_panner"]["pan"], values["track"]["stereo_panner"]["pan"], atol=1e-3, rtol=0
    )


def test_a_fit_comes_closer_and_repeats_to_the_bit(song):
    console = DifferentiableMixingConsole(RATE)
    generator = torch.Generator().manual_seed(0)
    tracks = list(song.tracks)
    values = starting_point(console, tracks, song.tracks.sum(0).expand(2, -1))
    values["track"]["stereo_panner"]["pan"] = 1.2 * torch.rand(4, generator=generator) - 0.6
    values["track"]["parametric_eq"]["gain_db"] = 12 * torch.rand(4, 4, generator=generator) - 6
    reference = console.mix(song.tracks, values)
    steps = []
    result = fit(console, tracks, reference, steps=12, excerpt_s=1.5, on_step=steps.append)
    again = fit(console, tracks, reference, steps=12, excerpt_s=1.5)
    assert result.end_loss < 0.85 * result.start_loss
    assert [progress.step for progress in steps] == list(range(1, 13))
    assert len(result.losses) == 12
    assert not result.interrupted
    for section, u in result.controls.items():
        assert torch.equal(u, again.controls[section])
        assert ((u >= 0) & (u <= 1)).all()
        locked = ~console.free(section)
        start = console.normalize(starting_point(console, tracks, reference))[section]
        torch.testing.assert_close(u[..., locked], start[..., locked])


def test_an_interrupt_returns_what_is_found_so_far(song):
    def stop(progress):
        if progress.step == 2:
            raise KeyboardInterrupt

    console = linear_console()
    reference = song.tracks.sum(0).expand(2, -1).contiguous()
    result = fit(console, list(song.tracks), reference, steps=50, excerpt_s=1.0, on_step=stop)
    assert result.interrupted
    assert len(result.losses) == 2


def test_no_steps_give_the_start(song):
    console = linear_console()
    result = fit(console, list(song.tracks), 0.5 * song.tracks.sum(0).expand(2, -1), steps=0)
    assert result.losses == ()
    assert result.start_loss == result.end_loss


def test_mono_and_stereo_tracks_are_fitted_together(song):
    console = DifferentiableMixingConsole(RATE)
    tracks = [song.tracks[0], song.tracks[1].expand(2, -1).contiguous(), song.tracks[2]]
    result = fit(console, tracks, sum(t.expand(2, -1) for t in tracks), steps=2, excerpt_s=1.0)
    assert math.isfinite(result.end_loss)


def test_a_silent_track_does_no_harm(song):
    console = DifferentiableMixingConsole(RATE)
    tracks = [song.tracks[0], torch.zeros_like(song.tracks[0])]
    result = fit(console, tracks, tracks[0].expand(2, -1).contiguous(), steps=3, excerpt_s=1.0)
    assert all(torch.isfinite(u).all() for u in result.controls.values())


def test_audio_shorter_than_an_excerpt_is_fitted_whole():
    console = linear_console()
    track = torch.randn(1, 3000, generator=torch.Generator().manual_seed(0))
    result = fit(console, [track], track.expand(2, -1).contiguous(), steps=2)
    assert math.isfinite(result.end_loss)


@pytest.mark.parametrize(
    ("tracks", "reference", "message"),
    [
        ([], torch.ones(2, 100), "tracks is empty"),
        ([torch.ones(1, 99)], torch.ones(2, 100), r"tracks\[0\] has 99 samples, expected 100"),
        ([torch.ones(1, 100)], torch.zeros(2, 100), "reference is silent"),
        ([torch.ones(1, 100)], torch.ones(1, 100), "expected 2 channel"),
    ],
)
def test_wrong_audio_is_refused(tracks, reference, message):
    with pytest.raises(ValueError, match=message):
        fit(linear_console(), tracks, reference)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_demo_finds_its_hidden_faders_and_pans(seed):
    demo = make(seed)
    console = DifferentiableMixingConsole(demo.song.sample_rate)
    result = fit(console, list(demo.song.tracks), demo.reference, steps=200)
    found, true = console.denormalize(result.controls)["track"], demo.values["track"]
    assert (found["gain"]["gain_db"] - true["gain"]["gain_db"]).abs().mean() < 1.0
    assert (found["stereo_panner"]["pan"] - true["stereo_panner"]["pan"]).abs().mean() < 0.1


def test_a_fit_knows_nothing_of_the_hidden_settings_of_the_demo():
    demo = make(seed=0, seconds=5.0)
    console = DifferentiableMixingConsole(demo.song.sample_rate)
    start = starting_point(console, list(demo.song.tracks), demo.reference)
    locked = {name.split("[")[0] for name in console.locked}
    for section, stages in start.items():
        for stage, controls in stages.items():
            for control, value in controls.items():
                same = torch.isclose(value, demo.values[section][stage][control], rtol=1e-4).any()
                assert bool(same) == (f"{section}.{stage}.{control}" in locked), f"{section}.{stage}.{control}"
