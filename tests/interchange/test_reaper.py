"""Projects of REAPER: read back by a strict reader, mixed by its rules, and effects that null against dasp."""

from __future__ import annotations

import base64
import copy
import hashlib
import math
import os
import shlex
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

import dasp.functional as F
import dasp.mixing
import dasp.modules as M
from dasp.functional.stereo import LAWS
from dasp.interchange import _chunks, _jsfx, write_reaper
from dasp.interchange._session import stage_of
from dasp.interchange._text import file_name
from dasp.interchange.equalizers import Band, bands_of
from dasp.interchange.reaper import quoted
from dasp.io import AudioFileError, OutputExistsError
from dasp.kernels import KINDS
from tests.interchange.eel2 import Machine

RATE = 8000
NAMES = ["kick", "snare", "\"><script>\n'=cmd()` 🥁\x07" + "x" * 300, "pad"]


def console(pre_fader=("cue",)):
    strip = M.Chain(
        M.Gain(RATE),
        M.Highpass(RATE, frequency_hz=30.0),
        M.ParametricEQ(RATE, frequency_hz=[100.0, 200.0, 400.0, 900.0, 2000.0, 3000.0]),
        M.Compressor(RATE),
        M.Gain(RATE),
        M.StereoPanner(RATE),
        M.Polarity(RATE),
    )
    return dasp.mixing.DifferentiableMixingConsole(
        RATE,
        strip=strip,
        groups={"drums": M.Chain(M.Compressor(RATE), M.Gain(RATE)), "none": M.Chain(M.Gain(RATE))},
        buses={
            "room": M.Chain(M.NoiseShapedReverb(RATE, decay_s=0.2, mix=1.0), M.StereoPanner(RATE)),
            "cue": M.Chain(M.Expander(RATE)),
        },
        master=M.Chain(M.StereoWidener(RATE), M.Distortion(RATE), M.Gain(RATE)),
        pre_fader=pre_fader,
    )


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    """Settings, stems and their audio; random controls but for a master that is not inverted."""
    folder = tmp_path_factory.mktemp("song") / "stems"
    folder.mkdir()
    made = console()
    controls = made.random_controls(4, torch.Generator().manual_seed(3))
    switches = made.switches(
        NAMES, mute=["pad"], bypass={"snare": ["compressor"]}, group={"kick": "drums", "snare": "drums"}
    )
    settings = made.describe(controls, NAMES, switches)
    for track in settings["tracks"].values():
        track["send"] = {"room_db": -6.0, "cue_db": -3.0}
        track["gain"]["gain_db"], track["gain_2"]["gain_db"] = -2.0, 3.0
    settings["tracks"]["kick"]["polarity"]["invert"] = 1.0
    settings["tracks"]["snare"]["polarity"]["invert"] = 0.0
    settings["tracks"]["pad"]["send"]["room_db"] = -60.0
    settings["groups"]["drums"]["gain"]["gain_db"] = 2.0
    settings["master"]["gain"]["gain_db"] = -1.0
    stems, audio = {}, {}
    for number, name in enumerate(NAMES):
        channels = 1 + number % 2
        x = 0.2 * torch.randn(channels, 4000, generator=torch.Generator().manual_seed(number))
        stems[name] = folder / f"stem {number}.wav"
        soundfile.write(stems[name], x.T.numpy(), RATE, subtype="FLOAT")
        audio[name] = x
    return settings, stems, audio


class Node:
    """A block of a project: the fields of its head, lines with their fields, and blocks, in order."""

    def __init__(self, head):
        self.head, self.lines, self.blocks, self.order = head, {}, [], []

    def fields(self, name):
        (found,) = self.lines[name]
        return found

    def numbers(self, name):
        return [float(field) for field in self.fields(name)]

    def kind(self, name):
        return [block for block in self.blocks if block.head[0] == name]


def fields_of(line):
    """Fields are separated by blanks, or quoted by the first of three quotes that they lack; nothing is escaped."""
    found, rest = [], line.strip()
    while rest:
        if rest[0] in "\"'`":
            text, end, rest = rest[1:].partition(rest[0])
            assert end, line
            assert not rest or rest[0] == " ", line
            found.append(text)
        else:
            text, _, rest = rest.partition(" ")
            found.append(text)
        rest = rest.lstrip(" ")
    return found


