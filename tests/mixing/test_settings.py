"""Descriptions of a console: JSON and back without loss, and errors that name the place."""

from __future__ import annotations

import json
import re

import pytest
import torch

import dasp.modules as M
from dasp.mixing import DifferentiableMixingConsole, SettingsError, Switches, interpret, render, schema
from dasp.mixing.settings import parse, read, to_json

RATE = 44100
NAMES = ["kick", "bass", "voice"]


@pytest.fixture(scope="module")
def console():
    return DifferentiableMixingConsole(RATE)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)


@pytest.fixture
def tracks(generator):
    return 0.1 * torch.randn(3, 1, 6000, generator=generator)


def desk(rate=RATE):
    """A console with everything that can be described."""
    room = M.Chain(M.NoiseShapedReverb(rate, decay_s=0.1, mix=1.0, bands_hz=(200.0, 2000.0)))
    cue = M.Chain(M.Distortion(rate, drive_db=12.0))
    drums = M.Chain(M.Compressor(rate, ratio=2.0, link="mean"), M.Gain(rate))
    return DifferentiableMixingConsole(
        rate, buses={"room": room, "cue": cue}, groups={"drums": drums}, pre_fader=["cue"], locked=["*.pre_delay_ms"]
    )


def switched(console, names=NAMES):
    return console.switches(names, mute=["bass"], bypass={"voice": ["compressor"]}, group={"kick": "drums"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [DifferentiableMixingConsole, desk])
def test_a_description_renders_the_same_audio_to_the_bit(make, dtype, tracks, generator):
    console, tracks = make(RATE), tracks.to(dtype)
    switches = switched(console) if make is desk else None
    controls = {name: u.to(dtype) for name, u in console.random_controls(3, generator).items()}
    mix = console(tracks, controls, switches=switches)
    settings = parse(to_json(console.describe(controls, NAMES, switches)))
    assert torch.equal(render(settings, tracks), mix)
    assert torch.equal(render(settings, dict(zip(NAMES, tracks, strict=True))), mix)
    back = console.controls_from(settings, dtype)
    assert torch.equal(console(tracks, back, switches=switches), mix)
    again = interpret(settings)
    assert again.names == NAMES
    assert torch.equal(again.console(tracks, back, switches=again.switches), mix)
    for section, u in controls.items():
        # On a logarithmic scale values are spread by up to e^7 times as much as controls.
        torch.testing.assert_close(back[section], u, atol=20 * torch.finfo(dtype).eps, rtol=0)


def test_a_described_console_has_its_defaults_locks_and_taps(generator):
    console = desk()
    again = interpret(console.describe(console.random_controls(3, generator), NAMES)).console
    assert (again.locked, again.pre_fader) == (console.locked, console.pre_fader)
    assert list(again.sections()) == list(console.sections())
    for section, u in console.default_controls(2).items():
        torch.testing.assert_close(again.default_controls(2)[section], u, atol=1e-6, rtol=0)
        assert torch.equal(again.free(section), console.free(section))


def test_switches_stand_with_their_track():
    console = desk()
    tracks = console.describe(console.default_controls(3), NAMES, switched(console))["tracks"]
    assert tracks["kick"]["switches"] == {"group": "drums"}
    assert tracks["bass"]["switches"] == {"mute": True}
    assert tracks["voice"]["switches"] == {"bypass": ["compressor"]}
    assert "switches" not in console.describe(console.default_controls(3), NAMES)["tracks"]["kick"]


def test_a_console_of_other_processors_is_described_too(tracks, generator):
    strip = M.Chain(
        M.Highpass(RATE),
        M.Peaking(RATE),
        M.Peaking(RATE),
        M.Distortion(RATE, curve="hard"),
        M.StereoPanner(RATE, law="linear"),
    )
    buses = {"room": M.Chain(M.NoiseShapedReverb(RATE, seed=1)), "hall": M.Chain(M.NoiseShapedReverb(RATE, seed=2))}
    other = DifferentiableMixingConsole(
        RATE, strip, buses, M.Chain(M.StereoWidener(RATE)), locked=["hall.noise_shaped_reverb.mix"]
    )
    controls = other.random_controls(3, generator)
    settings = parse(to_json(other.describe(controls, NAMES)))
    assert list(settings["tracks"]["kick"]) == [
        "highpass",
        "peaking",
        "peaking_2",
        "distortion",
        "stereo_panner",
        "send",
    ]
    assert interpret(settings).console.locked == other.locked
    assert torch.equal(render(settings, tracks), other(tracks, controls))


# As version 1 wrote it.
FIRST = """{
  "dasp_settings": 1,
  "sample_rate": 44100,
  "tracks": {"a": {"gain": {"gain_db": -20.0}, "stereo_panner": {"pan": -1.0}, "send": {"fx_db": 0.0}}},
  "buses": {"fx": {"gain": {"gain_db": 20.0}}},
  "master": {"gain": {"gain_db": 0.0}},
  "console": {
    "strip": [
      {"processor": "gain", "options": {}},
      {"processor": "stereo_panner", "options": {"law": "linear"}}
    ],
    "buses": {"fx": [{"processor": "gain", "options": {}}]},
    "master": [{"processor": "gain", "options": {}}],
    "locked": ["master.gain.gain_db"]
  }
}"""


def test_a_description_of_version_1_still_renders():
    mix = render(parse(FIRST), [torch.ones(1, 4, dtype=torch.float64)])
    # A tenth, at the side twice the centre of a linear law, and ten times that from the bus.
    expected = torch.tensor([[2.2], [0.0]], dtype=torch.float64).expand(2, 4)
    torch.testing.assert_close(mix, expected, atol=1e-12, rtol=0)
    older = parse(FIRST) | {"groups": {}}
    with pytest.raises(SettingsError, match="groups is unknown"):
        interpret(older)


def test_controls_of_another_console_are_refused(console):
    settings = console.describe(console.default_controls(1), ["a"])
    with pytest.raises(SettingsError, match="console: reverb is not that of the console"):
        desk().controls_from(settings)
    with pytest.raises(SettingsError, match="console: sample_rate is not that"):
        DifferentiableMixingConsole(48000).controls_from(settings)


def test_a_value_that_no_normalised_control_gives_renders_and_is_told():
    console = DifferentiableMixingConsole(RATE)
    settings = console.describe(console.default_controls(1), ["a"])
    settings["tracks"]["a"]["compressor"]["attack_ms"] = 0.0
    settings["tracks"]["a"]["gain"]["gain_db"] = 40.0
    mix = render(settings, [torch.full((1, 4), 0.001)])
    torch.testing.assert_close(mix, torch.full((2, 4), 0.1), atol=1e-6, rtol=0)
    with pytest.raises(SettingsError, match="track: a value has no place on the normalised scale"):
        console.controls_from(settings)


def room_desk(response):
    hall = M.Chain(M.StereoWidener(RATE, width=0.0), M.ConvolutionReverb(RATE, impulse_response=response))
    return DifferentiableMixingConsole(RATE, buses={"hall": hall}, locked=["hall.convolution_reverb.mix"])


def test_an_impulse_response_is_described_to_the_bit(tracks, generator):
    response = torch.randn(2, 3000, generator=generator)
    # Subnormal and negative zero too.
    response[0, :2] = torch.tensor([1e-42, -0.0])
    console = room_desk(response)
    controls = console.random_controls(3, generator)
    settings = parse(to_json(console.describe(controls, NAMES)))
    again = interpret(settings).console
    assert torch.equal(again.sections()["hall"].stages()["convolution_reverb"].impulse_response, response)
    assert torch.equal(render(settings, tracks), console(tracks, controls))
    # Neighbours on the normalised scale may be the same in physical units.
    found, wanted = (console.denormalize(u)["track"] for u in (console.controls_from(settings), controls))
    assert all(torch.equal(found[stage][name], value) for stage, own in wanted.items() for name, value in own.items())
    root = json.loads(json.dumps(schema()))
    assert fits(settings, root, root)
    with pytest.raises(SettingsError, match="hall is not that of the console"):
        room_desk(response + 1).controls_from(settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [2]}, r"impulse_response.shape is \[2\], expected channels"),
        ({"shape": [1, 4.0]}, r"shape is \[1, 4.0\]"),
        ({"shape": [1, True]}, r"shape is \[1, true\]"),
        ({"shape": [17, 1]}, "at most 16"),
        ({"shape": [1, 1 << 40]}, "8388608 in all"),
        ({"shape": [0, 4]}, r"shape is \[0, 4\]"),
        ({"shape": [1, 5]}, "float32 has 16 bytes, expected 20"),
        ({"float32": "AAAA!"}, 'float32 is "AAAA!", expected base64'),
        ({"float32": "AADAfwAAwH8AAMB/AADAfw=="}, "float32 has NaN or infinite samples"),
        ({"float32": 1}, "float32 is 1, expected a text"),
        ({"rate": 1}, "impulse_response.rate is unknown"),
    ],
)
def test_a_wrong_impulse_response_is_refused_with_its_place(change, message):
    console = room_desk(torch.ones(1, 4))
    settings = console.describe(console.default_controls(1), ["a"])
    stage = settings["console"]["buses"]["hall"][1]
    stage["signals"]["impulse_response"] |= change
    with pytest.raises(SettingsError, match=r"^console.buses.hall\[1\].signals.*" + message):
        interpret(settings)


