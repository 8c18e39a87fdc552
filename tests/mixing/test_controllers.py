"""Controllers: what order, absence, level, locks and files do to the controls they find."""

from __future__ import annotations

import json

import pytest
import torch

import dasp.modules as M
from dasp.gradients.checkpoints import read_checkpoint, write_checkpoint
from dasp.mixing import (
    Controller,
    DeepSetController,
    DifferentiableMixingConsole,
    LogMelEncoder,
    SpectrogramEncoder,
    TransformerController,
    WaveformEncoder,
)
from dasp.mixing.controllers import FORMAT
from dasp.mixing.encoders import level_lufs, mel_bank

RATE = 16000
SMALL = {
    "log_mel": {"channels": 8, "blocks": 2, "bands": 16},
    "spectrogram": {"stages": [4, 8], "bands": 16},
    "waveform": {"channels": [4, 8], "kernel_size": 8},
}
KINDS = [DeepSetController, TransformerController]


@pytest.fixture(scope="module")
def console():
    return DifferentiableMixingConsole(RATE)


def small(kind, console, encoder="log_mel", **options):
    sizes = {"features": 16, "hidden": 12} | ({"layers": 2, "attention_heads": 2} if kind is KINDS[1] else {})
    return kind(console, encoder=encoder, encoder_options=SMALL[encoder], **{**sizes, **options})