def parse(text):
    assert text.isprintable() or {c for c in text if not c.isprintable()} == {"\n"}
    lines = text.split("\n")
    assert lines.pop() == ""
    stack = [Node(["root"])]
    for number, line in enumerate(lines):
        assert line == line.rstrip()
        assert len(line) - len(line.lstrip(" ")) == 2 * (len(stack) - 1 - (line.strip() == ">")), line
        line = line.strip()
        if line.startswith("<"):
            node = Node(fields_of(line[1:]))
            stack[-1].blocks.append(node)
            stack[-1].order.append(node)
            stack.append(node)
        elif line == ">":
            stack.pop()
            assert stack, f"line {number + 1} closes too much"
        else:
            name, *rest = fields_of(line)
            stack[-1].lines.setdefault(name, []).append(rest)
            stack[-1].order.append((name, rest))
    assert len(stack) == 1, "a block stays open"
    (project,) = stack[0].blocks
    assert project.head[0] == "REAPER_PROJECT"
    return project


def effects(chain):
    """Effects of a chain and whether they are bypassed."""
    found, bypassed = [], None
    for entry in chain.order:
        if isinstance(entry, Node):
            found.append((entry, bypassed))
            bypassed = None
        elif entry[0] == "BYPASS":
            assert bypassed is None
            bypassed = entry[1][0] == "1"
    return found


def decoded(block):
    header, *state, trailer = (base64.b64decode(line[0], validate=True) for line in read_lines(block))
    assert trailer == bytes([0, 0, 16, 0, 0, 0])
    return header, b"".join(state)


def read_lines(block):
    return [[name] for name, _ in block.order]


def reaeq_of(block):
    """Bands and gain of a ReaEQ."""
    header, state = decoded(block)
    assert block.head[1:3] == ["VST: ReaEQ (Cockos)", "reaeq.dll"]
    assert struct.unpack("<4sII2QI2QIII", header) == (
        b"qeer", 0xFEED5EEE, 2, 1, 2, 2, 1, 2, len(state), 1, 0x100000,
    )  # fmt: skip
    size, count = struct.unpack_from("<ii", state)
    assert (size, len(state)) == (33, 8 + 33 * count + 32)
    bands = [struct.unpack_from("<iiddd?", state, 8 + 33 * band) for band in range(count)]
    assert all(band[5] for band in bands)
    one, also_one, gain = struct.unpack_from("<iid", state, 8 + 33 * count)
    assert (one, also_one) == (1, 1)
    return [band[:5] for band in bands], gain


def as_ours(kind, f, gain, octaves):
    """Q of a band of ReaEQ, from its published response, solved for numerically."""
    w = 2 * math.pi * f / RATE
    if kind in (0, 1):
        root, slope = gain**0.5, 1 / octaves**2
        return 1 / math.sqrt((root + 1 / root) * (1 / slope - 1) + 2)
    if kind == 8:
        return 1 / (2 * math.sinh(math.log(2) / 2 * octaves * w / math.sin(w)))
    return 1 / (2 * math.sinh(math.log(2) / 2 * octaves))


def test_the_layout_of_reaeq_is_that_of_a_state_saved_by_reaper():
    bands = [
        (4, 1, 100.41747866600939, 1, 2),
        (0, 0, 200.3077623397404, 1, 2),
        (8, 0, 801.9398157380639, 1, 1),
        (8, 0, 2996.2342070275295, 1, 1),
        (1, 0, 8016.061124722856, 1, 2),
    ]
    header, *state, _ = map(base64.b64decode, _chunks.reaeq([_chunks.ReaEQBand(*band) for band in bands]))
    known = "1ae5cca9d4d4da033182b5c3fb6b2284b13853257d7e41f595a7838a491545db"
    assert (len(header), hashlib.sha256(header).hexdigest()) == (60, known)
    known = "b047b24d62be49e636437d15443d4a12cbdad1bd5cca42188310d5d7b17d77bc"
    assert (len(b"".join(state)), hashlib.sha256(b"".join(state)).hexdigest()) == (205, known)


