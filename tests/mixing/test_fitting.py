"""Fitting: the starting point in closed form, and descent to known settings."""

from __future__ import annotations

import math

import pytest
import torch

import dasp.modules as M
from dasp.mixing import Constraints, DifferentiableMixingConsole, fit, fitting, multitrack, plausible_controls
from dasp.mixing.alignment import shifted
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
    assert [progress.step for progress in steps if progress.stage == "descent"] == list(range(1, 13))
    assert steps[-1].step == steps[-1].steps
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
    result = fit(console, song.tracks, 0.5 * song.tracks.sum(0).expand(2, -1), steps=0)
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


@pytest.mark.parametrize("samples", [1, 10, 800])
def test_audio_shorter_than_a_frame_is_fitted(samples):
    tracks = [0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    reference = sum(tracks).expand(2, -1)
    found = fit(DifferentiableMixingConsole(RATE), tracks, reference, steps=1)
    assert all(bool(torch.isfinite(u).all()) for u in found.controls.values())


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


def compressed_console(buses=None):
    strip = M.Chain(M.ParametricEQ(RATE, kinds=("low_shelf", "peaking")), M.Compressor(RATE, ratio=1.0), M.Gain(RATE))
    strip = M.Chain(*strip, M.StereoPanner(RATE))
    locked = ["track.compressor.makeup_gain_db", "track.compressor.knee_db", "master.gain.gain_db"]
    return DifferentiableMixingConsole(RATE, strip, buses or {}, M.Chain(M.Gain(RATE)), locked)


def drawn(console, song):
    return plausible_controls(console, song.tracks, song.instruments, torch.Generator().manual_seed(1))


def test_a_waveform_of_the_same_console_is_met(song):
    console, tracks = compressed_console(), list(song.tracks)
    hidden = drawn(console, song)
    reference = console(tracks, hidden)
    result = fit(console, tracks, reference, steps=25, excerpt_s=1.5)
    assert result.refined
    assert result.console is console
    left = console(tracks, result.controls) - reference
    # A descent of as many steps leaves -20 dB.
    assert 10 * torch.log10(left.square().sum() / reference.square().sum()) < -35
    found, true = (console.denormalize(u)["track"] for u in (result.controls, hidden))
    assert (found["stereo_panner"]["pan"] - true["stereo_panner"]["pan"]).abs().max() < 0.01


def test_a_late_reference_is_not_refined_against_its_waveform(song):
    console, tracks = compressed_console(), list(song.tracks)
    reference = shifted(console(tracks, drawn(console, song)), 37)
    result = fit(console, tracks, reference, steps=25, excerpt_s=1.5)
    found, true = (console.denormalize(u)["track"]["gain"]["gain_db"] for u in (result.controls, drawn(console, song)))
    assert result.end_loss < result.start_loss
    # By least squares of the waveform alone they would fall by 27 dB: what is late explains nothing.
    assert (found - true).abs().mean() < 3


def test_the_room_of_a_reference_is_found(song):
    noise = M.Chain(M.NoiseShapedReverb(RATE, mix=1.0, decay_s=0.4))
    console, tracks = compressed_console({"reverb": noise}), list(song.tracks)
    # Another noise than that of the console.
    other = M.Chain(M.NoiseShapedReverb(RATE, mix=1.0, decay_s=0.4, seed=9))
    hidden = compressed_console({"reverb": other})
    controls = {**hidden.default_controls(4), "track": drawn(hidden, song)["track"]}
    reference = hidden(tracks, controls)
    kept = fit(console, tracks, reference, steps=15, excerpt_s=1.5)
    assert kept.console is console
    result = fit(console, tracks, reference, steps=15, excerpt_s=1.5, reverb="impulse")
    assert result.refined
    assert list(result.console.sections()["reverb"].stages()) == ["stereo_widener", "convolution_reverb"]
    assert result.end_loss < 0.6 * kept.end_loss
    locked = Constraints(console, locks={"reverb.decay_s": 0.4})
    result = fit(console, tracks, reference, steps=2, excerpt_s=1.5, constraints=locked, reverb="impulse")
    assert result.console is console


def test_a_refinement_obeys_locks_and_limits(song):
    console, tracks = compressed_console(), list(song.tracks)
    reference = console(tracks, drawn(console, song))
    obey = Constraints(console, song.names, {f"{song.names[0]}.pan": 0.5}, {"track.ratio": (1.0, 1.5)})
    result = fit(console, tracks, reference, steps=3, excerpt_s=1.5, constraints=obey)
    values = console.denormalize(result.controls)["track"]
    assert values["stereo_panner"]["pan"][0] == 0.5
    assert (values["compressor"]["ratio"] <= 1.5001).all()


def test_of_a_long_song_sections_are_fitted(song, monkeypatch):
    monkeypatch.setattr(fitting, "_LONGEST_S", 2.0)
    monkeypatch.setattr(fitting, "_SECTION_S", 1.0)
    console, tracks = linear_console(), list(song.tracks)
    values = console.denormalize(console.default_controls(4))
    values["track"]["gain"]["gain_db"] = torch.tensor([-3.0, -9.0, 0.0, 4.0])
    heard = []
    result = fit(console, tracks, console.mix(tracks, values), steps=3, excerpt_s=0.5, on_step=heard.append)
    found = console.denormalize(result.controls)["track"]["gain"]["gain_db"]
    torch.testing.assert_close(found, values["track"]["gain"]["gain_db"], atol=0.2, rtol=0)
    assert math.isfinite(result.end_loss)


def test_an_unknown_reverb_is_refused(song):
    with pytest.raises(ValueError, match="fit: reverb is 'hall', expected one of 'noise', 'impulse'"):
        fit(linear_console(), list(song.tracks), song.tracks.sum(0).expand(2, -1), reverb="hall")


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
