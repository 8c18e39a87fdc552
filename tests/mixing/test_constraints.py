"""Locks and limits of the controls of a console."""

from __future__ import annotations

import pytest
import torch

import dasp.modules as M
from dasp.mixing import Constraints, DifferentiableMixingConsole, Switches, fit, multitrack

RATE = 44100
NAMES = ["kick", "01.voice", "reverb"]


@pytest.fixture(scope="module")
def console():
    return DifferentiableMixingConsole(RATE, groups={"drums": M.Chain(M.Gain(RATE), M.Gain(RATE))})


@pytest.fixture
def controls(console):
    return console.random_controls(3, torch.Generator().manual_seed(2))


def meant(console, name, tracks=NAMES):
    """The controls that a lock of this name locks beyond those of the console: section, track and name."""
    obey, found = Constraints(console, tracks, locks={name: None}), []
    for section in console.sections():
        locked = ~obey.free(section) & console.free(section)
        for *row, position in locked.nonzero().tolist():
            place = NAMES[row[0]] if row else section
            found.append(f"{place}.{console.control_names(section)[position]}")
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("track.stereo_panner.pan", [f"{track}.stereo_panner.pan" for track in NAMES]),
        ("track.pan", [f"{track}.stereo_panner.pan" for track in NAMES]),
        ("kick.stereo_panner.pan", ["kick.stereo_panner.pan"]),
        ("kick.pan", ["kick.stereo_panner.pan"]),
        ("01.voice.pan", ["01.voice.stereo_panner.pan"]),
        # The name of a single value is not that of the bands of another stage.
        ("kick.gain_db", ["kick.gain.gain_db"]),
        ("kick.parametric_eq.gain_db[2]", ["kick.parametric_eq.gain_db[2]"]),
        ("kick.gain_db[2]", ["kick.parametric_eq.gain_db[2]"]),
        ("kick.q", [f"kick.parametric_eq.q[{band}]" for band in range(4)]),
        ("kick.send.reverb_db", ["kick.send.reverb_db"]),
        ("kick.reverb_db", ["kick.send.reverb_db"]),
        ("reverb.decay_s[0]", ["reverb.noise_shaped_reverb.decay_s[0]"]),
        ("tracks.reverb.pan", ["reverb.stereo_panner.pan"]),
        ("*.pan", [f"{track}.stereo_panner.pan" for track in NAMES]),
        ("*.compressor.rat?o", [*(f"{track}.compressor.ratio" for track in NAMES), "master.compressor.ratio"]),
        ("drums.gain_2.gain_db", ["drums.gain_2.gain_db"]),
    ],
)
def test_names_mean_the_controls_that_they_say(console, name, expected):
    assert sorted(meant(console, name)) == sorted(expected)