@pytest.mark.parametrize("q", [0.3, math.sqrt(0.5), 0.75])
@pytest.mark.parametrize("kind", ["peaking", "low_shelf", "high_shelf", "lowpass", "highpass"])
def test_bandwidths_of_reaeq_give_back_q(kind, q):
    for gain_db in (-12.0, 0.0, 7.5):
        band = _chunks.reaeq_band(Band(kind, 1500.0, gain_db, q), RATE)
        assert as_ours(band.type, 1500.0, band.gain, band.bandwidth) == pytest.approx(q, rel=1e-12)


def test_a_shelf_of_butterworth_has_one_octave():
    assert _chunks.reaeq_bandwidth(Band("low_shelf", 100.0, 9.0, math.sqrt(0.5)), RATE) == pytest.approx(1, rel=1e-12)


def test_the_project_reads_back_as_the_settings(song, tmp_path):
    settings, stems, _ = song
    project = written(song, tmp_path)
    tracks = {track.fields("NAME")[0]: track for track in project.kind("TRACK")}
    assert list(tracks)[2:4] == ["drums", "kick"]
    odd = next(name for name in tracks if "script" in name)
    assert odd.startswith("\"><script> '=cmd()' 🥁 xxx")
    assert len(odd) == 200
    for name, own in settings["tracks"].items():
        track = tracks.get(name, tracks[odd])
        check_fader(track, own)
        check_effects(track, own, bypassed=name == "snare")
        assert track.fields("MUTESOLO") == [str(int(name == "pad")), "0", "0"]
        (item,) = track.kind("ITEM")
        (source,) = item.kind("SOURCE")
        assert source.head == ["SOURCE", "WAVE"]
        assert (tmp_path / source.fields("FILE")[0]).samefile(stems[name])
        assert item.numbers("LENGTH") == [0.5]
    assert [track.fields("ISBUS") for track in tracks.values()] == [
        ["0", "0"], ["0", "0"], ["1", "1"], ["0", "0"], ["2", "-1"], ["0", "0"], ["0", "0"], ["0", "0"],
    ]  # fmt: skip


def check_fader(track, own):
    volume, balance = track.numbers("VOLPAN")[:2]
    left, right = volume * min(1, 1 - balance), volume * min(1, 1 + balance)
    p = (own["stereo_panner"]["pan"] + 1) / 2
    flip = 1 - 2 * own["polarity"]["invert"]
    fader = 10 ** (own["gain_2"]["gain_db"] / 20) * abs(flip) * math.sqrt(2)
    assert left == pytest.approx(fader * math.cos(math.pi / 2 * p), rel=1e-9)
    assert right == pytest.approx(fader * math.sin(math.pi / 2 * p), rel=1e-9)
    assert track.fields("IPHASE") == [str(int(flip < 0))]


def check_effects(track, own, bypassed):
    (chain,) = track.kind("FXCHAIN")
    (gain, _), (highpass, _), (equalizer, _), (compressor, off) = effects(chain)
    assert off == bypassed
    bands, factor = reaeq_of(gain)
    assert [band[1] for band in bands] == [0]
    assert 20 * math.log10(factor) == pytest.approx(own["gain"]["gain_db"], rel=1e-12)
    (band,), factor = reaeq_of(highpass)
    assert (band[0], band[1], band[2], factor) == (4, 1, own["highpass"]["frequency_hz"], 1)
    assert as_ours(4, band[2], 1, band[4]) == pytest.approx(own["highpass"]["q"], rel=1e-12)
    bands, factor = reaeq_of(equalizer)
    assert [band[0] for band in bands] == [0, 8, 8, 8, 8, 1]
    for band, f, gain_db, q in zip(bands, *own["parametric_eq"].values(), strict=True):
        assert band[2] == min(f, 0.499 * RATE)
        assert 20 * math.log10(band[3]) == pytest.approx(gain_db, rel=1e-12)
        if band[4] != _chunks.LOWEST_SHELF_BANDWIDTH:
            assert as_ours(band[0], band[2], band[3], band[4]) == pytest.approx(q, rel=1e-9)
    check_reacomp(compressor, own["compressor"])