def audio(tracks=4, channels=1, batch=2, samples=RATE // 2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(tracks)
    gains = torch.rand(batch, tracks, 1, 1, generator=generator) * 0.5 + 0.01
    noise = torch.randn(batch, tracks, channels, samples, generator=generator)
    # Spectra differ, or all tracks would be alike to an encoder.
    tilt = torch.linspace(0, 0.9, tracks)[:, None, None]
    return (gains * (noise - tilt * noise.roll(1, -1))).to(dtype)


def mix(batch=2, samples=RATE // 2, dtype=torch.float32):
    return 0.2 * torch.randn(batch, 2, samples, generator=torch.Generator().manual_seed(9)).to(dtype)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("encoder", SMALL)
@pytest.mark.parametrize("kind", KINDS)
class TestSymmetry:
    def test_controls_are_permuted_as_tracks_are(self, kind, encoder, dtype, tolerance, training, console):
        controller = small(kind, console, encoder).to(dtype).train(training)
        tracks, order = audio(5, dtype=dtype), torch.tensor([3, 0, 4, 1, 2])
        with torch.no_grad():
            before = controller(tracks, reference=mix(dtype=dtype))
            after = controller(tracks[:, order], reference=mix(dtype=dtype))
        torch.testing.assert_close(after["track"], before["track"][:, order], atol=tolerance, rtol=0)
        assert (before["track"][:, 0] - before["track"][:, 1]).abs().amax() > 100 * tolerance
        for section in ("reverb", "master"):
            torch.testing.assert_close(after[section], before[section], atol=tolerance, rtol=0)

    def test_absent_tracks_change_nothing(self, kind, encoder, dtype, tolerance, training, console):
        controller = small(kind, console, encoder).to(dtype).train(training)
        tracks = audio(3, dtype=dtype)
        # What stands in an absent track means nothing, not even NaN.
        padded = torch.cat([tracks, torch.full_like(tracks, torch.nan)], 1)
        mask = torch.arange(6).expand(2, -1) < 3
        with torch.no_grad():
            alone, among = controller(tracks), controller(padded, mask)
        torch.testing.assert_close(among["track"][:, :3], alone["track"], atol=tolerance, rtol=0)
        assert bool(torch.isfinite(among["track"]).all())
        for section in ("reverb", "master"):
            torch.testing.assert_close(among[section], alone[section], atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_items_of_a_batch_are_independent(kind, console):
    controller = small(kind, console)
    tracks, reference = audio(3), mix()
    both = controller(tracks, reference=reference)
    for item in (0, 1):
        alone = controller(tracks[item], reference=reference[item])
        for section, found in alone.items():
            assert found.shape == both[section].shape[1:]
            torch.testing.assert_close(found, both[section][item], atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_without_reference_is_one_in_a_batch_without(kind, console):
    controller = small(kind, console)
    tracks, reference = audio(3), mix()
    reference[1] = torch.nan
    some = controller(tracks, reference=reference, reference_mask=torch.tensor([True, False]))
    none, all_ = controller(tracks), controller(tracks[:1], reference=reference[:1])
    for section in none:
        torch.testing.assert_close(some[section][1], none[section][1], atol=1e-6, rtol=0)
        torch.testing.assert_close(some[section][0], all_[section][0], atol=1e-6, rtol=0)
    assert (some["master"][0] - none["master"][0]).abs().amax() > 1e-5


@pytest.mark.parametrize("tracks", [1, 2, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_tracks_gives_controls_that_the_console_takes(kind, tracks, console):
    controller = small(kind, console)
    x = audio(tracks, batch=1, samples=RATE // 10)
    controls = controller(x)
    assert controls["track"].shape == (1, tracks, console.num_controls("track"))
    assert bool(torch.isfinite(console(x, controls)).all())


@pytest.mark.parametrize("encoder", SMALL)
@pytest.mark.parametrize("kind", KINDS)
def test_silence_is_finite_with_finite_gradients(kind, encoder, console):
    controller = small(kind, console, encoder)
    x = audio(3)
    x[:, 1] = 0.0
    x[1] = 0.0
    x.requires_grad_()
    controls = controller(x, reference=torch.zeros(2, 2, RATE // 2))
    sum(u.sum() for u in controls.values()).backward()
    assert all(bool(torch.isfinite(u).all()) for u in controls.values())
    assert bool(torch.isfinite(x.grad if x.grad is not None else torch.zeros(())).all())
    assert all(bool(torch.isfinite(p.grad).all()) for p in controller.parameters() if p.grad is not None)


@pytest.mark.parametrize("samples", [0, 1, 100])
@pytest.mark.parametrize("encoder", SMALL)
def test_short_audio_is_described(encoder, samples, console):
    controller = small(DeepSetController, console, encoder)
    controls = controller(torch.zeros(2, 1, samples), reference=torch.zeros(2, samples))
    assert all(bool(torch.isfinite(u).all()) for u in controls.values())


@pytest.mark.parametrize("encoder", SMALL)
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_every_parameter(kind, encoder, console):
    controller = small(kind, console, encoder)
    controls = controller(audio(3, channels=2), reference=mix())
    # A weight for each value: a sum would not see what a norm takes out.
    generator = torch.Generator().manual_seed(0)
    sum((u * torch.rand(u.shape, generator=generator)).sum() for u in controls.values()).backward()
    for name, parameter in controller.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


@pytest.mark.parametrize("kind", KINDS)
def test_settings_begin_near_the_defaults_with_pans_apart(kind, console):
    controls, default = kind(console)(audio(4, samples=RATE)), console.default_controls(4, (2,))
    for section, u in controls.items():
        assert (u - default[section]).abs().amax() < 0.15
    pan = console.control_names("track").index("stereo_panner.pan")
    assert (controls["track"][..., pan] - 0.5).abs().amin() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_control_reaches_an_end_and_comes_back(kind, console):
    controller = small(kind, console)
    ratio = console.control_names("track").index("compressor.ratio")
    head = controller.heads["track"]
    for bias, end in ((-5.0, 0.0), (5.0, 1.0)):
        with torch.no_grad():
            head.bias[ratio] = bias
        u = controller(audio(2))["track"][..., ratio]
        assert bool((u == end).all())
        # Towards the inside a gradient passes, and further outside none does.
        for direction, passes in ((1 - 2 * end, True), (2 * end - 1, False)):
            head.bias.grad = None
            (-direction * controller(audio(2))["track"][..., ratio].sum()).backward()
            assert bool(head.bias.grad[ratio] != 0) is passes


@pytest.mark.parametrize("kind", KINDS)
def test_locked_controls_are_their_defaults_with_gradient_zero(kind):
    locked = ("track.stereo_panner.pan", "track.parametric_eq.q[1]", "master.compressor")
    locked = (*locked[:2], "master.compressor.ratio")
    console = DifferentiableMixingConsole(RATE, locked=locked)
    controller = small(kind, console, follow_level={"gain.gain_db": -1.0})
    controls, default = controller(audio(3)), console.default_controls(3, (2,))
    sum(u.square().sum() for u in controls.values()).backward()
    for section in ("track", "master"):
        free = console.free(section)
        assert torch.equal(controls[section][..., ~free], default[section][..., ~free])
        assert not controller.heads[section].bias.grad[~free].any()
        assert bool(controller.heads[section].bias.grad[free].any())


@pytest.mark.parametrize("kind", KINDS)
def test_the_mix_follows_no_level_that_a_track_was_recorded_at(kind, console):
    follow = {"gain.gain_db": -1.0, "compressor.threshold_db": 1.0}
    controller = small(kind, console, follow_level=follow).double()
    x = audio(3, dtype=torch.float64)
    gains_db = torch.tensor([-6.0, 0.0, 3.0], dtype=torch.float64)
    scaled = x * 10 ** (gains_db / 20)[:, None, None]
    plain, moved = (console.denormalize(controller(tracks))["track"] for tracks in (x, scaled))
    fader_db = moved["gain"]["gain_db"] - plain["gain"]["gain_db"]
    torch.testing.assert_close(fader_db, -gains_db.expand(2, -1), atol=1e-6, rtol=0)
    # Ranges are kept in float32.
    threshold_db = moved["compressor"]["threshold_db"] - plain["compressor"]["threshold_db"]
    torch.testing.assert_close(threshold_db, gains_db.expand(2, -1), atol=1e-6, rtol=0)


def test_without_following_the_network_is_told_the_level(console):
    controller = small(DeepSetController, console)
    x = audio(3)
    assert (controller(x)["track"] - controller(2 * x)["track"]).abs().amax() > 1e-5


def test_the_same_seed_gives_the_same_parameters_and_the_global_generator_is_left_alone(console):
    before = torch.get_rng_state()
    for kind in KINDS:
        first, again, other = (small(kind, console, seed=seed).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert any(not torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), before)


def test_tracks_in_a_list_may_be_mono_and_stereo(console):
    controller = small(DeepSetController, console)
    mono, stereo = audio(1, batch=1)[0, 0], audio(1, channels=2, batch=1)[0, 0]
    listed = controller([mono, stereo])
    stacked = controller(torch.stack([mono.expand(2, -1), stereo]))
    torch.testing.assert_close(listed, stacked, atol=1e-6, rtol=0)
    # A mono track is what it is in both channels.
    torch.testing.assert_close(controller([mono]), controller(mono.expand(2, -1)[None]), atol=1e-6, rtol=0)


def test_other_consoles_have_their_own_sections():
    rate = RATE
    console = DifferentiableMixingConsole(
        rate,
        strip=M.Chain(M.Gain(rate), M.StereoPanner(rate)),
        buses={"hall": M.Chain(M.Gain(rate)), "delay": M.Chain(M.Gain(rate))},
        master=M.Chain(M.Gain(rate)),
    )
    for kind in KINDS:
        controls = small(kind, console)(audio(3))
        assert {name: tuple(u.shape) for name, u in controls.items()} == {
            "track": (2, 3, 4),
            "hall": (2, 1),
            "delay": (2, 1),
            "master": (2, 1),
        }


@pytest.mark.parametrize("encoder", ["log_mel", "waveform"])
def test_what_an_encoder_says_of_a_sound_depends_little_on_the_sample_rate(encoder):
    said = []
    for rate in (44100, 48000):
        controller = small(DeepSetController, DifferentiableMixingConsole(rate), encoder)
        t = torch.arange(rate) / rate
        tones = [torch.sin(2 * torch.pi * f * t) * torch.sin(torch.pi * t).square() for f in (110.0, 880.0, 3520.0)]
        said.append(controller.track_encoder(0.03 * torch.stack(tones)[:, None]))
    between = (said[0][0] - said[0][1]).norm()
    assert (said[0] - said[1]).norm(dim=-1).amax() < 0.2 * between


@pytest.mark.parametrize(
    ("kind", "millions"), [(DeepSetController, (11.5, 13.0)), (TransformerController, (180.0, 200.0))]
)
def test_published_sizes_have_as_many_parameters(kind, millions, console):
    with torch.device("meta"):
        controller = kind.published(console)
    count = sum(p.numel() for p in controller.parameters()) / 1e6
    assert millions[0] < count < millions[1]


@pytest.mark.parametrize("kind", KINDS)
class TestFiles:
    def test_a_file_gives_the_same_controls_to_the_bit(self, kind, console, tmp_path):
        controller = small(kind, console, follow_level={"gain.gain_db": -1.0}, seed=3)
        controller.save(tmp_path / "a.safetensors")
        loaded = Controller.load(tmp_path / "a.safetensors")
        assert type(loaded) is kind
        assert loaded.config == controller.config
        x, reference = audio(3), mix()
        found, again = controller.eval()(x, reference=reference), loaded(x, reference=reference)
        assert all(torch.equal(found[section], again[section]) for section in found)

    def test_a_console_of_other_processors_and_defaults_is_made_again(self, kind, tmp_path):
        strip = M.Chain(M.Gain(RATE, gain_db=-3.0), M.StereoPanner(RATE, law="linear", pan=0.25))
        console = DifferentiableMixingConsole(RATE, strip, {}, M.Chain(M.Compressor(RATE, ratio=2.0)))
        controller = small(kind, console)
        controller.save(tmp_path / "a.safetensors")
        loaded = Controller.load(tmp_path / "a.safetensors")
        x = audio(2)
        torch.testing.assert_close(loaded(x), controller(x), atol=1e-6, rtol=0)
        torch.testing.assert_close(
            loaded.console(x, loaded(x)), controller.console(x, controller(x)), atol=1e-6, rtol=0
        )

    @pytest.mark.parametrize(
        "damage", ["name", "shape", "nan", "config", "kind", "console", "text", "size", "depth", "stages"]
    )
    def test_what_is_wrong_with_a_file_is_said_with_its_name(self, kind, damage, console, tmp_path):
        path = tmp_path / "a.safetensors"
        small(kind, console).save(path)
        tensors, notes = read_checkpoint(path, FORMAT)
        first = next(iter(tensors))
        expected = {
            "name": "parameters are not those",
            "shape": "has shape",
            "nan": "NaN or infinite",
            "config": "configuration of a controller",
            "kind": "holds a 'Other'",
            "console": "console",
            "text": "safetensors",
            "size": "hidden is 1000000000000, a size beyond reason",
            "depth": "blocks is 60000, a size beyond reason",
            "stages": "stages is .*, a size beyond reason",
        }[damage]
        if damage == "name":
            tensors["other"] = tensors.pop(first)
        elif damage == "shape":
            tensors[first] = tensors[first].flatten()[:1]
        elif damage == "nan":
            tensors[first].view(-1)[0] = torch.nan
        elif damage == "config":
            notes["config"] = {"features": "many"}
        elif damage == "kind":
            notes["kind"] = "Other"
        elif damage == "console":
            del notes["console"]["console"]
        elif damage == "size":
            notes["config"]["hidden"] = 10**12
        elif damage == "depth":
            notes["config"]["encoder_options"] = {"blocks": 60000}
        elif damage == "stages":
            notes["config"]["encoder_options"] = {"stages": [4] * 60000}
        write_checkpoint(path, tensors, notes, FORMAT)
        if damage == "text":
            path.write_text("no tensors")
        with pytest.raises(ValueError, match=expected) as caught:
            Controller.load(path)
        assert "a.safetensors" in str(caught.value)

    def test_another_console_is_refused_with_the_difference(self, kind, console, tmp_path):
        path = tmp_path / "a.safetensors"
        small(kind, console).save(path)
        other = DifferentiableMixingConsole(RATE, locked=("track.gain.gain_db",), master=M.Chain(M.Gain(RATE)))
        with pytest.raises(ValueError, match=r"a\.safetensors: was trained for another console: master"):
            Controller.load(path, other)
        with pytest.raises(ValueError, match="holds a"):
            (TransformerController if kind is DeepSetController else DeepSetController).load(path)


def test_a_lower_sample_rate_limits_frequencies_and_is_the_same_console(tmp_path):
    path = tmp_path / "a.safetensors"
    small(DeepSetController, DifferentiableMixingConsole(44100)).save(path)
    console = DifferentiableMixingConsole(11025)
    assert torch.isfinite(Controller.load(path, console)(audio(2))["track"]).all()
    assert Controller.load(path, sample_rate=11025).console.sample_rate == 11025


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "proxy.safetensors"
    write_checkpoint(path, {"a": torch.zeros(1)}, {"config": {}}, "dasp.NeuralProxy 1")
    with pytest.raises(ValueError, match=r"proxy\.safetensors: has format 'dasp.NeuralProxy 1'"):
        Controller.load(path)
    with pytest.raises(FileNotFoundError):
        Controller.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tracks": torch.zeros(2, 1, 100, dtype=torch.int64)}, "tracks"),
        ({"tracks": torch.zeros(1, 100)}, r"tracks has shape \(1, 100\), expected \(batch, tracks"),
        ({"tracks": torch.zeros(2, 3, 100)}, "tracks"),
        ({"tracks": torch.zeros(2, 0, 1, 100)}, "at least one track"),
        ({"tracks": []}, "tracks is empty"),
        ({"tracks": [torch.zeros(1, 100), torch.zeros(1, 99)]}, r"tracks\[1\] has shape \(1, 99\)"),
        ({"mask": torch.ones(2, 4, dtype=torch.bool)}, r"mask has shape \(2, 4\)"),
        ({"mask": torch.ones(2, 3)}, "of bool"),
        ({"reference": torch.zeros(3, 2, 100)}, r"reference has shape \(3, 2, 100\)"),
        ({"reference": torch.zeros(2, 1, 100)}, "reference"),
        ({"reference_mask": torch.ones(2, dtype=torch.bool)}, "reference_mask is given without"),
        ({"reference": torch.zeros(2, 2, 100), "reference_mask": torch.ones(3)}, "reference_mask has shape"),
    ],
)
def test_wrong_arguments_are_named(arguments, message, console):
    controller = small(DeepSetController, console)
    with pytest.raises((TypeError, ValueError), match=message):
        controller(**{"tracks": torch.zeros(2, 3, 1, 100), **arguments})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"encoder": "vggish"}, ValueError, "encoder is 'vggish', expected one of log_mel"),
        ({"features": 0}, ValueError, "features is 0"),
        ({"hidden": 1.5}, ValueError, "hidden is 1.5"),
        ({"follow_level": {"stereo_panner.pan": 1.0}}, ValueError, "follow_level has 'stereo_panner.pan'"),
        ({"encoder_options": {"colour": 1}}, TypeError, "colour"),
    ],
)
def test_wrong_configurations_are_named(options, error, message, console):
    with pytest.raises(error, match=message):
        DeepSetController(console, **options)


def test_a_console_is_asked_for():
    with pytest.raises(TypeError, match="console is a int"):
        DeepSetController(44100)
    with pytest.raises(ValueError, match="features is 128, expected a multiple of 5"):
        TransformerController(DifferentiableMixingConsole(RATE), attention_heads=5)
    with pytest.raises(ValueError, match="signals is 3"):
        LogMelEncoder(RATE, signals=3)


def test_a_controller_without_reference_refuses_one(console):
    for kind in KINDS:
        controller = small(kind, console, reference=False)
        assert not any("reference" in name for name, _ in controller.named_parameters())
        with pytest.raises(ValueError, match="made with reference=False"):
            controller(audio(2), reference=mix())


@pytest.mark.parametrize("rate", [16000, 44100, 48000, 96000])
def test_log_mel_spectra_read_a_tone_alike_at_any_rate(rate):
    encoder = LogMelEncoder(rate, bands=32)
    t = torch.arange(rate) / rate
    levels = encoder.frontend(torch.sin(2 * torch.pi * 1000 * t)[None, None])[0, 0, :, 5:-5].mean(-1)
    # The mean square of a sine is -3 dB, and two neighbouring bands share it; levels are tens of dB above -50.
    total_db = 10 * torch.log10((10 ** (levels - 5)).sum())
    assert abs(float(total_db) + 3) < 0.5
    assert int(levels.argmax()) == int(
        LogMelEncoder(44100, bands=32)
        .frontend(torch.sin(2 * torch.pi * 1000 * torch.arange(44100) / 44100)[None, None])[0, 0, :, 5:-5]
        .mean(-1)
        .argmax()
    )


def test_every_mel_band_has_a_bin_and_neighbours_share_what_lies_between():
    bank = mel_bank(44100, 2048, 64)
    assert bool((bank.sum(0) > 0.5).all())
    frequency = torch.arange(1025) * 44100 / 2048
    inside = (frequency > 1000) & (frequency < 15000)
    torch.testing.assert_close(bank[inside].sum(1), torch.ones(int(inside.sum()), dtype=torch.float64))


def test_the_level_of_a_mono_track_is_that_of_it_in_both_channels():
    x = audio(1, batch=1, samples=RATE)[0]
    torch.testing.assert_close(level_lufs(x, RATE), level_lufs(x.expand(-1, 2, -1), RATE))
    torch.testing.assert_close(level_lufs(0.5 * x, RATE), level_lufs(x, RATE) - 6.0206, atol=1e-3, rtol=0)
    assert float(level_lufs(torch.zeros(1, 1, RATE), RATE)) == -70.0


def test_layouts_in_files_are_text_that_json_reads(console, tmp_path):
    path = tmp_path / "a.safetensors"
    small(DeepSetController, console).save(path)
    header = path.read_bytes()
    length = int.from_bytes(header[:8], "little")
    metadata = json.loads(header[8 : 8 + length])["__metadata__"]
    assert json.loads(metadata["console"])["console"]["strip"][0]["processor"] == "parametric_eq"


def test_encoders_are_small_by_default():
    for kind, most in ((LogMelEncoder, 300_000), (WaveformEncoder, 400_000)):
        assert sum(p.numel() for p in kind(44100).parameters()) < most
    assert sum(p.numel() for p in SpectrogramEncoder(44100).parameters()) > 10_000_000