def test_a_missing_or_odd_signal_is_refused():
    console = room_desk(torch.ones(1, 4))
    settings = console.describe(console.default_controls(1), ["a"])
    del settings["console"]["buses"]["hall"][1]["signals"]
    with pytest.raises(SettingsError, match=r"console.buses.hall\[1\].signals is missing"):
        interpret(settings)
    settings = console.describe(console.default_controls(1), ["a"])
    settings["console"]["master"][0]["signals"] = {"impulse_response": {}}
    with pytest.raises(SettingsError, match=r"console.master\[0\].signals.impulse_response is unknown"):
        interpret(settings)


@pytest.mark.parametrize("response", [torch.ones(1, 4, dtype=torch.float64), torch.full((1, 4), torch.inf)])
def test_an_impulse_response_that_is_no_setting_is_refused(response):
    console = room_desk(response)
    with pytest.raises(
        ValueError, match=r"describe: impulse_response of convolution_reverb is .*expected finite float32"
    ):
        console.describe(console.default_controls(1), ["a"])


def test_rendered_tracks_must_be_those_described(console, tracks):
    settings = console.describe(console.default_controls(3), NAMES)
    with pytest.raises(ValueError, match="lacks the track 'voice', expected kick, bass, voice"):
        render(settings, {"kick": tracks[0], "bass": tracks[1]})
    with pytest.raises(ValueError, match="tracks has 2, expected 3: kick"):
        render(settings, tracks[:2])