def check_reacomp(block, own):
    header, state = decoded(block)
    assert struct.unpack("<4sII4QI2QIII", header) == (
        b"mcer", 0xFEED5EEF, 4, 1, 2, 4, 8, 2, 1, 2, 92, 0, 0x100000,
    )  # fmt: skip
    first, second, *fields = struct.unpack("<II21f", state)
    assert (first, second) == (0xDEADBEEF, 0xDEADF00D)
    found = {
        "threshold_db": 20 * math.log10(fields[0]),
        "ratio": 1 + 99 * fields[1],
        "attack_ms": 500 * fields[2],
        "release_ms": 5000 * fields[3],
        "knee_db": 24 * fields[14],
        "makeup_gain_db": 20 * math.log10(fields[11]),
    }
    # Its numbers have 24 bits.
    assert found == pytest.approx({name: own[name] for name in found}, rel=1e-5, abs=1e-5)
    assert fields[13] == fields[15] == fields[16] == 0


def written(song, folder, **options):
    settings, stems, _ = song
    found = write_reaper(folder / "song.rpp", settings, stems, **options)
    assert [path for path in folder.rglob("*") if path.is_file() and path not in found] == []
    return parse((folder / "song.rpp").read_text(encoding="utf-8"))


FUNCTIONS = {
    "compressor": ("threshold_db", "ratio", "attack_ms", "release_ms", "knee_db", "makeup_gain_db"),
    "expander": ("threshold_db", "ratio", "attack_ms", "release_ms", "knee_db", "range_db"),
}


def process(x, chain, response):
    """Audio through the effects of a chain, by the values of their sliders."""
    for block, bypassed in effects(chain) if chain else []:
        name, values = Path(block.head[1]).stem, [float(f) for f in read_fields(block) if f != "-"]
        if bypassed:
            continue
        if name == "equalizer":
            kinds, f, gain, q = (values[first::4] for first in range(4))
            x = F.parametric_eq(x, RATE, f, gain, q, kinds=[KINDS[int(kind) - 1] for kind in kinds])
        elif name in FUNCTIONS:
            assert values.pop() == 0
            x = getattr(F, name)(x, RATE, **dict(zip(FUNCTIONS[name], values, strict=True)))
        elif name == "distortion":
            x = F.distortion(x, RATE, drive_db=values[0])
        else:
            assert name == "channel"
            gain, invert, width, pan, law = values
            x = F.stereo_widener(F.polarity(F.gain(x, RATE, gain), RATE, invert), RATE, width)
            if law:
                x = F.stereo_panner(x, RATE, pan, law=LAWS[int(law) - 1])
    if response is not None:
        x = torch.from_numpy(scipy.signal.fftconvolve(x.numpy(), response, axes=-1)[:, : x.shape[-1]])
    return x


def read_fields(block):
    ((first, rest),) = block.order
    assert len([first, *rest]) == 64
    return [first, *rest]


def faded(x, volume, balance):
    sides = torch.tensor([min(1.0, 1 - balance), min(1.0, 1 + balance)], dtype=x.dtype)
    return volume * sides[:, None] * x


