"""Groups, sends, switches, latency, signals and partial renders of a console."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

import dasp
import dasp.modules as M
from dasp.mixing import DifferentiableMixingConsole, PartialRender, Switches, fit, render
from tests.cases import assert_close, gradients

RATE = 44100
NAMES = ["kick", "snare", "bass", "voice"]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(5)


def linear(**arguments):
    """A console of faders, panners and sends alone."""
    strip = arguments.pop("strip", None) or M.Chain(M.Gain(RATE), M.StereoPanner(RATE))
    buses = arguments.pop("buses", {"fx": M.Chain(M.Gain(RATE))})
    return DifferentiableMixingConsole(RATE, strip, buses, M.Chain(M.Gain(RATE)), **arguments)


def desk(rate=RATE):
    """A console with every kind of section."""
    return DifferentiableMixingConsole(
        rate,
        buses={
            "room": M.Chain(M.NoiseShapedReverb(rate, decay_s=0.06, mix=1.0, bands_hz=(200.0, 2000.0))),
            "cue": M.Chain(M.Distortion(rate, drive_db=0.0)),
        },
        groups={"drums": M.Chain(M.Compressor(rate, ratio=2.0), M.Gain(rate)), "rest": M.Chain(M.Gain(rate))},
        pre_fader=["cue"],
    )


@pytest.fixture(scope="module")
def late_desk():
    """A console of which every path has processors that come late, and say so."""

    def delay_line(x: torch.Tensor, sample_rate: float, samples: int = 5, *, state=None):
        past = x.new_zeros(*x.shape[:-1], samples) if not state else state["past"]
        joined = torch.cat([past, x], -1)
        y = joined[..., : x.shape[-1]]
        return y if state is None else (y, {"past": joined[..., x.shape[-1] :]})

    dasp.processor(linear=True)(delay_line)

    class DelayLine(M.Processor, function=delay_line):
        @property
        def latency(self):
            return self.options["samples"]

    yield DifferentiableMixingConsole(
        RATE,
        M.Chain(M.Polarity(RATE), DelayLine(RATE, samples=3), M.Gain(RATE), M.StereoPanner(RATE), DelayLine(RATE)),
        {"fx": M.Chain(M.Gain(RATE), DelayLine(RATE, samples=7)), "cue": M.Chain(M.Gain(RATE))},
        M.Chain(DelayLine(RATE, samples=2)),
        groups={"drums": M.Chain(DelayLine(RATE, samples=4)), "rest": M.Chain(M.Gain(RATE))},
        pre_fader=["cue"],
    )
    del dasp.PROCESSORS["delay_line"]


def noise(generator, *shape, dtype=torch.float32):
    return 0.1 * torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def switched(console, **chosen):
    return console.switches(
        NAMES, bypass={"voice": ["compressor"]}, group={"kick": "drums", "snare": "drums", "bass": "rest"}, **chosen
    )


# Properties of the whole, with every feature in use


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", [DifferentiableMixingConsole, desk])
def test_neutral_controls_pass_the_sum_through(make, training, dtype, bound, generator):
    console = make(RATE).train(training)
    controls = console.default_controls(4, dtype=dtype)
    if make is desk:
        values = console.denormalize(controls)
        values["drums"]["compressor"]["ratio"] = torch.ones((), dtype=dtype)
        controls["drums"] = console.normalize(values)["drums"]
    tracks = noise(generator, 4, 1, 5000, dtype=dtype)
    switches = switched(console) if make is desk else None
    mix = console(tracks, controls, switches=switches)
    torch.testing.assert_close(mix, tracks.sum(0).expand(2, -1), atol=bound, rtol=0)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("training", [True, False])
def test_permuted_tracks_and_masked_tracks_leave_the_mix(training, dtype, bound, generator):
    console = desk().train(training)
    controls = {name: u.to(dtype) for name, u in console.random_controls(4, generator).items()}
    controls["track"][:, console.control_names("track").index("gain.gain_db")] *= 0.5
    controls["master"] = console.default_controls(4, dtype=dtype)["master"]
    tracks, switches = noise(generator, 4, 1, 3000, dtype=dtype), switched(console, mute=["snare"])
    mix = console(tracks, controls, switches=switches)
    order = torch.tensor([3, 1, 0, 2])
    moved = Switches(
        switches.mute[order], None, {"compressor": switches.bypass["compressor"][order]}, switches.group[order]
    )
    permuted = console(tracks[order], {**controls, "track": controls["track"][order]}, switches=moved)
    # Relative to the largest sample: other orders of the same sum.
    scale = float(mix.abs().max().clamp_min(1))
    torch.testing.assert_close(permuted, mix, atol=bound * scale, rtol=0)
    more = torch.cat([tracks, torch.full_like(tracks[:2], torch.nan)])
    padded = {**controls, "track": torch.cat([controls["track"], torch.rand_like(controls["track"][:2])])}
    wider = Switches(
        torch.cat([switches.mute, torch.tensor([False, True])]),
        None,
        {"compressor": torch.cat([switches.bypass["compressor"], torch.tensor([True, False])])},
        torch.cat([switches.group, torch.tensor([0, 1])]),
    )
    masked = console(more, padded, torch.arange(6) < 4, wider)
    torch.testing.assert_close(masked, mix, atol=bound * scale, rtol=0)


def test_items_of_a_batch_are_independent(generator):
    console = desk()
    controls = console.random_controls(4, generator, (3,))
    tracks = noise(generator, 3, 4, 1, 2000)
    mute = torch.tensor([[True, False, False, False], [False] * 4, [False, False, True, False]])
    group = torch.tensor([[0, 0, -1, 1], [1, 0, 0, -1], [-1] * 4])
    mix = console(tracks, controls, switches=Switches(mute=mute, group=group))
    for item in range(3):
        alone = {name: u[item] for name, u in controls.items()}
        own = console(tracks[item], alone, switches=Switches(mute=mute[item], group=group[item]))
        torch.testing.assert_close(mix[item], own, atol=1e-6 * float(own.abs().max().clamp_min(1)), rtol=0)
    tracks[1] = torch.nan
    spoilt = console(tracks, controls, switches=Switches(mute=mute, group=group))
    assert torch.equal(spoilt[[0, 2]], mix[[0, 2]])


@pytest.mark.parametrize("rate", [8000, 44100, 192000])
@pytest.mark.parametrize("count", [1, 64])
def test_any_sample_rate_and_count_of_tracks_gives_finite_gradients(rate, count, generator):
    console = desk(rate)
    # Silence, and square waves at full scale.
    tracks = torch.zeros(count, 1, 400)
    tracks[1::2] = torch.where(torch.arange(400) % 100 < 50, 1.0, -1.0)
    controls = {name: u.requires_grad_() for name, u in console.random_controls(count, generator).items()}
    mix = console(tracks, controls)
    mix.square().sum().backward()
    assert torch.isfinite(mix).all()
    assert all(torch.isfinite(u.grad).all() for u in controls.values())


def test_no_tracks_are_refused():
    console = linear()
    with pytest.raises(ValueError, match="expected at least one track"):
        console(torch.zeros(0, 1, 10), console.default_controls(0))


# Groups and sends, in closed form


def test_groups_and_sends_are_the_sums_that_they_say(generator):
    console = linear(
        buses={"fx": M.Chain(M.Gain(RATE)), "cue": M.Chain(M.Gain(RATE))},
        groups={"drums": M.Chain(M.Gain(RATE))},
        pre_fader=["cue"],
    )
    values = console.denormalize(console.default_controls(4, dtype=torch.float64))
    fader = torch.tensor([-6.0, 0.0, 3.0, -3.0], dtype=torch.float64)
    values["track"]["gain"]["gain_db"] = fader
    values["track"]["stereo_panner"]["pan"] = torch.tensor([-1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    values["track"]["send"]["fx_db"] = torch.tensor([0.0, -60.0, -20.0, -60.0], dtype=torch.float64)
    values["track"]["send"]["cue_db"] = torch.tensor([-60.0, -60.0, -60.0, -12.0], dtype=torch.float64)
    values["drums"]["gain"]["gain_db"] = torch.tensor(-10.0, dtype=torch.float64)
    values["drums"]["send"]["fx_db"] = torch.tensor(-15.0, dtype=torch.float64)
    values["drums"]["send"]["cue_db"] = torch.tensor(-25.0, dtype=torch.float64)
    values["fx"]["gain"]["gain_db"] = torch.tensor(5.0, dtype=torch.float64)
    tracks = noise(generator, 4, 1, 50, dtype=torch.float64)
    mix = console.mix(tracks, values, switches=console.switches(NAMES, group={"kick": "drums", "snare": "drums"}))
    x, side = tracks[:, 0].numpy(), np.sqrt(2.0)
    strips = 10 ** (fader.numpy() / 20)[:, None, None] * x[:, None]
    strips = strips * np.array([[side, 0], [1, 1], [1, 1], [0, side]])[:, :, None]
    drums = 10 ** (-10 / 20) * (strips[0] + strips[1])
    fx = 10 ** (5 / 20) * (strips[0] + 0.1 * strips[2] + 10 ** (-15 / 20) * drums)
    cue = 10 ** (-12 / 20) * x[3] + 10 ** (-25 / 20) * drums
    expected = drums + strips[2] + strips[3] + fx + cue
    torch.testing.assert_close(mix, torch.from_numpy(expected), atol=1e-12, rtol=0)


def test_a_track_goes_to_the_master_unless_a_group_is_said(generator):
    console = linear(groups={"drums": M.Chain(M.Gain(RATE))})
    controls = console.default_controls(2)
    controls["drums"] = torch.zeros_like(controls["drums"])
    tracks = noise(generator, 2, 1, 50)
    torch.testing.assert_close(console(tracks, controls), tracks.sum(0).expand(2, -1), atol=1e-6, rtol=0)
    assert console(tracks, controls, switches=Switches(group=torch.tensor([0, 0]))).abs().max() < 0.01


# Switches


def test_a_muted_track_adds_nothing_whatever_it_holds(generator):
    console = desk()
    tracks = noise(generator, 4, 1, 2000)
    bad = tracks.clone()
    bad[1] = torch.nan
    controls = {name: u.requires_grad_() for name, u in console.random_controls(4, generator).items()}
    bad.requires_grad_()
    muted = console(bad, controls, switches=switched(console, mute=["snare"]))
    mask = torch.tensor([True, False, True, True])
    assert torch.equal(muted, console(tracks, controls, mask, switched(console)))
    muted.square().sum().backward()
    for u in (bad, *controls.values()):
        assert torch.isfinite(u.grad).all()
    assert not bad.grad[1].any()
    assert not controls["track"].grad[1].any()


def test_solo_leaves_the_soloed_tracks_and_their_returns(generator):
    console = desk()
    tracks, controls = noise(generator, 4, 1, 2000), console.random_controls(4, generator)
    solo = console(tracks, controls, switches=switched(console, solo=["kick", "voice"]))
    assert torch.equal(solo, console(tracks, controls, switches=switched(console, mute=["snare", "bass"])))
    both = switched(console, solo=["kick"], mute=["kick"])
    silent = console(torch.zeros_like(tracks), controls)
    assert torch.equal(console(tracks, controls, switches=both), silent)


@pytest.mark.parametrize("stage", ["parametric_eq", "compressor", "gain", "stereo_panner"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_bypassed_stage_is_as_if_it_were_not_there(stage, channels, generator):
    kinds = {
        "parametric_eq": M.ParametricEQ,
        "compressor": M.Compressor,
        "gain": M.Gain,
        "stereo_panner": M.StereoPanner,
    }
    full = linear(strip=M.Chain(*(kind(RATE) for kind in kinds.values())))
    less = linear(strip=M.Chain(*(kind(RATE) for name, kind in kinds.items() if name != stage)))
    values = full.denormalize(full.random_controls(2, generator))
    values["track"]["send"]["fx_db"] = torch.tensor([-10.0, -60.0])
    tracks = noise(generator, 2, channels, 1000)
    bypassed = full.mix(tracks, values, switches=full.switches(["a", "b"], bypass={"a": [stage], "b": [stage]}))
    without = {**values, "track": {name: own for name, own in values["track"].items() if name != stage}}
    expected = less.mix(tracks, without)
    assert torch.equal(bypassed, expected.expand(2, -1))
    # Of one track alone: the other is processed as ever.
    one = full.mix(tracks, values, switches=full.switches(["a", "b"], bypass={"a": [stage]}, mute=["a"]))
    assert torch.equal(one, full.mix(tracks, values, mask=torch.tensor([False, True])))


def test_switches_of_mono_and_stereo_tracks_follow_their_tracks(generator):
    console = desk()
    tracks = [noise(generator, channels, 2000) for channels in (1, 2, 2, 1)]
    controls = console.random_controls(4, generator)
    wide = torch.stack([track.expand(2, -1) for track in tracks])
    switches = switched(console, mute=["snare"])
    torch.testing.assert_close(
        console(tracks, controls, switches=switches), console(wide, controls, switches=switches), atol=2e-5, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("switches", "error", "message"),
    [
        (Switches(mute=[True, False]), TypeError, "switches.mute is list, expected a tensor of bool"),
        (Switches(solo=torch.ones(2)), TypeError, "switches.solo is torch.float32"),
        (
            Switches(mute=torch.ones(3, dtype=torch.bool)),
            ValueError,
            r"switches.mute has shape \(3,\), expected \(2,\)",
        ),
        (
            Switches(bypass={"eq": torch.ones(2, dtype=torch.bool)}),
            ValueError,
            "switches.bypass has 'eq', expected one",
        ),
        (Switches(group=torch.zeros(2)), TypeError, "switches.group has type torch.float32, expected whole numbers"),
        (Switches(group=torch.zeros(1, 2, dtype=torch.int64)), ValueError, r"switches.group has shape \(1, 2\)"),
    ],
)
def test_wrong_switches_are_refused(switches, error, message):
    console = desk()
    with pytest.raises(error, match=message):
        console(torch.zeros(2, 1, 10), console.default_controls(2), switches=switches)


def test_unknown_names_of_switches_are_refused_with_the_closest():
    console = desk()
    with pytest.raises(ValueError, match="mute: 'kik' is unknown, did you mean kick"):
        console.switches(NAMES, mute=["kik"])
    with pytest.raises(ValueError, match="bypass: 'eq' is unknown, expected one of parametric_eq, compressor"):
        console.switches(NAMES, bypass={"kick": ["eq"]})
    with pytest.raises(ValueError, match="group: 'drum' is unknown, did you mean drums"):
        console.switches(NAMES, group={"kick": "drum"})
    with pytest.raises(ValueError, match=r"switches\.group is given to a console without groups"):
        linear()(torch.zeros(1, 1, 1), linear().default_controls(1), switches=Switches(group=torch.tensor([0])))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": {"fx": None}}, "a bus is named 'fx', which is another section"),
        ({"groups": {"master": None}}, "a group is named 'master', which is another section"),
        ({"pre_fader": ["hall"]}, "pre_fader: 'hall' is unknown, expected one of fx"),
        ({"pre_fader": ["fx"], "strip": M.Chain(M.StereoPanner(RATE))}, "the strip has no Gain, so 'fx'"),
    ],
)
def test_wrong_sections_are_refused(arguments, message):
    if "groups" in arguments:
        arguments = {**arguments, "groups": {name: M.Chain(M.Gain(RATE)) for name in arguments["groups"]}}
    with pytest.raises(ValueError, match=message):
        linear(**arguments)


# Blocks, export


def test_blocks_equal_the_whole_with_every_feature(late_desk, generator):
    console = late_desk
    tracks = [noise(generator, channels, 1500, dtype=torch.float64) for channels in (1, 2, 2, 1)]
    controls = console.default_controls(4, dtype=torch.float64)
    controls["track"] = 0.3 + 0.4 * torch.rand(controls["track"].shape, generator=generator, dtype=torch.float64)
    switches = console.switches(
        NAMES, mute=["bass"], bypass={"voice": ["delay_line", "stereo_panner"]}, group={"kick": "drums"}
    )
    heard = {name: u.clone().requires_grad_() for name, u in controls.items()}
    whole = console(tracks, heard, switches=switches)
    slopes = gradients(whole, list(heard.values()))
    moved = {name: u.clone().requires_grad_() for name, u in controls.items()}
    mixed, state = [], {}
    for blocks in zip(*(track.split([1, 4, 700, 0, 795], -1) for track in tracks), strict=True):
        mix, state = console.forward_block(blocks, state, moved, switches=switches)
        mixed.append(mix)
    mix = torch.cat(mixed, -1)
    assert_close(mix, whole, 1e-12, 10.0)
    for got, want in zip(gradients(mix, list(moved.values())), slopes, strict=True):
        assert_close(got, want, 1e-12, 10.0)


def test_a_console_with_switches_is_exported_for_any_batch_tracks_and_length(generator):
    console = linear(groups={"drums": M.Chain(M.Gain(RATE))}, pre_fader=["fx"])
    batch, count, samples = (torch.export.Dim(name, min=1) for name in ("batch", "tracks", "samples"))

    def drawn(items, tracks, length):
        flags = {name: torch.rand(items, tracks, generator=generator) < 0.5 for name in ("mute", "solo", "bypass")}
        group = torch.randint(-1, 1, (items, tracks), generator=generator)
        switches = Switches(flags["mute"], flags["solo"], {"gain": flags["bypass"]}, group)
        controls = console.random_controls(tracks, generator, (items,))
        return noise(generator, items, tracks, 1, length), controls, None, switches

    per_track = {0: batch, 1: count}
    shapes = (
        {0: batch, 1: count, 3: samples},
        {section: per_track if section == "track" else {0: batch} for section in console.sections()},
        None,
        Switches(per_track, per_track, {"gain": per_track}, per_track),
    )
    program = torch.export.export(console, drawn(2, 3, 300), dynamic_shapes=shapes).module()
    for size in ((2, 3, 300), (4, 5, 70), (1, 1, 50)):
        inputs = drawn(*size)
        torch.testing.assert_close(program(*inputs), console(*inputs), atol=1e-5, rtol=1e-5)


def test_a_console_with_switches_compiles_whole_and_vectorises(generator):
    console = linear(groups={"drums": M.Chain(M.Gain(RATE))}, pre_fader=["fx"])
    switches = console.switches(NAMES, mute=["bass"], bypass={"voice": ["stereo_panner"]}, group={"kick": "drums"})
    tracks, controls = noise(generator, 2, 4, 1, 300), console.random_controls(4, generator, (2,))
    expected = console(tracks, controls, switches=switches)
    torch._dynamo.reset()
    compiled = torch.compile(console, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(tracks, controls, None, switches), expected, atol=1e-6, rtol=0)
    mapped = torch.func.vmap(lambda x, u: console(x, u, switches=switches))(tracks, controls)
    torch.testing.assert_close(mapped, expected, atol=1e-6, rtol=0)


# Latency


def test_parallel_paths_line_up_and_the_latency_is_told(late_desk):
    console = late_desk
    # The strip 8, the group 4, the bus 7 and the master 2.
    assert console.latency == 21
    values = console.denormalize(console.default_controls(4, dtype=torch.float64))
    values["track"]["send"]["fx_db"] = torch.zeros(4, dtype=torch.float64)
    values["track"]["send"]["cue_db"] = torch.zeros(4, dtype=torch.float64)
    for group in console.groups:
        for name in ("fx_db", "cue_db"):
            values[group]["send"][name] = torch.zeros((), dtype=torch.float64)
    impulse = torch.zeros(4, 1, 40, dtype=torch.float64)
    impulse[..., 0] = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    bypass = {"voice": ["delay_line", "delay_line_2", "stereo_panner"]}
    switches = console.switches(NAMES, bypass=bypass, group={"kick": "drums", "snare": "rest"})
    mix = console.mix(impulse, values, switches=switches)
    expected = torch.zeros(2, 40, dtype=torch.float64)
    # Each track by itself and two buses, the first two through their groups once more each.
    expected[:, 21] = 45.0 + 2 * 3.0
    torch.testing.assert_close(mix, expected, atol=1e-12, rtol=0)
    assert console.capabilities()["latency"] == 21


def test_a_late_console_is_fitted_and_described(late_desk, generator):
    tracks = [noise(generator, 1, 20000) for _ in range(2)]
    values = late_desk.denormalize(late_desk.default_controls(2))
    values["track"]["gain"]["gain_db"] = torch.tensor([-6.0, 3.0])
    values["track"]["stereo_panner"]["pan"] = torch.tensor([0.5, -0.25])
    with torch.no_grad():
        longer = [torch.nn.functional.pad(track, (0, late_desk.latency)) for track in tracks]
        reference = late_desk.mix(longer, values)[..., late_desk.latency :]
    found = late_desk.denormalize(fit(late_desk, tracks, reference, steps=0).controls)["track"]
    # As without latency: least squares of what lines up.
    torch.testing.assert_close(found["gain"]["gain_db"], values["track"]["gain"]["gain_db"], atol=1e-2, rtol=0)
    torch.testing.assert_close(
        found["stereo_panner"]["pan"], values["track"]["stereo_panner"]["pan"], atol=1e-2, rtol=0
    )
    settings = late_desk.describe(late_desk.normalize(values), ["a", "b"])
    with torch.no_grad():
        controls = late_desk.controls_from(settings)
    assert controls["drums"].shape == (2,)
    torch.testing.assert_close(render(settings, tracks), late_desk(tracks, controls), atol=1e-6, rtol=0)


def test_our_processors_have_no_latency():
    assert desk().latency == 0


# Signals


def test_signals_are_what_the_mix_is_made_of(generator):
    console = desk()
    tracks = [noise(generator, channels, 3000) for channels in (1, 2, 1, 2)]
    controls, switches = console.random_controls(4, generator), switched(console, mute=["bass"])
    signals = console.signals(tracks, controls, switches=switches)
    values = console.denormalize(controls)
    assert torch.equal(signals.mix, console(tracks, controls, switches=switches))
    assert torch.equal(signals.mix, console.master.process(signals.sum, values["master"]))
    assert not signals.strips[2].any()
    drums = console.groups["drums"].process(signals.strips[:2].sum(0), values["drums"])
    scale = float(signals.sum.abs().max())
    torch.testing.assert_close(signals.groups["drums"], drums, atol=1e-5 * scale, rtol=0)
    parts = [signals.strips[3], *signals.groups.values(), *signals.buses.values()]
    torch.testing.assert_close(signals.sum, sum(parts), atol=1e-6 * scale, rtol=0)
    assert sorted(signals.gain_db) == ["drums.compressor", "master.compressor", "track.compressor"]
    assert signals.gain_db["track.compressor"].shape == (4, 1, 3000)


def test_gains_are_those_that_the_processors_apply(generator):
    console = desk()
    tracks, controls = 3 * noise(generator, 2, 4, 1, 3000, dtype=torch.float64), console.random_controls(4, generator)
    controls = {name: u.double() for name, u in controls.items()}
    tracks[..., 1000:1500] = 0
    bypass = Switches(bypass={"compressor": torch.tensor([False, False, False, True])})
    gains = console.signals(tracks, controls, switches=bypass).gain_db
    values = console.denormalize(controls)["track"]
    x = console.strip[0].process(tracks, **values["parametric_eq"])
    y = console.strip[1].process(x, **{**values["compressor"], "makeup_gain_db": 0.0})
    applied = 20 * torch.log10((y / x).abs())
    told = gains["track.compressor"]
    heard = x.abs() > 1e-9
    heard[:, 3] = False
    assert heard.float().mean() > 0.5
    torch.testing.assert_close(told[heard], applied[heard], atol=1e-9, rtol=0)
    assert not told[:, 3].any()
    assert (told[:, :3] <= 0).all()
    assert told[:, :3].min() < -3
    # Where there is nothing to hear the gain goes on, and rises.
    assert torch.isfinite(told).all()
    assert gains["master.compressor"].shape == (2, 1, 3000)


# Partial renders


def edits(console, controls, tracks, generator):
    """Changes of a mix one after the other, each with the tracks that a stage of their strips may process."""
    names = console.control_names("track")
    strip = list(console.strip.stages())

    def control(name, track, value):
        changed = {section: u.clone() for section, u in controls.items()}
        changed["track"][track, names.index(name)] = value
        return changed

    yield control("gain.gain_db", 2, 0.4), tracks, None, {"gain": 1, "stereo_panner": 1}
    yield (
        control("parametric_eq.gain_db[1]", 0, 0.9),
        tracks,
        None,
        {**dict.fromkeys(strip, 1), "gain": 2, "stereo_panner": 2},
    )
    louder = [track.clone() for track in tracks]
    louder[3] *= 2
    yield controls, louder, None, dict.fromkeys(strip, 2)
    yield controls, louder, switched(console), {"compressor": 0, "gain": 1, "stereo_panner": 1}
    yield {**controls, "master": torch.rand_like(controls["master"])}, louder, switched(console), {}


@pytest.mark.parametrize("stereo", [False, True])
def test_a_partial_render_equals_the_full_one_and_processes_what_changed(stereo, generator):
    console = desk()
    tracks = [noise(generator, 2 if stereo and position == 1 else 1, 3000) for position in range(4)]
    controls = {name: 0.2 + 0.6 * u for name, u in console.random_controls(4, generator).items()}
    render = PartialRender(console)
    torch.testing.assert_close(render(tracks, controls), console(tracks, controls), atol=1e-6, rtol=0)
    assert render.processed["track.mono.compressor"] == (3 if stereo else 4)
    assert torch.equal(render(tracks, controls), render(tracks, controls))
    assert render.processed == {}
    for changed, heard, switches, most in edits(console, controls, tracks, generator):
        mix = render(heard, changed, switches=switches)
        full = console(heard, changed, switches=switches)
        torch.testing.assert_close(mix, full, atol=1e-6 * float(full.abs().max().clamp_min(1)), rtol=0)
        done = {}
        for place, count in render.processed.items():
            if place.startswith("track."):
                stage = place.rpartition(".")[2]
                done[stage] = done.get(stage, 0) + count
        for stage, count in done.items():
            assert count <= most.get(stage, 0), (stage, done, most)


def test_a_partial_render_sees_changes_in_place_and_other_shapes(generator):
    console = desk()
    render = PartialRender(console)
    tracks, controls = noise(generator, 4, 1, 2000), console.default_controls(4)
    before = render(tracks, controls)
    tracks[1] = 0
    controls["master"][0] = 0.9
    after = render(tracks, controls)
    torch.testing.assert_close(after, console(tracks, controls), atol=1e-6, rtol=0)
    assert not torch.equal(before, after)
    two = render(tracks[:2], {**controls, "track": controls["track"][:2]})
    assert two.shape == (2, 2000)
    assert render.processed["track.mono.gain"] == 2


def test_a_partial_render_of_eight_tracks_is_faster():
    console = DifferentiableMixingConsole(RATE, buses={})
    generator = torch.Generator().manual_seed(0)
    tracks, controls = noise(generator, 8, 1, 131072), console.random_controls(8, generator)
    fader = console.control_names("track").index("gain.gain_db")
    render = PartialRender(console)
    render(tracks, controls)
    times = {"partial": [], "full": []}
    for step in range(5):
        controls["track"][3, fader] = 0.3 + 0.1 * step
        for name, run in (("partial", render), ("full", console)):
            start = time.perf_counter()
            with torch.no_grad():
                run(tracks, controls)
            times[name].append(time.perf_counter() - start)
    # Measured: two fifths.  What is left is the sum and the master.
    assert min(times["partial"]) < min(times["full"])