# The schema


def fits(value, schema, root):
    """Whether a value is of a JSON Schema, of which it knows as much as ours use."""
    if "$ref" in schema:
        return fits(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    known = {"type", "properties", "patternProperties", "required", "additionalProperties", "items", "minItems"}
    known |= {"minimum", "maximum", "exclusiveMinimum", "enum", "const", "minProperties", "description"}
    assert not set(schema) - known - {"$schema", "$defs", "title"}
    kinds = {"object": dict, "array": list, "string": str, "number": (int, float), "boolean": bool}
    if "type" in schema and not isinstance(value, kinds[schema["type"]]):
        return False
    if schema.get("type") == "number" and isinstance(value, bool):
        return False
    if schema.get("type") == "number":
        least, most = schema.get("minimum", value), schema.get("maximum", value)
        if not least <= value <= most or not value > schema.get("exclusiveMinimum", value - 1):
            return False
    if "const" in schema and value != schema["const"]:
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, list):
        return len(value) >= schema.get("minItems", 0) and all(fits(v, schema["items"], root) for v in value)
    if isinstance(value, dict):
        if len(value) < schema.get("minProperties", 0) or not set(schema.get("required", ())) <= set(value):
            return False
        for key, own in value.items():
            patterns = [sub for pattern, sub in schema.get("patternProperties", {}).items() if re.search(pattern, key)]
            if key in schema.get("properties", {}):
                patterns.append(schema["properties"][key])
            if not patterns:
                rest = schema.get("additionalProperties", True)
                patterns = [] if rest is True else [rest]
            if False in patterns or not all(fits(own, sub, root) for sub in patterns):
                return False
    return True