@pytest.mark.parametrize("pre_fader", [["cue"], []], ids=["pre-fader", "post-fader"])
def test_the_project_with_exact_effects_mixes_as_dasp_does(song, tmp_path, pre_fader):
    settings, stems, audio = song
    settings = copy.deepcopy(settings)
    settings["console"]["pre_fader"] = pre_fader
    project = written((settings, stems, audio), tmp_path, effects="jsfx")
    tracks = project.kind("TRACK")
    balances = {track.numbers("VOLPAN")[1] for track in tracks}
    assert (balances == {0.0}) == (not pre_fader)
    (file,) = tmp_path.glob("*.wav")
    response = soundfile.read(file)[0].T
    heard, taps, total, into = {}, {}, torch.zeros(2, 4000, dtype=torch.float64), None
    folder = None
    for number, track in enumerate(tracks):
        name = track.fields("NAME")[0]
        x = torch.zeros(2, 4000, dtype=torch.float64)
        if track.kind("ITEM"):
            (source,) = track.kind("ITEM")[0].kind("SOURCE")
            x = x + torch.from_numpy(soundfile.read(tmp_path / source.fields("FILE")[0], always_2d=True)[0].T)
        if name == "drums":
            # What is in the folder comes in first.
            folder = number
            continue
        for index, mode, level, *_ in track.lines.get("AUXRECV", []):
            x = x + float(level) * (taps if mode == "3" else heard)[int(index)]
        heard[number], taps[number] = through(track, x, response if name == "room" else None)
        if folder is None:
            total = total + heard[number]
        else:
            into = heard[number] if into is None else into + heard[number]
            if track.fields("ISBUS") == ["2", "-1"]:
                heard[folder], taps[folder] = through(tracks[folder], into, None)
                total, folder = total + heard[folder], None
    (chain,) = project.kind("MASTERFXLIST")
    mix = faded(process(total, chain, None), *project.numbers("MASTER_VOLUME")[:2])
    wanted = dasp.mixing.render(settings, {name: x.double() for name, x in audio.items()})
    # The response stands in its file in float32.
    assert (mix - wanted).abs().max() < 1e-6 * wanted.abs().max()


def through(track, x, response):
    """A track behind its fader and before it."""
    chains = track.kind("FXCHAIN")
    tap = process(x, chains[0] if chains else None, response)
    if track.fields("MUTESOLO")[0] == "1":
        tap = 0 * tap
    sign = -1 if track.fields("IPHASE") == ["1"] else 1
    return sign * faded(tap, *track.numbers("VOLPAN")[:2]), tap


def test_a_master_that_is_inverted_has_an_effect_for_it(tmp_path, song):
    made = dasp.mixing.DifferentiableMixingConsole(
        RATE, strip=M.Chain(M.Gain(RATE)), buses={}, master=M.Chain(M.Gain(RATE), M.Polarity(RATE))
    )
    settings = made.describe(made.default_controls(1), ["kick"])
    settings["master"] = {"gain": {"gain_db": -3.0}, "polarity": {"invert": 1.0}}
    stems = {"kick": song[1]["kick"]}
    project = written((settings, stems, {}), tmp_path, effects="jsfx")
    (chain,) = project.kind("MASTERFXLIST")
    ones = torch.ones(2, 4, dtype=torch.float64)
    assert process(ones, chain, None).numpy() == pytest.approx(-(10 ** (-3 / 20)))
    assert project.numbers("MASTER_VOLUME")[:2] == [1, 0]
    write_reaper(tmp_path / "stock.rpp", settings, stems)
    remark = "master: its polarity is inverted in dasp, and is not here."
    assert remark in (tmp_path / "stock.rpp.txt").read_text(encoding="utf-8")
    assert remark not in (tmp_path / "song.rpp.txt").read_text(encoding="utf-8")


def test_solo_is_solo(song, tmp_path):
    settings, stems, _ = song
    settings = {
        **settings,
        "tracks": {n: {**t, "switches": {"solo": n == "kick"}} for n, t in settings["tracks"].items()},
    }
    write_reaper(tmp_path / "song.rpp", settings, stems)
    tracks = parse((tmp_path / "song.rpp").read_text(encoding="utf-8")).kind("TRACK")
    assert {t.fields("NAME")[0]: t.fields("MUTESOLO")[1] for t in tracks}["kick"] == "2"
    assert sum(t.fields("MUTESOLO")[1] == "2" for t in tracks) == 1


def test_the_text_beside_the_project_says_what_differs(song, tmp_path):
    written(song, tmp_path)
    text = (tmp_path / "song.rpp.txt").read_text(encoding="utf-8")
    for expected in (
        "No part of this project was opened in REAPER",
        "song.rpp-07-room-noise_shaped_reverb.wav: what a reverberation does to an impulse",
        "cue, expander: has no counterpart here and was left out.",
        "master, distortion: has no counterpart here and was left out.",
        "is steeper than a shelf of ReaEQ can be.",
        "goes to group drums",
        "send to cue -3.00 dB pre-fader",
    ):
        assert expected in text


