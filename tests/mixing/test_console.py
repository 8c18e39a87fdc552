"""The console as a function of tracks and controls, and its settings as text."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

import dasp.functional as F
import dasp.modules as M
from dasp.mixing import DifferentiableMixingConsole
from tests.cases import assert_close, gradients

RATE = 44100


@pytest.fixture(scope="module")
def console():
    return DifferentiableMixingConsole(RATE)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)


@pytest.fixture
def tracks(generator):
    return 0.1 * torch.randn(3, 1, 6000, generator=generator)


def test_neutral_controls_pass_the_sum_through(console, tracks):
    mix = console(tracks, console.default_controls(3))
    # Six sums and products in float32 per sample.
    torch.testing.assert_close(mix, tracks.sum(0).expand(2, -1), atol=1e-6, rtol=0)


def test_permuting_tracks_permutes_controls_and_leaves_the_mix(console, tracks, generator):
    controls = console.random_controls(3, generator)
    order = torch.tensor([2, 0, 1])
    permuted = console(tracks[order], {**controls, "track": controls["track"][order]})
    torch.testing.assert_close(permuted, console(tracks, controls), atol=2e-6, rtol=0)


def test_a_masked_track_changes_nothing_and_gets_no_gradient(console, tracks, generator):
    controls = console.random_controls(3, generator)
    tracks.requires_grad_()
    mix = console(tracks, controls, mask=torch.tensor([True, False, True]))
    two = {**controls, "track": controls["track"][[0, 2]]}
    torch.testing.assert_close(mix, console(tracks[[0, 2]], two), atol=1e-6, rtol=0)
    mix.square().sum().backward()
    assert not tracks.grad[1].any()
    assert tracks.grad[0].any()


def test_a_mono_track_and_the_same_in_both_channels_mix_alike(console, tracks, generator):
    controls = console.random_controls(3, generator)
    mixed = [tracks[0], tracks[1].expand(2, -1), tracks[2]]
    torch.testing.assert_close(console(mixed, controls), console(tracks, controls), atol=1e-6, rtol=0)


def test_a_stereo_track_keeps_its_image_at_neutral_controls(console, generator):
    stereo = torch.randn(1, 2, 500, generator=generator)
    torch.testing.assert_close(console(stereo, console.default_controls(1)), stereo[0], atol=1e-5, rtol=0)


def test_a_batch_is_as_its_items(console, tracks, generator):
    controls = console.random_controls(3, generator, batch=(2,))
    batch = torch.stack([tracks, tracks.flip(-1)])
    mix = console(batch, controls)
    for item in range(2):
        alone = console(batch[item], {name: u[item] for name, u in controls.items()})
        torch.testing.assert_close(mix[item], alone, atol=2e-6, rtol=0)


def drawn(console, generator, batch, tracks, samples):
    return torch.randn(batch, tracks, 1, samples, generator=generator), console.random_controls(
        tracks, generator, (batch,)
    )


def export_and_compare(console, generator):
    batch, count, samples = (torch.export.Dim(name, min=1) for name in ("batch", "tracks", "samples"))
    tracks, controls = drawn(console, generator, 2, 3, 300)
    sections = {section: {0: batch, 1: count} if section == "track" else {0: batch} for section in controls}
    shapes = {0: batch, 1: count, 3: samples}, sections
    program = torch.export.export(console, (tracks, controls), dynamic_shapes=shapes).module()
    for size in ((2, 3, 300), (4, 5, 700), (1, 1, 50)):
        tracks, controls = drawn(console, generator, *size)
        # Sums of rounding in float32.
        torch.testing.assert_close(program(tracks, controls), console(tracks, controls), atol=1e-5, rtol=1e-5)


def test_a_console_is_exported_for_any_batch_tracks_and_length(generator):
    strip, bus = M.Chain(M.Gain(RATE), M.StereoPanner(RATE)), M.Chain(M.StereoWidener(RATE))
    export_and_compare(DifferentiableMixingConsole(RATE, strip, {"wide": bus}, M.Chain(M.Gain(RATE))), generator)


@pytest.mark.slow
def test_the_default_console_is_exported_for_any_batch_tracks_and_length(console, generator):
    export_and_compare(console, generator)


@pytest.mark.slow
def test_the_default_console_compiles_whole(console, generator):
    torch._dynamo.reset()
    compiled = torch.compile(console, backend="aot_eager", fullgraph=True, dynamic=True)
    for size in ((2, 3, 300), (4, 5, 700)):
        tracks, controls = drawn(console, generator, *size)
        for u in controls.values():
            u.requires_grad_()
        results = []
        for run in (compiled, console):
            mix = run(tracks, controls)
            results.append([mix, *torch.autograd.grad(mix.square().sum(), list(controls.values()))])
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected, atol=1e-4 * float(expected.detach().abs().max()), rtol=1e-4)
    mask = torch.tensor([True, False, True, True, True]).expand(4, -1)
    torch.testing.assert_close(compiled(tracks, controls, mask), console(tracks, controls, mask), atol=1e-5, rtol=1e-5)


def test_every_free_control_gets_a_gradient(console, tracks, generator):
    controls = {name: u.requires_grad_() for name, u in console.random_controls(3, generator).items()}
    # Loud enough that every compressor works, also the master's.
    console(20 * tracks, controls).square().mean().backward()
    for section, u in controls.items():
        assert torch.isfinite(u.grad).all()
        per_control = u.grad.reshape(-1, u.shape[-1]).abs().amax(0)
        named = zip(console.control_names(section), per_control, console.free(section), strict=True)
        dead = [name for name, slope, free in named if free and not slope]
        assert not dead, f"{section}: no gradient for {dead}"


def test_an_edit_of_one_fader_changes_that_track_by_as_much(tracks):
    linear = DifferentiableMixingConsole(RATE, M.Chain(M.Gain(RATE), M.StereoPanner(RATE)), {}, M.Chain(M.Gain(RATE)))
    values = linear.denormalize(linear.default_controls(3))
    before = linear.mix(tracks, values)
    values["track"]["gain"]["gain_db"][1] += 3.0
    expected = before + (10 ** (3 / 20) - 1) * tracks[1]
    torch.testing.assert_close(linear.mix(tracks, values), expected, atol=1e-6, rtol=0)


def test_a_send_at_its_lowest_is_off(console, tracks):
    values = console.denormalize(console.default_controls(3))
    assert (values["track"]["send"]["reverb_db"] == -60).all()
    dry = console.mix(tracks, values)
    values["track"]["send"]["reverb_db"] = torch.full((3,), -20.0)
    wet = console.mix(tracks, values)
    bus = F.stereo_bus(console.strips(tracks, values["track"]), RATE, send_db=-20.0)
    torch.testing.assert_close(wet - dry, F.noise_shaped_reverb(bus, RATE, mix=1.0), atol=2e-6, rtol=0)


def test_normalized_and_physical_controls_are_inverse(console, generator):
    controls = console.random_controls(3, generator)
    back = console.normalize(console.denormalize(controls))
    for section, u in controls.items():
        torch.testing.assert_close(back[section], u, atol=1e-6, rtol=0)


def test_locked_controls_keep_their_defaults_in_random_draws(console, generator):
    controls, default = console.random_controls(3, generator), console.default_controls(3)
    for section, u in controls.items():
        locked = ~console.free(section)
        assert torch.equal(u[..., locked], default[section][..., locked])
    assert not console.free("track").all()


def test_pickle_and_deepcopy_mix_alike(console, tracks, generator):
    controls = console.random_controls(3, generator)
    expected = console(tracks, controls)
    assert torch.equal(pickle.loads(pickle.dumps(console))(tracks, controls), expected)
    assert torch.equal(copy.deepcopy(console)(tracks, controls), expected)


def in_blocks(console, tracks, sizes, controls, mask=None):
    """The mix of tracks that are cut into blocks."""
    state, mixed, split = {}, [], [track.split(sizes, -1) for track in tracks]
    for blocks in zip(*split, strict=True):
        mix, state = console.forward_block(blocks, state, controls, mask)
        mixed.append(mix)
    return torch.cat(mixed, -1)


@pytest.mark.parametrize("sizes", [[1500], [1] * 40, [1, 1499], [701, 0, 333, 466], [100] * 15])
def test_blocks_equal_the_whole_with_gradients_across_blocks(sizes, generator):
    rooms = {
        "room": M.Chain(M.NoiseShapedReverb(RATE, decay_s=0.06, pre_delay_ms=4.0), M.Compressor(RATE, ratio=3.0)),
        "hall": M.Chain(M.NoiseShapedReverb(RATE, decay_s=0.05, mix=0.8, seed=1)),
    }
    console = DifferentiableMixingConsole(RATE, buses=rooms)
    shapes = [(2, 1), (2, 2), (2, 1), (2, 2)]
    tracks = [torch.randn(*shape, sum(sizes), generator=generator, dtype=torch.float64) for shape in shapes]
    controls = {name: u.double() for name, u in console.default_controls(4, batch=(2,)).items()}
    for name in ("track", "master"):
        controls[name] = 0.3 + 0.4 * torch.rand(controls[name].shape, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False], [True, True, False, True]])
    results = []
    for run in (console, lambda tracks, controls, mask: in_blocks(console, tracks, sizes, controls, mask)):
        heard = [track.clone().requires_grad_() for track in tracks]
        moved = {name: u.clone().requires_grad_() for name, u in controls.items()}
        mix = run(heard, moved, mask)
        slopes = gradients(mix, [*heard, *moved.values()])
        results.append((mix.detach(), *slopes))
    for got, want in zip(*results, strict=True):
        # A gradient is a sum over the audio, whose terms round relative to their own size.
        assert_close(got, want, 1e-12, 10.0)


def test_blocks_of_one_tensor_equal_the_whole(console, tracks, generator):
    controls = console.random_controls(3, generator)
    mixed, state = [], {}
    for block in tracks.split(1234, -1):
        mix, state = console.mix_block(block, state, console.denormalize(controls))
        mixed.append(mix)
    # Sums in float32 of sounds around 1.
    assert_close(torch.cat(mixed, -1), console(tracks, controls), 1e-6, 10.0)


def test_a_state_has_the_names_of_sections_and_stages(console, generator):
    tracks = [torch.randn(1, 50, generator=generator), torch.randn(2, 50, generator=generator)]
    _, state = console.forward_block(tracks, {}, console.default_controls(2))
    assert sorted(state) == [
        "master.compressor.smoothed_gain",
        "master.parametric_eq.zi",
        "reverb.noise_shaped_reverb.input",
        "track.mono.compressor.smoothed_gain",
        "track.mono.parametric_eq.zi",
        "track.stereo.compressor.smoothed_gain",
        "track.stereo.parametric_eq.zi",
    ]


def test_a_state_of_other_tracks_is_refused(console, tracks):
    controls = console.default_controls(3)
    _, state = console.forward_block(tracks, {}, controls)
    with pytest.raises(
        ValueError, match=r"state has 'track\.mono\.compressor\.smoothed_gain', expected .*track\.stereo"
    ):
        console.forward_block(tracks.expand(-1, 2, -1), state, controls)
    with pytest.raises(ValueError, match=r"parametric_eq: state 'zi' has shape \(3, .*expected \(2, "):
        console.forward_block(tracks[:2], state, console.default_controls(2))
    with pytest.raises(ValueError, match="state has 'drums', expected"):
        console.forward_block(tracks, {**state, "drums": torch.zeros(())}, controls)
    with pytest.raises(ValueError, match=r"state lacks 'master\.parametric_eq\.zi', expected"):
        console.forward_block(
            tracks, {key: value for key, value in state.items() if key != "master.parametric_eq.zi"}, controls
        )
    with pytest.raises(TypeError, match="state is a NoneType, expected a dict of tensors"):
        console.mix_block(tracks, None, console.denormalize(controls))


@pytest.mark.parametrize("rate", [8000, 22050, 96000])
def test_other_sample_rates_work(rate, generator):
    other = DifferentiableMixingConsole(rate)
    mix = other(torch.randn(2, 1, 3000, generator=generator), other.random_controls(2, generator))
    assert torch.isfinite(mix).all()


@pytest.mark.parametrize(
    ("tracks", "message"),
    [
        ([], "tracks is empty"),
        ([torch.zeros(1, 10), torch.zeros(1, 11)], r"tracks\[1\] has shape \(1, 11\)"),
        ([torch.zeros(3, 10)], "expected 1 or 2 channel"),
        (torch.zeros(1, 10), r"expected \(\*batch, tracks, channels, samples\)"),
    ],
)
def test_wrong_tracks_are_refused(console, tracks, message):
    with pytest.raises(ValueError, match=message):
        console(tracks, console.default_controls(1))


def test_wrong_controls_are_refused(console, tracks):
    controls = console.default_controls(3)
    with pytest.raises(ValueError, match=r"controls\['master'\] has shape"):
        console(tracks, {**controls, "master": torch.zeros(3)})
    with pytest.raises(ValueError, match="controls has sections"):
        console(tracks, {"track": controls["track"]})
    with pytest.raises(ValueError, match="mask has shape"):
        console(tracks, controls, mask=torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="is not a control of this console"):
        DifferentiableMixingConsole(RATE, locked=["track.gain.volume"])


def test_controls_broadcast_over_the_batch() -> None:
    console = DifferentiableMixingConsole(44100)
    tracks = torch.randn(2, 3, 1, 512, generator=torch.Generator().manual_seed(0))
    controls = console.random_controls(3, torch.Generator().manual_seed(1))
    want = console(tracks, {name: u.expand(2, *u.shape) for name, u in controls.items()})
    for given in (controls, {name: u.unsqueeze(0) for name, u in controls.items()}):
        assert torch.equal(console(tracks, given), want)
        assert console.forward_block(tracks, {}, given)[0].shape == want.shape