def test_locked_controls_have_exactly_their_value_and_no_gradient(console, controls):
    locks = {"kick.pan": -1.0, "track.gain_db": 0.0, "*.ratio": 4.0, "reverb.*": None, "kick.parametric_eq.*": None}
    obey = Constraints(console, NAMES, locks)
    given = {section: u.clone().requires_grad_() for section, u in controls.items()}
    obeyed = obey(given)
    tracks = torch.randn(3, 1, 2000, generator=torch.Generator().manual_seed(0))
    console(tracks, obeyed, switches=Switches(group=torch.tensor([0, 0, -1]))).square().sum().backward()
    default = console.default_controls(3)
    for section, u in given.items():
        free = obey.free(section).expand(u.shape)
        assert not u.grad[~free].any()
        assert u.grad[free].any() == free.any()
        assert torch.equal(obeyed[section][free], u[free])
    assert torch.equal(obeyed["reverb"], default["reverb"])
    names = console.control_names("track")
    equalizer = [name.startswith("parametric_eq") for name in names]
    assert torch.equal(obeyed["track"][0, equalizer], default["track"][0, equalizer])
    values = console.denormalize({section: u.detach() for section, u in obeyed.items()})
    assert values["track"]["stereo_panner"]["pan"][0] == -1
    torch.testing.assert_close(values["track"]["gain"]["gain_db"], torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(values["master"]["compressor"]["ratio"], torch.tensor(4.0))


def test_the_later_name_counts_and_locks_are_stronger_than_limits(console, controls):
    obey = Constraints(console, NAMES, {"track.pan": 0.0, "kick.pan": 1.0}, {"track.pan": (-0.5, 0.5)})
    pan = console.denormalize(obey(controls))["track"]["stereo_panner"]["pan"]
    assert pan.tolist() == [1.0, 0.0, 0.0]


def test_limits_hold_and_leave_alone_what_is_within(console, controls):
    limits = {"track.gain_db": (-20.0, 6.0), "master.parametric_eq.frequency_hz": (100.0, 5000.0)}
    obey = Constraints(console, NAMES, limits=limits)
    obeyed = obey(controls)
    values, before = console.denormalize(obeyed), console.denormalize(controls)
    gain, free = values["track"]["gain"]["gain_db"], before["track"]["gain"]["gain_db"]
    torch.testing.assert_close(gain, free.clamp(-20, 6), atol=1e-5, rtol=0)
    frequency = values["master"]["parametric_eq"]["frequency_hz"]
    torch.testing.assert_close(
        frequency, before["master"]["parametric_eq"]["frequency_hz"].clamp(100, 5000), atol=0, rtol=1e-6
    )
    for section, u in obeyed.items():
        same = obey.free(section).expand(u.shape) & (u - controls[section] == 0)
        assert same.float().mean() > 0.5
        assert torch.equal(obey(obeyed)[section], u)


@pytest.mark.parametrize(
    ("start", "direction", "passes"),
    [(0.1, 1, True), (0.1, -1, False), (0.9, 1, False), (0.9, -1, True), (0.5, 1, True), (0.5, -1, True)],
)
def test_beyond_a_limit_gradients_pass_that_lead_back(console, start, direction, passes):
    obey = Constraints(console, limits={"track.gain_db": (-30.0, 6.0)})
    position = console.control_names("track").index("gain.gain_db")
    u = torch.full((1, console.num_controls("track")), start, dtype=torch.float64, requires_grad=True)
    # A descent moves against the gradient: towards higher gains for the direction 1.
    (slope,) = torch.autograd.grad(-direction * obey({"track": u})["track"][0, position], u)
    assert slope[0, position] == (-direction if passes else 0)


def test_without_names_constraints_hold_for_any_number_of_tracks_and_batch(console):
    obey = Constraints(console, locks={"track.pan": 0.5}, limits={"track.gain_db": (-20.0, 6.0)})
    for count, batch in ((1, ()), (5, ()), (3, (2,))):
        values = console.denormalize(obey(console.random_controls(count, torch.Generator().manual_seed(0), batch)))
        assert (values["track"]["stereo_panner"]["pan"] == 0.5).all()
        assert values["track"]["gain"]["gain_db"].max() <= 6 + 1e-5


def test_constraints_compile_and_vectorise(console, controls):
    obey = Constraints(console, NAMES, {"kick.pan": 0.0}, {"track.gain_db": (-20.0, 6.0)})
    batch = torch.stack([controls["track"], controls["track"].flip(0)])
    mapped = torch.func.vmap(lambda u: obey({"track": u})["track"])(batch)
    assert torch.equal(mapped, obey({"track": batch})["track"])
    torch._dynamo.reset()
    compiled = torch.compile(obey.__call__, backend="eager", fullgraph=True)
    assert torch.equal(compiled({"track": batch})["track"], mapped)


@pytest.mark.parametrize(
    ("locks", "limits", "message"),
    [
        ({"kick.pann": 0.0}, {}, r"lock 'kick.pann' is not a control of this console: did you mean .*kick\.pan"),
        ({"snare.pan": 0.0}, {}, "lock 'snare.pan' is not a control"),
        ({"drums.gain_db": 0.0}, {}, r"several controls: write drums\.gain\.gain_db or drums\.gain_2\.gain_db"),
        ({"kick.pan": 2.0}, {}, "lock 'kick.pan' is 2.0, expected -1 to 1"),
        ({"track.gain_db": float("nan")}, {}, "lock 'track.gain_db' is nan, expected -48 to 24 dB"),
        ({}, {"track.gain_db": (6.0, -20.0)}, "limit 'track.gain_db' is 6.0 to -20.0, expected a range"),
        ({}, {"track.gain_db": (-90.0, 0.0)}, "limit 'track.gain_db' is -90.0, expected -48 to 24 dB"),
        ({}, {"zzz": (0.0, 1.0)}, "limit 'zzz' is not a control of this console: expected kick.param|limit 'zzz'"),
    ],
)
def test_wrong_constraints_are_refused(console, locks, limits, message):
    with pytest.raises(ValueError, match=message):
        Constraints(console, NAMES, locks, limits)


def test_controls_that_do_not_fit_are_refused(console, controls):
    obey = Constraints(console, NAMES)
    with pytest.raises(ValueError, match=r"controls\['track'\] has shape \(2, 21\), expected 3 named tracks"):
        obey({"track": controls["track"][:2]})
    with pytest.raises(ValueError, match="'bus' is unknown, expected one of track, drums, reverb, master"):
        obey({"bus": controls["master"]})
    with pytest.raises(ValueError, match="expected different names"):
        Constraints(console, ["a", "a"])


def test_locks_of_the_console_take_wildcards_and_name_what_is_close():
    console = DifferentiableMixingConsole(RATE, locked=["*.compressor.*", "reverb.mix"])
    locked = [
        name for name, free in zip(console.control_names("track"), console.free("track"), strict=True) if not free
    ]
    assert locked == [name for name in console.control_names("track") if name.startswith("compressor")]
    assert int((~console.free("reverb")).sum()) == 1
    with pytest.raises(ValueError, match=r"did you mean .*track\.gain\.gain_db"):
        DifferentiableMixingConsole(RATE, locked=["track.gain.gain_d"])


def test_a_fit_obeys_from_start_to_end():
    song = multitrack(seed=1, seconds=2.0, sample_rate=16000, num_tracks=3)
    rate = song.sample_rate
    console = DifferentiableMixingConsole(
        rate, M.Chain(M.Gain(rate), M.StereoPanner(rate)), {}, M.Chain(M.Gain(rate)), locked=["master.gain.gain_db"]
    )
    values = console.denormalize(console.default_controls(3))
    values["track"]["gain"]["gain_db"] = torch.tensor([-3.0, 3.0, -10.0])
    values["track"]["stereo_panner"]["pan"] = torch.tensor([0.5, 0.0, -0.5])
    reference = console.mix(song.tracks, values)
    names = list(song.names)
    limits = {"track.gain_db": (-6.0, 0.0)}
    obey = Constraints(console, names, locks={f"{names[0]}.pan": -0.25}, limits=limits)
    found = fit(console, list(song.tracks), reference, steps=15, excerpt_s=1.0, constraints=obey).controls
    got = console.denormalize(found)["track"]
    assert got["stereo_panner"]["pan"][0] == -0.25
    assert got["gain"]["gain_db"].min() >= -6 - 1e-5
    assert got["gain"]["gain_db"].max() <= 1e-5
    # Of the second track the least forbidden gain is the best, and the descent stays there.
    torch.testing.assert_close(got["gain"]["gain_db"][1], torch.tensor(0.0), atol=1e-5, rtol=0)
    assert (found["master"] == console.default_controls(3)["master"]).all()