def test_stems_are_named_from_the_folder_of_the_project(song, tmp_path):
    settings, stems, _ = song
    (tmp_path / "link").symlink_to(stems["kick"].parent)
    linked = {name: tmp_path / "link" / path.name for name, path in stems.items()}
    write_reaper(tmp_path / "a" / "song.rpp", settings, linked)
    assert 'FILE "../link/stem 0.wav"' in (tmp_path / "a" / "song.rpp").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["new\nline.wav", "all\"of'them`.wav", b"\xff.wav".decode("utf-8", "surrogateescape")])
def test_a_stem_that_no_project_can_name_is_refused_and_nothing_written(song, tmp_path, name):
    settings, stems, _ = song
    try:
        (tmp_path / name).write_bytes(stems["kick"].read_bytes())
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(ValueError, match="cannot name a file with"):
        write_reaper(tmp_path / "song.rpp", settings, {**stems, "kick": tmp_path / name})
    assert not (tmp_path / "song.rpp").exists()


def test_what_exists_is_replaced_by_force_only(song, tmp_path):
    settings, stems, _ = song
    (tmp_path / "song.rpp.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"song.rpp.txt: exists already"):
        write_reaper(tmp_path / "song.rpp", settings, stems)
    assert [path.name for path in tmp_path.iterdir()] == ["song.rpp.txt"]
    write_reaper(tmp_path / "song.rpp", settings, stems, force=True)
    first = (tmp_path / "song.rpp").read_bytes()
    write_reaper(tmp_path / "song.rpp", settings, stems, force=True)
    assert (tmp_path / "song.rpp").read_bytes() == first


def test_stems_that_do_not_match_are_refused(song, tmp_path):
    settings, stems, _ = song
    with pytest.raises(ValueError, match="stems has no stem for track 'kick', expected kick, snare"):
        write_reaper(tmp_path / "song.rpp", settings, {n: p for n, p in stems.items() if n != "kick"})
    with pytest.raises(ValueError, match="has no track of the description for stem 'flute'"):
        write_reaper(tmp_path / "song.rpp", settings, {**stems, "flute": stems["kick"]})
    with pytest.raises(ValueError, match=r"output is 'song.txt', expected a name that ends in .rpp"):
        write_reaper(tmp_path / "song.txt", settings, stems)
    with pytest.raises(ValueError, match="effects is 'vst', expected"):
        write_reaper(tmp_path / "song.rpp", settings, stems, effects="vst")
    with pytest.raises(AudioFileError, match=r"missing\.wav"):
        write_reaper(tmp_path / "song.rpp", settings, {**stems, "kick": tmp_path / "missing.wav"})
    assert list(tmp_path.iterdir()) == []


@given(st.text(st.characters(codec=None), max_size=300))
def test_any_name_is_one_field_of_one_line(name):
    line = f"NAME {quoted(name)}"
    assert line.splitlines() == [line]
    assert line.isprintable()
    _, field = fields_of(line)
    assert 0 < len(field) <= 200
    line.encode("utf-8")


@given(st.text(st.characters(codec=None), max_size=300))
def test_any_name_is_a_part_of_a_file_name(name):
    kept = file_name(name)
    assert kept.isascii()
    assert 0 < len(kept) <= 61
    assert not set(kept) & set('/\\:*?"<>|.')
    assert kept == kept.strip(" ")
    assert kept.lower() not in ("con", "nul", "aux", "prn", "com1")


@pytest.mark.parametrize(
    ("section", "stage", "control"), [("tracks", "gain", "gain_db"), ("tracks", "send", "room_db")]
)
def test_levels_that_no_program_takes_are_refused(song, tmp_path, section, stage, control):
    settings = copy.deepcopy(song[0])
    settings[section]["kick"][stage][control] = 1e6
    with pytest.raises(ValueError, match=r"a level is 1e[+]06 dB, expected at most 400 dB to be exported"):
        write_reaper(tmp_path / "song.rpp", settings, song[1])
    assert list(tmp_path.iterdir()) == []


# ---- effects in text form


MODULES = {
    "equalizer": M.ParametricEQ(
        44100,
        kinds=KINDS,
        frequency_hz=[30.0, 100.0, 400.0, 1000.0, 3000.0, 5000.0, 8000.0, 15000.0],
        gain_db=[6.0, -9.0, 3.0, -12.0, 20.0, 4.0, -5.0, 6.0],
        q=[0.3, 0.7, 1.0, 2.0, 5.0, 0.5, 0.8, 0.9],
    ),
    "more bands than one has": M.ParametricEQ(44100, kinds=("peaking",) * 15, gain_db=2.0, frequency_hz=1000.0),
    "compressor": M.Compressor(44100, threshold_db=-30.0, attack_ms=0.5, release_ms=5.0, makeup_gain_db=6.0),
    "compressor of means": M.Compressor(44100, attack_ms=0.5, link="mean"),
    "two compressors": M.Compressor(44100, knee_db=0.0, ratio=20.0, attack_ms=0.5, link="none"),
    "expander": M.Expander(44100, threshold_db=-15.0, release_ms=5.0),
    "gain": M.Gain(44100, gain_db=-3.0),
    "polarity": M.Polarity(44100, invert=0.2),
    "widener": M.StereoWidener(44100, width=1.5),
    "constant power": M.StereoPanner(44100, pan=0.3),
    "linear": M.StereoPanner(44100, pan=-0.3, law="linear"),
    "-4.5 dB": M.StereoPanner(44100, pan=-1.0, law="-4.5dB"),
    "tanh": M.Distortion(44100, drive_db=12.0),
    "hard": M.Distortion(44100, drive_db=12.0, curve="hard"),
    "cubic": M.Distortion(44100, drive_db=12.0, curve="soft_cubic"),
}


def nulls(module, run):
    """Effects of a module, run one after the other, against the module."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 600, generator=generator, dtype=torch.float64) * torch.linspace(0.01, 0.8, 600)
    controls = module.denormalize(module.exact())
    with torch.no_grad():
        wanted = module.process(x, **controls).numpy()
    y = x.numpy()
    found = _jsfx.effects_of(stage_of("stage", module, controls), module.sample_rate)
    assert found
    for name, sliders in found:
        y = run(name, sliders, y)
    assert np.abs(y - wanted).max() < 1e-12 * np.abs(wanted).max()


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_jsfx_null_to_minus_240_db(module):
    nulls(module, lambda name, sliders, x: Machine(_jsfx.FILES[name](), 44100, sliders).process(x))


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_jsfx_null_in_the_compiler_of_reaper(module, tmp_path):
    host = os.environ.get("DASP_JSFX_HOST")
    if not host:
        pytest.skip("DASP_JSFX_HOST names no host, which tests/interchange/jsfx_host.c is the source of")

    def run(name, sliders, x):
        (tmp_path / "effect.jsfx").write_text(_jsfx.FILES[name]())
        command = [*shlex.split(host), str(tmp_path / "effect.jsfx"), "44100", *map(repr, sliders)]
        done = subprocess.run(command, input=x.T.tobytes(), capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return np.frombuffer(done.stdout).reshape(-1, 2).T

    nulls(module, run)


@pytest.mark.parametrize("name", _jsfx.FILES)
def test_jsfx_have_no_more_sliders_than_a_project_has_fields(name):
    machine = Machine(_jsfx.FILES[name](), 44100, [])
    assert [int(number) for number, _ in machine.declared] == list(range(1, len(machine.declared) + 1))
    assert 0 < len(machine.declared) <= 64
    x = np.ones((2, 4))
    if name in ("equalizer", "channel"):
        assert (machine.process(x) == x).all()


def test_all_processors_but_reverbs_have_an_effect():
    for cls in M.Processor.__subclasses__():
        if cls.spec.signals or cls.spec.name in ("noise_shaped_reverb", "stereo_bus"):
            continue
        module = cls(44100)
        stage = stage_of("stage", module, module.denormalize(module.exact()))
        assert _jsfx.effects_of(stage, 44100), cls.spec.name
        assert bool(bands_of(stage, 44100)) == (cls.spec.name in (*KINDS, "parametric_eq"))