def test_the_schema_takes_descriptions_and_refuses_what_reading_refuses(generator):
    root = json.loads(json.dumps(schema()))
    console = desk()
    text = to_json(console.describe(console.random_controls(3, generator), NAMES, switched(console)))
    assert fits(json.loads(text), root, root)
    wrong = [
        edit(["dasp_settings"], 3),
        edit(["sample_rate"], 0),
        edit(["tracks"], {}),
        edit(["tracks", "bass", "compressor", "ratio"], None),
        edit(["tracks", "bass", "compressor", "ratio"], "4"),
        edit(["tracks", "bass", "compressor", "ratio"], 0.5),
        edit(["tracks", "bass", "stereo_panner", "pan"], -2.0),
        edit(["tracks", "bass", "switches", "mute"], 1),
        edit(["console", "strip", 0, "processor"], "eq"),
        edit(["extra"], 1),
    ]
    for change in wrong:
        settings = json.loads(text)
        change(settings)
        assert not fits(settings, root, root)
        with pytest.raises(SettingsError):
            interpret(settings)


# Errors


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def edit(path, value):
    """A change of one place in a description."""

    def change(settings):
        *folders, last = path
        place = settings
        for folder in folders:
            place = place[folder]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit(["dasp_settings"], 9), "dasp_settings is 9, expected 1 or 2"),
        (edit(["tracks", "bass", "stereo_panner", "pan"], 2), "tracks.bass.stereo_panner.pan is 2, expected -1 to 1"),
        (edit(["tracks", "bass", "gain", "gain_db"], 10**400), "tracks.bass.gain.gain_db is 1000"),
        (edit(["tracks", "bass", "gain", "gain_db"], float("nan")), "tracks.bass.gain.gain_db is NaN, expected a fin"),
        (edit(["tracks", "bass", "gain"], nested(100000)), "tracks.bass.gain is a list, expected an object"),
        (edit(["tracks", "bass", "switches"], {"mute": 1}), "tracks.bass.switches.mute is 1, expected true"),
        (
            edit(["tracks", "bass", "switches"], {"group": "drum"}),
            "switches.group: 'drum' is unknown, there",
        ),
        (
            edit(["tracks", "bass", "switches"], {"bypass": ["compresor"]}),
            "tracks.bass.switches.bypass: 'compresor' is unknown, did you mean compressor",
        ),
        (
            edit(["tracks", "bass", "switches"], {"bypass": [1]}),
            r"bass.switches.bypass is \[1\], expected a list",
        ),
        (edit(["console", "strip", 3, "options", "law"], "loud"), r"console.strip\[3\]: .*law is 'loud'"),
        (
            edit(["console", "strip", 2, "defaults"], {"gain_db": 99}),
            r"console.strip\[2\]: Gain: gain_db is 99",
        ),
        (edit(["console", "strip"], []), r"console.strip is \[\], expected a list of processors"),
        (edit(["console", "pre_fader"], ["hall"]), "console: .*pre_fader: 'hall' is unknown"),
        (edit(["console", "locked"], ["kick.pan"]), "console: .*'kick.pan' is not a control"),
        (edit(["console", "locked"], [{}]), r"console.locked is \[{}\], expected a list of names"),
        (edit(["groups"], {"drums": {}}), "groups.drums is unknown"),
        (edit(["tracks", "bass", "compressor", "ratio"], None), "tracks.bass.compressor.ratio is missing"),
        (
            edit(["tracks", "bass", "compressor", "ratio"], "4"),
            'tracks.bass.compressor.ratio is "4", expected a number',
        ),
        (edit(["tracks", "bass", "compressor", "ratio"], True), "tracks.bass.compressor.ratio is true"),
        (
            edit(["tracks", "bass", "parametric_eq", "q"], [1.0]),
            r"tracks.bass.parametric_eq.q is \[1.0\], expected 4 finite",
        ),
        (edit(["tracks", "bass", "compressor", "rate"], 1.0), "tracks.bass.compressor.rate is unknown"),
        (edit(["tracks", "bass", "send", "reverb_db"], None), "tracks.bass.send.reverb_db is missing"),
        (edit(["master"], []), r"master is \[\], expected an object"),
        (edit(["console", "strip", 0, "processor"], "eq"), r"console.strip\[0\].processor is 'eq'"),
        (edit(["console", "strip", 0, "options"], {"kind": 1}), "console"),
        (edit(["sample_rate"], -1), "sample_rate is -1"),
        (edit(["tracks"], {}), "tracks is empty"),
        (edit(["extra"], 1), "extra is unknown"),
    ],
)
def test_a_wrong_description_is_refused_with_its_place(console, change, message):
    settings = json.loads(to_json(console.describe(console.default_controls(3), NAMES)))
    change(settings)
    with pytest.raises(SettingsError, match=message):
        interpret(settings)


