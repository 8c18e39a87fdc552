"""DAWprojects, read back by a strict reader."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
import torch

import dasp.mixing
import dasp.modules as M
from dasp.interchange import dawproject, write_dawproject
from dasp.io import OutputExistsError

RATE = 8000
NAMES = ["kick", "snare", "\"><script>\n&amp;'=cmd()` 🥁\x07/../..\\" + "x" * 300, "CON"]

# Children of each element in the order of the schema.
ORDER = {
    "Project": ["Application", "Transport", "Structure", "Arrangement"],
    "Transport": ["Tempo", "TimeSignature"],
    "Track": ["Channel", "Track"],
    "Channel": ["Devices", "Mute", "Pan", "Sends", "Volume"],
    "Equalizer": ["Enabled", "Band", "InputGain", "OutputGain"],
    "Band": ["Freq", "Gain", "Q", "Enabled"],
    "Compressor": ["Enabled", "Attack", "AutoMakeup", "InputGain", "OutputGain", "Ratio", "Release", "Threshold"],
    "NoiseGate": ["Enabled", "Attack", "Range", "Ratio", "Release", "Threshold"],
    "Send": ["Enable", "Pan", "Volume"],
    "Devices": None,
    "Sends": ["Send"],
    "Structure": ["Track"],
    "Arrangement": ["Lanes"],
    "Lanes": ["Lanes", "Clips"],
    "Clips": ["Clip"],
    "Clip": ["Audio"],
    "Audio": ["File"],
}
KINDS = {
    "lowShelf": "low_shelf",
    "highShelf": "high_shelf",
    "bell": "peaking",
    "lowPass": "lowpass",
    "highPass": "highpass",
    "bandPass": "bandpass",
    "notch": "notch",
}


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    """Settings and stems."""
    folder = tmp_path_factory.mktemp("song")
    strip = M.Chain(
        M.Gain(RATE), M.ParametricEQ(RATE), M.Compressor(RATE), M.Allpass(RATE), M.Gain(RATE), M.StereoPanner(RATE)
    )
    made = dasp.mixing.DifferentiableMixingConsole(
        RATE,
        strip=strip,
        groups={"drums": M.Chain(M.Expander(RATE))},
        buses={"room": M.Chain(M.NoiseShapedReverb(RATE, decay_s=0.2)), "cue": M.Chain(M.StereoWidener(RATE))},
        master=M.Chain(M.ParametricEQ(RATE, kinds=["notch", "bandpass", "lowpass"]), M.Polarity(RATE, invert=1.0)),
        pre_fader=["cue"],
    )
    controls = made.random_controls(4, torch.Generator().manual_seed(5))
    switches = made.switches(
        NAMES, mute=["snare"], solo=["kick"], bypass={"snare": ["compressor"]}, group={"kick": "drums"}
    )
    settings = made.describe(controls, NAMES, switches)
    settings["tracks"]["kick"]["send"] = {"room_db": -6.0, "cue_db": -60.0}
    settings["tracks"]["snare"]["send"] = {"room_db": -60.0, "cue_db": -3.0}
    settings["master"]["polarity"]["invert"] = 1.0
    stems = {}
    for number, name in enumerate(NAMES):
        stems[name] = folder / f"stem {number}.wav"
        x = np.random.default_rng(number).standard_normal((4000, 1 + number % 2))
        soundfile.write(stems[name], 0.1 * x, RATE * (1 + number % 2), subtype="FLOAT")
    return settings, stems


@pytest.fixture(scope="module")
def archive(song, tmp_path_factory):
    path = tmp_path_factory.mktemp("out") / "song.dawproject"
    write_dawproject(path, *song)
    with zipfile.ZipFile(path) as opened:
        assert opened.testzip() is None
        return {name: opened.read(name) for name in opened.namelist()}


@pytest.fixture(scope="module")
def project(archive):
    """The document, after what the schema cannot check either."""
    root = ElementTree.fromstring(archive["project.xml"])
    assert (root.tag, root.get("version")) == ("Project", "1.0")
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(set(ids)) == len(ids)
    for element in root.iter():
        tags = [child.tag for child in element]
        if tags:
            order = ORDER[element.tag]
            assert order is None or sorted(tags, key=order.index) == tags, element.tag
        for reference in ("destination", "track"):
            assert element.get(reference) is None or element.get(reference) in ids
        if element.tag in ("Equalizer", "Compressor", "NoiseGate"):
            assert element.get("deviceName")
            assert element.get("deviceRole") == "audioFX"
    return root


def tracks_of(project):
    return {track.get("name"): track for track in project.iter("Track")}


def number(parent, tag, unit):
    element = parent.find(tag)
    assert element.get("unit") == unit
    return float(element.get("value"))


def read_bands(device):
    return [
        (KINDS[b.get("type")], number(b, "Freq", "hertz"), number(b, "Gain", "decibel"), number(b, "Q", "linear"))
        for b in device.iter("Band")
    ]


def read_compressor(device):
    ratio = number(device, "Ratio", "percent")
    assert device.find("AutoMakeup").get("value") == "false"
    assert number(device, "InputGain", "decibel") == 0
    return {
        "threshold_db": number(device, "Threshold", "decibel"),
        "ratio": 1 / (1 - ratio / 100),
        "attack_ms": 1000 * number(device, "Attack", "seconds"),
        "release_ms": 1000 * number(device, "Release", "seconds"),
        "makeup_gain_db": number(device, "OutputGain", "decibel"),
    }


def test_tracks_read_back_as_the_settings(song, project):
    settings, _ = song
    tracks = tracks_of(project)
    odd = next(name for name in tracks if "script" in name)
    assert odd.startswith("\"><script> &amp;'=cmd()` 🥁 /../..\\xx")
    assert list(tracks) == ["kick", "snare", odd, "CON", "drums", "room", "cue", "master"]
    for name, own in settings["tracks"].items():
        channel = tracks.get(name, tracks[odd]).find("Channel")
        gain, equalizer, compressor, allpass = channel.find("Devices")
        assert number(gain, "OutputGain", "decibel") == own["gain"]["gain_db"]
        eq = own["parametric_eq"]
        bands = read_bands(equalizer)
        assert [band[0] for band in bands] == ["low_shelf", *["peaking"] * 4, "high_shelf"]
        assert [band[1] for band in bands] == [min(f, 0.499 * RATE) for f in eq["frequency_hz"]]
        assert [list(column) for column in zip(*(band[2:] for band in bands), strict=True)] == [eq["gain_db"], eq["q"]]
        found = read_compressor(compressor)
        assert found == pytest.approx({control: own["compressor"][control] for control in found}, rel=1e-9)
        assert compressor.find("Enabled").get("value") == ("false" if name == "snare" else "true")
        assert not list(allpass.iter("Band"))
        assert number(channel, "Volume", "linear") == pytest.approx(10 ** (own["gain_2"]["gain_db"] / 20), rel=1e-12)
        assert 2 * number(channel, "Pan", "normalized") - 1 == pytest.approx(own["stereo_panner"]["pan"], abs=1e-12)
        assert channel.find("Mute").get("value") == str(name == "snare").lower()
        assert channel.get("solo") == str(name == "kick").lower()


def test_channels_go_where_the_console_sends_them(project):
    channels = {name: track.find("Channel") for name, track in tracks_of(project).items()}
    names = {channel.get("id"): name for name, channel in channels.items()}
    to = {name: names.get(channel.get("destination")) for name, channel in channels.items()}
    assert to.pop("kick") == "drums"
    assert to.pop("master") is None
    assert set(to.values()) == {"master"}
    roles = [channels[name].get("role") for name in ("kick", "drums", "room", "cue", "master")]
    assert roles == ["regular", "submix", "effect", "effect", "master"]
    sends = {
        name: [
            (names[s.get("destination")], s.get("type"), number(s, "Volume", "linear")) for s in channel.iter("Send")
        ]
        for name, channel in channels.items()
    }
    assert sends["kick"] == [("room", "post", pytest.approx(10 ** (-6 / 20)))]
    assert sends["snare"] == [("cue", "pre", pytest.approx(10 ** (-3 / 20)))]


def test_an_expander_is_a_noise_gate(song, project):
    own = song[0]["groups"]["drums"]["expander"]
    (gate,) = tracks_of(project)["drums"].find("Channel").find("Devices")
    assert gate.tag == "NoiseGate"
    assert number(gate, "Range", "decibel") == -own["range_db"]
    assert number(gate, "Threshold", "decibel") == own["threshold_db"]
    assert 1 / (1 - number(gate, "Ratio", "percent") / 100) == pytest.approx(own["ratio"], rel=1e-9)


def test_clips_hold_the_stems_to_the_bit(song, archive, project):
    _, stems = song
    inside = {name for name in archive if name.startswith("audio/")}
    assert set(archive) == {"project.xml", "metadata.xml"} | inside
    names = {track.get("id"): name for name, track in tracks_of(project).items()}
    heard = {}
    for lanes in project.find("Arrangement").find("Lanes"):
        (clip,) = lanes.iter("Clip")
        (audio,) = clip.iter("Audio")
        path = audio.find("File").get("path")
        heard[names[lanes.get("track")]] = archive[path]
        inside.remove(path)
        info = soundfile.info(stems[next(n for n in NAMES if stems[n].read_bytes() == archive[path])])
        assert (int(audio.get("channels")), int(audio.get("sampleRate"))) == (info.channels, info.samplerate)
        assert float(clip.get("duration")) == float(audio.get("duration")) == info.frames / info.samplerate
    assert not inside
    assert list(heard.values()) == [stems[name].read_bytes() for name in NAMES]


def test_names_in_the_archive_are_harmless_on_any_system(archive):
    names = [name for name in archive if name.startswith("audio/")]
    assert len({name.casefold() for name in names}) == 4
    for name in names:
        folder, file = name.split("/")
        assert folder == "audio"
        assert set(file) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 -_.")
        assert ".." not in file
        assert len(file) < 80


def test_stems_may_stay_where_they_are(song, tmp_path):
    settings, stems = song
    write_dawproject(tmp_path / "song.dawproject", settings, stems, embed=False)
    with zipfile.ZipFile(tmp_path / "song.dawproject") as opened:
        assert opened.namelist() == ["project.xml", "metadata.xml"]
        root = ElementTree.fromstring(opened.read("project.xml"))
    for file, name in zip(root.iter("File"), NAMES, strict=True):
        assert file.get("external") == "true"
        assert not file.get("path").startswith("/")
        assert (tmp_path / file.get("path")).samefile(stems[name])


def test_the_text_beside_the_project_says_what_differs(song, tmp_path):
    write_dawproject(tmp_path / "song.dawproject", *song)
    text = (tmp_path / "song.dawproject.txt").read_text(encoding="utf-8")
    for expected in (
        "the format has no knee",
        "kick, allpass: the format has no allpass filter, it was left out.",
        "cue, stereo_widener: the format has no such device, it was left out.",
        "master: its polarity is inverted in dasp, which the format cannot say.",
        "song.dawproject-06-room-noise_shaped_reverb.wav: what a reverberation does to an impulse",
        "knee_db",
    ):
        assert expected in text


def test_one_mix_gives_one_file_and_what_exists_is_replaced_by_force_only(song, tmp_path):
    path = tmp_path / "song.dawproject"
    write_dawproject(path, *song)
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match=r"song\.dawproject: exists already"):
        write_dawproject(path, *song)
    write_dawproject(path, *song, force=True)
    assert path.read_bytes() == before


def test_a_failure_leaves_nothing_behind(song, tmp_path):
    settings, stems = song
    with pytest.raises(ValueError, match=r"expected a name that ends in \.dawproject"):
        write_dawproject(tmp_path / "song.zip", settings, stems)
    with pytest.raises(ValueError, match="has no stem for track 'kick'"):
        write_dawproject(tmp_path / "song.dawproject", settings, {})
    gone = {**stems, "kick": tmp_path / "gone.wav"}
    with pytest.raises(ValueError, match="gone"):
        write_dawproject(tmp_path / "song.dawproject", settings, gone)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_folder_that_was_made_for_nothing_is_gone(song, tmp_path, monkeypatch, error):
    settings, stems = song

    def stop(path, *_):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(dawproject, "_zip", stop)
    with pytest.raises(error):
        write_dawproject(tmp_path / "a" / "b" / "song.dawproject", settings, stems)
    assert list(tmp_path.iterdir()) == []


def test_the_project_obeys_the_schema(archive, tmp_path):
    schema, lint = os.environ.get("DASP_DAWPROJECT_XSD"), shutil.which("xmllint")
    if not schema or not lint:
        pytest.skip("DASP_DAWPROJECT_XSD does not name the Project.xsd of DAWproject, or xmllint is not installed")
    (tmp_path / "project.xml").write_bytes(archive["project.xml"])
    command = [lint, "--noout", "--nonet", "--schema", schema, str(tmp_path / "project.xml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