@pytest.mark.parametrize(
    "text", ["", "[1]", "{", '{"dasp_settings": NaN}', "[" * 100000, '{"a": 1, "a": 2}', "9" * 5000]
)
def test_text_that_is_no_description_is_refused(text, tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"settings\.json: "):
        read(path)


def test_a_missing_file_of_settings_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.json: cannot be read: No such file"):
        read(tmp_path / "none.json")


def test_names_must_be_as_many_as_tracks_and_different(console):
    controls = console.default_controls(3)
    for names in (["a", "b"], ["a", "b", "a"]):
        with pytest.raises(ValueError, match="expected 3 different names"):
            console.describe(controls, names)
    with pytest.raises(ValueError, match=r"controls\['track'\] has shape \(2, 3, 21\), expected \(tracks, P\)"):
        console.describe(console.default_controls(3, (2,)), NAMES)
    with pytest.raises(ValueError, match=r"switches.mute has shape \(2, 3\), expected \(3,\)"):
        console.describe(controls, NAMES, Switches(mute=torch.ones(2, 3, dtype=torch.bool)))
    with pytest.raises(ValueError, match=r"switches.group is \[0, 0, 1\], expected -1 to 0"):
        desk().describe(desk().default_controls(3), NAMES, Switches(group=torch.tensor([0, 0, 1])))


def test_capabilities_name_every_control_with_its_range():
    console = desk(8000)
    able = json.loads(json.dumps(console.capabilities()))
    for section, content in able["sections"].items():
        named = []
        for stage in content["stages"]:
            for control in stage["controls"]:
                bands = control["bands"]
                own = [f"{stage['name']}.{control['name']}"]
                named += own if bands is None else [f"{own[0]}[{band}]" for band in range(bands)]
                default = [control["default"]] if bands is None else control["default"]
                assert all(control["low"] <= value <= control["high"] for value in default)
        named += [f"send.{send}" for send in content["sends"]]
        assert named == console.control_names(section)
        assert content["values"] == console.num_controls(section)
    assert able["sections"]["track"]["sends"]["cue_db"]["low"] == -60
    assert able["buses"] == {"room": {"tap": "post_fader"}, "cue": {"tap": "pre_fader"}}
    frequency = able["sections"]["track"]["stages"][0]["controls"][0]
    assert (frequency["unit"], frequency["high"], frequency["scale"]) == ("Hz", 0.49 * 8000, "log")
    room = {control["name"]: control for control in able["sections"]["room"]["stages"][0]["controls"]}
    assert room["pre_delay_ms"]["locked"]
    assert not room["mix"]["locked"]
